/* Programs written against libc headers find the numbers here; there is no variable errno. */
#ifndef TCBPF_ERRNO_H
#define TCBPF_ERRNO_H
#define _ERRNO_H 1

#include <asm/errno.h>

#define ENOTSUP EOPNOTSUPP

#endif
