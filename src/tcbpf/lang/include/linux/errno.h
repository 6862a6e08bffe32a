/* Error numbers. */
#ifndef TCBPF_LINUX_ERRNO_H
#define TCBPF_LINUX_ERRNO_H
#define _LINUX_ERRNO_H

#include <asm/errno.h>

#endif
