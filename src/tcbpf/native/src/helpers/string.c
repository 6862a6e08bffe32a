/* Text: numbers out of it, comparing, and formatting into a program's memory. */
#include "../base.h"

enum { STRTOX_BASE = 0x1f, STRTOX_MAX = 63, SNPRINTF_ARGS = 12 };

static ALWAYS int blank(u8 c) { return is_space(c) || c == 0xa0; }

static ALWAYS u32 digit_of(u8 c)
{
    u8 lower = c | 0x20;

    return c >= '0' && c <= '9' ? c - '0' + 0u : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10u : 255;
}

/* Read a number; returns the bytes taken, or -EINVAL, -ERANGE. At most 63 characters after blanks and sign are looked at. */
static s64 parse_number(const u8 *buf, u64 len, u64 flags, u64 *value, int *negative)
{
    u32 base = (u32)flags & STRTOX_BASE, digits = 0, n;
    u64 at = 0, limit;

    if (!len || flags & ~(u64)STRTOX_BASE || (base && base != 8 && base != 10 && base != 16))
        return -EINVAL;
    while (at < len && blank(buf[at]))
        at++;
    *negative = at < len && buf[at] == '-';
    at += (u64)*negative;
    limit = at + (len - at < STRTOX_MAX ? len - at : STRTOX_MAX);
    int hex = at + 1 < limit && buf[at] == '0' && (buf[at + 1] | 0x20) == 'x';
    if (!base)
        base = at < limit && buf[at] == '0' ? hex && at + 2 < limit && digit_of(buf[at + 2]) < 16 ? 16 : 8 : 10;
    if (base == 16 && hex)
        at += 2;
    *value = 0;
    for (; at < limit && (n = digit_of(buf[at])) < base; at++, digits++) {
        if (*value > (~0ull - n) / base)
            return -ERANGE;
        *value = *value * base + n;
    }
    return digits ? (s64)at : -EINVAL;
}

/* (buf, len, flags, s64 *result) */
HELPER(strtol)
{
    u64 value = 0;
    int negative = 0;
    s64 n = parse_number((u8 *)r1, r2, r3, &value, &negative);

    *(u64 *)r4 = 0;
    if (n < 0)
        return (u64)n;
    if (negative ? (s64)-value > 0 : (s64)value < 0)
        return ERR(ERANGE);
    *(u64 *)r4 = negative ? -value : value;
    return (u64)n;
}

/* (buf, len, flags, u64 *result) */
HELPER(strtoul)
{
    u64 value = 0;
    int negative = 0;
    s64 n = parse_number((u8 *)r1, r2, r3, &value, &negative);

    *(u64 *)r4 = 0;
    if (n < 0)
        return (u64)n;
    if (negative)
        return ERR(EINVAL);
    *(u64 *)r4 = value;
    return (u64)n;
}

/* (s1, its size, s2) */
HELPER(strncmp)
{
    const u8 *a = (u8 *)r1, *b = (u8 *)r3;

    for (u32 i = 0; i < (u32)r2; i++) {
        if (a[i] != b[i])
            return a[i] < b[i] ? (u64)-1 : 1;
        if (!a[i])
            break;
    }
    return 0;
}

/* (str, size, fmt, array of u64, its size): the length with its NUL, also of what did not fit. */
HELPER(snprintf)
{
    u32 size = (u32)r5;
    struct text t = {(u8 *)r1, 0, (u32)r2};
    s64 n;

    if (size & 7 || size > SNPRINTF_ARGS * 8 || (size && !r4))
        return ERR(EINVAL);
    n = format(&t, (u8 *)r3, ~0u, (u64 *)r4, size / 8);
    if (n < 0)
        return (u64)n;
    if (t.size)
        t.at[min_u32(t.len, t.size - 1)] = 0;
    return (u64)n + 1;
}
