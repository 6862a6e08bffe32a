/* Programs written against libc headers find here what <linux/in.h> has of it. */
#ifndef TCBPF_ARPA_INET_H
#define TCBPF_ARPA_INET_H

#include <linux/in.h>

#include <bpf_endian.h>

#ifndef htons
#define htons(x) bpf_htons(x)
#define ntohs(x) bpf_ntohs(x)
#define htonl(x) bpf_htonl(x)
#define ntohl(x) bpf_ntohl(x)
#endif

#endif
