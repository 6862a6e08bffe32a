#ifndef TCBPF_LINUX_SOCKET_H
#define TCBPF_LINUX_SOCKET_H
#define _LINUX_SOCKET_H
#define _UAPI_LINUX_SOCKET_H

#include <linux/types.h>

struct __kernel_sockaddr_storage {
	__kernel_sa_family_t ss_family;
	char __data[126];
} __attribute__((aligned(8)));

#define AF_UNSPEC 0
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_PACKET 17
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define SOL_SOCKET 1

#endif
