/* Programs written against libc headers find here what <linux/socket.h> has of it. */
#ifndef TCBPF_SYS_SOCKET_H
#define TCBPF_SYS_SOCKET_H

#include <linux/socket.h>

typedef unsigned short sa_family_t;
typedef unsigned int socklen_t;

struct sockaddr {
	sa_family_t sa_family;
	char sa_data[14];
};

#endif
