/* Programs written against libc headers find here what <linux/types.h> has of it. */
#ifndef TCBPF_SYS_TYPES_H
#define TCBPF_SYS_TYPES_H

#include <linux/types.h>

#include <stddef.h>

typedef long ssize_t;

#endif
