/* Programs written against libc headers find here what <linux/if_ether.h> has of it. */
#ifndef TCBPF_NETINET_IF_ETHER_H
#define TCBPF_NETINET_IF_ETHER_H

#include <linux/if_ether.h>

#endif
