/* What every file of the runtime starts from: errnos, byte order, atomics, memory, system calls. */
#ifndef TCBPF_BASE_H
#define TCBPF_BASE_H

#include "tcbpf.h"

#define ALWAYS inline __attribute__((always_inline))
#define INLINED __attribute__((always_inline))          /* external, and inlined into machine code that calls it */
#define COLD __attribute__((noinline, cold))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum {
    EPERM = 1, ENOENT = 2, ESRCH = 3, E2BIG = 7, EAGAIN = 11, ENOMEM = 12, EACCES = 13, EFAULT = 14, EBUSY = 16, EEXIST = 17,
    ENODEV = 19, EINVAL = 22, ENOSPC = 28, ERANGE = 34, EPROTO = 71, EBADMSG = 74, EOPNOTSUPP = 95, EAFNOSUPPORT = 97, ENETDOWN = 100,
    EALREADY = 114, ENOTSUPP = 524,
};

#define memcpy __builtin_memcpy
#define memmove __builtin_memmove
#define memset __builtin_memset
#define memcmp __builtin_memcmp

static ALWAYS int stopped(const struct tcbpf_env *env) { return __atomic_load_n(&env->stop, __ATOMIC_RELAXED) != 0; }
static ALWAYS u64 round_up(u64 n, u64 to) { return (n + to - 1) / to * to; }
static ALWAYS u32 min_u32(u32 a, u32 b) { return a < b ? a : b; }

static ALWAYS u16 swap16(u16 v) { return __builtin_bswap16(v); }
static ALWAYS u32 swap32(u32 v) { return __builtin_bswap32(v); }
static ALWAYS u64 swap64(u64 v) { return __builtin_bswap64(v); }

static ALWAYS u16 load16(const void *p) { u16 v; memcpy(&v, p, 2); return v; }
static ALWAYS u32 load32(const void *p) { u32 v; memcpy(&v, p, 4); return v; }
static ALWAYS u64 load64(const void *p) { u64 v; memcpy(&v, p, 8); return v; }
static ALWAYS void store16(void *p, u16 v) { memcpy(p, &v, 2); }
static ALWAYS void store32(void *p, u32 v) { memcpy(p, &v, 4); }

static ALWAYS u32 acquire32(const u32 *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static ALWAYS u32 relaxed32(const u32 *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static ALWAYS void publish32(u32 *p, u32 v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

#define ERR(e) ((u64)(s64)-(e))
#define HELPER(name) \
    u64 tcbpf_helper_##name(struct tcbpf_env *env, u64 r1, u64 r2, u64 r3, u64 r4, u64 r5); \
    u64 tcbpf_helper_##name(struct tcbpf_env *env, u64 r1, u64 r2, u64 r3, u64 r4, u64 r5)

#if defined(__x86_64__)
enum { SYS_sched_yield = 24, SYS_getpid = 39, SYS_kill = 62, SYS_getuid = 102, SYS_getgid = 104, SYS_prctl = 157, SYS_gettid = 186,
       SYS_clock_gettime = 228 };
static ALWAYS s64 sys2(s64 n, s64 a, s64 b)
{
    s64 r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b) : "rcx", "r11", "memory");
    return r;
}
static ALWAYS void relax(void) { __asm__ volatile("pause"); }
#elif defined(__aarch64__)
enum { SYS_sched_yield = 124, SYS_getpid = 172, SYS_kill = 129, SYS_getuid = 174, SYS_getgid = 176, SYS_prctl = 167, SYS_gettid = 178,
       SYS_clock_gettime = 113 };
static ALWAYS s64 sys2(s64 n, s64 a, s64 b)
{
    register s64 x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1) : "memory");
    return x0;
}
static ALWAYS void relax(void) { __asm__ volatile("yield"); }
#else
#error "the runtime knows x86_64 and aarch64"
#endif

#endif
