/* Programs written against libc headers find here what <linux/socket.h> has of it. */
#ifndef TCBPF_SYS_SOCKET_H
#define TCBPF_SYS_SOCKET_H

#include <linux/socket.h>

#endif
