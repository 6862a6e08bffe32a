/* The four functions that a compiler may call on its own, for the shared library, which links to nothing. */
#ifdef TCBPF_LIBRARY
#undef memcpy
#undef memmove
#undef memset
#undef memcmp

#define PLAIN __attribute__((used, no_builtin))

PLAIN void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    u8 *t = to;
    const u8 *f = from;

#if defined(__x86_64__)
    __asm__ volatile("rep movsb" : "+D"(t), "+S"(f), "+c"(n) : : "memory");
#else
    while (n--) *t++ = *f++;
#endif
    return to;
}

PLAIN void *memmove(void *to, const void *from, size_t n)
{
    u8 *t = to;
    const u8 *f = from;

    if ((uintptr_t)t - (uintptr_t)f >= n)
        return memcpy(to, from, n);
    while (n--) t[n] = f[n];
    return to;
}

PLAIN void *memset(void *to, int c, size_t n)
{
    u8 *t = to;

#if defined(__x86_64__)
    __asm__ volatile("rep stosb" : "+D"(t), "+c"(n) : "a"(c) : "memory");
#else
    while (n--) *t++ = (u8)c;
#endif
    return to;
}

PLAIN int memcmp(const void *a, const void *b, size_t n)
{
    const u8 *x = a, *y = b;

    for (; n; n--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

#define memcpy __builtin_memcpy
#define memmove __builtin_memmove
#define memset __builtin_memset
#define memcmp __builtin_memcmp
#endif
