/* Programs written against libc headers find here what <linux/in.h> has of it. */
#ifndef TCBPF_NETINET_IN_H
#define TCBPF_NETINET_IN_H

#include <linux/in.h>

#endif
