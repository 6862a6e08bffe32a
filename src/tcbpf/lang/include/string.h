/* The memory functions, as the compiler expands them in place: BPF has no library to call. */
#ifndef TCBPF_STRING_H
#define TCBPF_STRING_H
#define _STRING_H 1

#include <stddef.h>

#ifndef memcpy
#define memcpy(dst, src, n) __builtin_memcpy(dst, src, n)
#endif
#ifndef memmove
#define memmove(dst, src, n) __builtin_memmove(dst, src, n)
#endif
#ifndef memset
#define memset(dst, c, n) __builtin_memset(dst, c, n)
#endif
#ifndef memcmp
#define memcmp(a, b, n) __builtin_memcmp(a, b, n)
#endif

#endif
