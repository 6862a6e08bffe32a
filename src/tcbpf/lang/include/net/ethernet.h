/* Programs written against libc headers find here what <linux/if_ether.h> has of it. */
#ifndef TCBPF_NET_ETHERNET_H
#define TCBPF_NET_ETHERNET_H

#include <linux/if_ether.h>

#endif
