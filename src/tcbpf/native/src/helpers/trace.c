/* bpf_trace_printk(): the kernel's format rules, into the environment's buffer of records. */
#include "../base.h"

enum { TRACE_MAX = 1024, TRACE_ARGS = 12 };

#if defined(__x86_64__)
enum { SYS_process_vm_readv = 310 };
static s64 sys6(s64 n, s64 a, s64 b, s64 c, s64 d, s64 e, s64 f)
{
    register s64 r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    s64 r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return r;
}
#else
enum { SYS_process_vm_readv = 270 };
static s64 sys6(s64 n, s64 a, s64 b, s64 c, s64 d, s64 e, s64 f)
{
    register s64 x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
                     x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#endif

/* Copy from an address that a program made up: an unmapped one is an error, not a fault. Returns the bytes read. */
static u32 peek(u8 *to, u64 from, u32 len)
{
    struct { u64 base, len; } local = {(u64)to, len}, remote = {from, len};
    s64 n = sys6(SYS_process_vm_readv, sys2(SYS_getpid, 0, 0), (s64)&local, 1, (s64)&remote, 1, 0);

    return n < 0 ? 0 : (u32)n;
}

struct text { u8 *at; u32 len, size; };                        /* len counts also what finds no room */

static ALWAYS void put(struct text *t, u8 c)
{
    if (t->len < t->size)
        t->at[t->len] = c;
    t->len++;
}

struct spec { u32 width; u8 left, zero, plus, space, kind, size; };

static void put_padded(struct text *t, const struct spec *s, const u8 *digits, u32 n, u8 sign)
{
    u32 total = n + (sign != 0), pad = s->width > total ? s->width - total : 0;

    if (!s->left && !s->zero)
        for (; pad; pad--)
            put(t, ' ');
    if (sign)
        put(t, sign);
    if (!s->left)
        for (; pad; pad--)
            put(t, '0');
    for (u32 i = 0; i < n; i++)
        put(t, digits[i]);
    for (; pad; pad--)
        put(t, ' ');
}

static u32 digits_of(u64 v, u32 base, u8 ten, u8 *end)
{
    u32 n = 0;

    do {
        u8 digit = (u8)(v % base);
        *--end = (u8)(digit < 10 ? '0' + digit : ten + digit - 10);
        n++;
        v /= base;
    } while (v);
    return n;
}

static void put_number(struct text *t, struct spec *s, u64 v)
{
    int is_signed = s->kind == 'd' || s->kind == 'i';
    u8 buf[24], sign = 0;
    u32 n;

    if (s->size == 4)
        v = is_signed ? (u64)(s64)(s32)v : (u32)v;
    if (is_signed) {
        sign = (s64)v < 0 ? '-' : s->plus ? '+' : s->space ? ' ' : 0;
        v = (s64)v < 0 ? -v : v;
    }
    n = digits_of(v, s->kind == 'x' || s->kind == 'X' ? 16 : 10, s->kind == 'X' ? 'A' : 'a', buf + sizeof(buf));
    put_padded(t, s, buf + sizeof(buf) - n, n, sign);
}

/* An address without a name, as kallsyms writes it. */
static void put_symbol(struct text *t, struct spec *s, u64 v)
{
    u8 buf[24];
    u32 n = digits_of(v, 16, 'a', buf + sizeof(buf)) + 2;
    u8 *at = buf + sizeof(buf) - n;

    at[0] = '0';
    at[1] = 'x';
    if (!s->left)
        for (u32 i = n; i < s->width; i++)
            put(t, ' ');
    for (u32 i = 0; i < n; i++)
        put(t, at[i]);
    if (s->left)
        for (u32 i = n; i < s->width; i++)
            put(t, ' ');
}

static void put_string(struct text *t, struct spec *s, u64 from)
{
    u8 buf[64];
    u32 len = 0, got;

    while (len < TRACE_MAX && (got = peek(buf, from + len, sizeof(buf) - ((from + len) & 63)))) {
        for (u32 i = 0; i < got; i++) {
            if (!buf[i])
                goto done;
            put(t, buf[i]);
            len++;
        }
    }
done:
    for (; len < s->width; len++)                              /* Differs: pads at the right only */
        put(t, ' ');
}

static void put_ip4(struct text *t, const u8 *ip, int padded)
{
    for (u32 i = 0; i < 4; i++) {
        u8 buf[4];
        u32 n = digits_of(ip[i], 10, 'a', buf + 4);

        if (i)
            put(t, '.');
        for (u32 zeros = padded ? 3 - n : 0; zeros; zeros--)
            put(t, '0');
        for (u32 j = 0; j < n; j++)
            put(t, buf[4 - n + j]);
    }
}

/* %pI6: eight groups in full; %pi6: the same without colons. */
static void put_ip6(struct text *t, const u8 *ip, int bare)
{
    for (u32 i = 0; i < 16; i++) {
        if (i && !(i & 1) && !bare)
            put(t, ':');
        put(t, (u8)"0123456789abcdef"[ip[i] >> 4]);
        put(t, (u8)"0123456789abcdef"[ip[i] & 15]);
    }
}

static int is_space(u8 c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static int is_punct(u8 c) { return (c > ' ' && c < '0') || (c > '9' && c < 'A') || (c > 'Z' && c < 'a') || (c > 'z' && c < 127); }
static int ends_spec(u8 c) { return !c || is_space(c) || is_punct(c); }

/* One conversion from the character after '%' and its width on; returns where it ends, or NULL when it is refused. */
static const u8 *put_spec(struct text *t, struct spec *s, const u8 *f, u64 arg)
{
    if (*f == 'p') {
        u8 ip[16] = {0};

        if (f[1] == 's' || f[1] == 'S' || f[1] == 'B') {           /* no address is a symbol's here */
            put_symbol(t, s, arg);
            return f + 2;
        }
        if (ends_spec(f[1]) || f[1] == 'K' || f[1] == 'x') {
            s->kind = 'x';
            s->size = 8;
            s->zero = 1;
            s->width = s->width > 16 ? s->width : 16;
            put_number(t, s, arg);
            return f + (ends_spec(f[1]) ? 1 : 2);
        }
        if ((f[1] == 'k' || f[1] == 'u') && f[2] == 's') {
            if (!ends_spec(f[3]))
                return NULL;
            put_string(t, s, arg);
            return f + 3;
        }
        if ((f[1] != 'i' && f[1] != 'I') || (f[2] != '4' && f[2] != '6'))
            return NULL;
        peek(ip, arg, f[2] == '4' ? 4 : 16);
        if (f[2] == '4')
            put_ip4(t, ip, f[1] == 'i');
        else
            put_ip6(t, ip, f[1] == 'i');
        return f + 3;
    }
    if (*f == 's') {
        if (!ends_spec(f[1]))
            return NULL;
        put_string(t, s, arg);
        return f + 1;
    }
    if (*f == 'c') {
        if (!ends_spec(f[1]))
            return NULL;
        u8 c = (u8)arg;
        put_padded(t, s, &c, 1, 0);
        return f + 1;
    }
    s->size = 4;
    for (u32 i = 0; i < 2 && *f == 'l'; i++, f++)
        s->size = 8;
    if (*f != 'i' && *f != 'd' && *f != 'u' && *f != 'x' && *f != 'X')
        return NULL;
    s->kind = *f;
    put_number(t, s, arg);
    return f + 1;
}

/* Format, or -EINVAL. `fmt` has `size` bytes, of which one must be NUL. */
static s64 format(struct text *t, const u8 *fmt, u32 size, const u64 *args, u32 n_args)
{
    u32 used = 0, end = 0;

    while (end < size && fmt[end])
        end++;
    if (end == size)
        return -EINVAL;
    for (const u8 *f = fmt; *f;) {
        struct spec s = {0};

        if ((*f < ' ' || *f > '~') && !is_space(*f))
            return -EINVAL;
        if (*f != '%' || f[1] == '%') {
            put(t, *f);
            f += *f == '%' ? 2 : 1;
            continue;
        }
        if (used >= n_args)
            return -EINVAL;
        for (f++; *f == '0' || *f == '+' || *f == '-' || *f == ' '; f++) {
            s.zero |= *f == '0';
            s.plus |= *f == '+';
            s.left |= *f == '-';
            s.space |= *f == ' ';
        }
        for (; *f >= '0' && *f <= '9'; f++)
            s.width = min_u32(s.width * 10 + *f - '0', TRACE_MAX);
        f = put_spec(t, &s, f, args[used++]);
        if (!f)
            return -EINVAL;
    }
    return t->len;
}

/* One record; what does not fit is counted as lost. */
static void trace_keep(struct tcbpf_env *env, const struct text *t)
{
    struct tcbpf_trace *trace = env->trace;
    u32 len = min_u32(t->len, t->size);
    struct tcbpf_trace_record record = {now(env, CLOCK_MONOTONIC), env->cpu, len};
    u64 need = sizeof(record) + round_up(len, 8);

    if (trace && trace->size - trace->used < need && env->host)
        env->host(env, TCBPF_HOST_TRACE, trace, 0);
    if (!trace || trace->size - trace->used < need) {
        if (trace)
            trace->lost++;
        return;
    }
    memcpy(trace->text + trace->used, &record, sizeof(record));
    memcpy(trace->text + trace->used + sizeof(record), t->at, len);
    trace->used += need;
}

static u64 trace_print(struct tcbpf_env *env, const u8 *fmt, u32 size, const u64 *args, u32 n_args)
{
    u8 buf[TRACE_MAX];
    struct text t = {buf, 0, TRACE_MAX - 1};
    s64 n = format(&t, fmt, size, args, n_args);

    if (n >= 0)
        trace_keep(env, &t);
    return (u64)n;
}

/* (fmt, size, up to three arguments) */
HELPER(trace_printk)
{
    u64 args[3] = {r3, r4, r5};

    return trace_print(env, (u8 *)r1, (u32)r2, args, 3);
}

/* (fmt, size, array of u64, its size) */
HELPER(trace_vprintk)
{
    u32 size = (u32)r4;

    if (size & 7 || size > TRACE_ARGS * 8 || (size && !r3))
        return ERR(EINVAL);
    return trace_print(env, (u8 *)r1, (u32)r2, (u64 *)r3, size / 8);
}
