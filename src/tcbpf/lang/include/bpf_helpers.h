/* What a BPF program in C needs: sections, map definitions, helpers, and the words that keep the verifier content. */
#ifndef TCBPF_BPF_HELPERS_H
#define TCBPF_BPF_HELPERS_H
#define __BPF_HELPERS__

#ifndef __VMLINUX_H__
#include <linux/bpf.h>
#endif
#include <bpf_helper_defs.h>

/* Sections and map definitions. __uint() and __type() say numbers and types by types, which BTF keeps. */
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
#define __ulong(name, val) enum { __bpf_concat(__unique_value, __COUNTER__) = val } name
#define __bpf_concat_(a, b) a##b
#define __bpf_concat(a, b) __bpf_concat_(a, b)

enum libbpf_pin_type { LIBBPF_PIN_NONE, LIBBPF_PIN_BY_NAME };
enum libbpf_tristate { TRI_NO = 0, TRI_YES = 1, TRI_MODULE = 2 };

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#ifndef __noinline
#define __noinline __attribute__((noinline))
#endif
#ifndef __weak
#define __weak __attribute__((weak))
#endif
#ifndef __maybe_unused
#define __maybe_unused __attribute__((unused))
#endif
#ifndef __hidden
#define __hidden __attribute__((visibility("hidden")))
#endif
#define __kconfig __attribute__((section(".kconfig")))
#define __ksym __attribute__((section(".ksyms")))
#define __kptr __attribute__((btf_type_tag("kptr")))
#define __kptr_untrusted __attribute__((btf_type_tag("kptr_untrusted")))
#define __percpu_kptr __attribute__((btf_type_tag("percpu_kptr")))
#if __has_attribute(btf_decl_tag)
#define __arg_ctx __attribute__((btf_decl_tag("arg:ctx")))
#define __arg_nonnull __attribute__((btf_decl_tag("arg:nonnull")))
#define __arg_nullable __attribute__((btf_decl_tag("arg:nullable")))
#endif

#ifndef NULL
#define NULL ((void *)0)
#endif
#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif
#ifndef container_of
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#endif
#ifndef likely
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif
#ifndef barrier
#define barrier() asm volatile("" ::: "memory")
#endif
#ifndef barrier_var
#define barrier_var(var) asm volatile("" : "+r"(var))
#endif
#define __bpf_unreachable() __builtin_trap()

#ifndef KERNEL_VERSION
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#endif

/* A tail call whose slot is known when the program is compiled: the kernel turns it into a direct jump. */
static __always_inline void bpf_tail_call_static(void *ctx, const void *map, const __u32 slot)
{
	asm volatile("r1 = %[ctx]\n\tr2 = %[map]\n\tr3 = %[slot]\n\tcall 12"
		     :: [ctx] "r"(ctx), [map] "r"(map), [slot] "i"(slot)
		     : "r0", "r1", "r2", "r3", "r4", "r5");
}

/* Print to the trace pipe. Up to three values go by bpf_trace_printk, more by bpf_trace_vprintk. */
#define ___bpf_nth(_, _1, _2, _3, _4, _5, _6, _7, _8, _9, _a, _b, _c, N, ...) N
#define ___bpf_narg(...) ___bpf_nth(_, ##__VA_ARGS__, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define ___bpf_cast0()
#define ___bpf_cast1(x) (unsigned long long)(x)
#define ___bpf_cast2(x, ...) (unsigned long long)(x), ___bpf_cast1(__VA_ARGS__)
#define ___bpf_cast3(x, ...) (unsigned long long)(x), ___bpf_cast2(__VA_ARGS__)
#define ___bpf_cast4(x, ...) (unsigned long long)(x), ___bpf_cast3(__VA_ARGS__)
#define ___bpf_cast5(x, ...) (unsigned long long)(x), ___bpf_cast4(__VA_ARGS__)
#define ___bpf_cast6(x, ...) (unsigned long long)(x), ___bpf_cast5(__VA_ARGS__)
#define ___bpf_cast7(x, ...) (unsigned long long)(x), ___bpf_cast6(__VA_ARGS__)
#define ___bpf_cast8(x, ...) (unsigned long long)(x), ___bpf_cast7(__VA_ARGS__)
#define ___bpf_cast9(x, ...) (unsigned long long)(x), ___bpf_cast8(__VA_ARGS__)
#define ___bpf_cast10(x, ...) (unsigned long long)(x), ___bpf_cast9(__VA_ARGS__)
#define ___bpf_cast11(x, ...) (unsigned long long)(x), ___bpf_cast10(__VA_ARGS__)
#define ___bpf_cast12(x, ...) (unsigned long long)(x), ___bpf_cast11(__VA_ARGS__)
#define ___bpf_cast(...) __bpf_concat(___bpf_cast, ___bpf_narg(__VA_ARGS__))(__VA_ARGS__)

#define __bpf_printk(fmt, ...) ({ static const char ____fmt[] = fmt; bpf_trace_printk(____fmt, sizeof(____fmt), ##__VA_ARGS__); })
#define __bpf_vprintk(fmt, args...) ({ static const char ____fmt[] = fmt; \
	unsigned long long ____args[] = { ___bpf_cast(args) }; \
	bpf_trace_vprintk(____fmt, sizeof(____fmt), ____args, sizeof(____args)); })
#define ___bpf_pick_printk(...) ___bpf_nth(_, ##__VA_ARGS__, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, \
	__bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_printk, __bpf_printk, __bpf_printk, __bpf_printk)
#define bpf_printk(fmt, args...) ___bpf_pick_printk(args)(fmt, ##args)

#define BPF_SNPRINTF(out, out_size, fmt, args...) ({ static const char ____fmt[] = fmt; \
	unsigned long long ____args[] = { ___bpf_cast(args) }; \
	bpf_snprintf(out, out_size, ____fmt, ____args, sizeof(____args)); })

/* Loops that the verifier follows once for any number of rounds: bpf_for(i, 0, n) counts, bpf_repeat(n) only repeats. */
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __weak __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __weak __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __weak __ksym;
#define bpf_ksym_exists(symbol) (!!&(symbol))

#ifndef bpf_for
#define bpf_for(i, start, end) \
	for (struct bpf_iter_num __it __attribute__((aligned(8), cleanup(bpf_iter_num_destroy))), \
	     *__on = (bpf_iter_num_new(&__it, (start), (end)), &__it); \
	     ({ int *__v = bpf_iter_num_next(__on); __v && ((i) = *__v, (i) >= (start) && (i) < (end)); });)
#endif
#ifndef bpf_repeat
#define bpf_repeat(n) \
	for (struct bpf_iter_num __it __attribute__((aligned(8), cleanup(bpf_iter_num_destroy))), \
	     *__on = (bpf_iter_num_new(&__it, 0, (n)), &__it); bpf_iter_num_next(__on);)
#endif

#endif
