/* Time, chance and place: helpers that ask the environment. */
#include "../base.h"

enum { CLOCK_MONOTONIC = 1, CLOCK_MONOTONIC_COARSE = 6, CLOCK_BOOTTIME = 7, CLOCK_TAI = 11 };

static u64 now(struct tcbpf_env *env, s32 clock)
{
    struct { s64 sec, nsec; } t = {0, 0};

    if (env->clock >= 0)
        return (u64)env->clock;
    if (env->clock_gettime)
        env->clock_gettime(clock, &t);
    else
        sys2(SYS_clock_gettime, clock, (s64)&t);
    return (u64)t.sec * 1000000000u + (u64)t.nsec;
}

HELPER(ktime_get_ns) { return now(env, CLOCK_MONOTONIC); }
HELPER(ktime_get_boot_ns) { return now(env, CLOCK_BOOTTIME); }
HELPER(ktime_get_tai_ns) { return now(env, CLOCK_TAI); }
HELPER(ktime_get_coarse_ns) { return now(env, CLOCK_MONOTONIC_COARSE); }

/* In ticks of 1/HZ, which begin five minutes before 32 bits overflow (INITIAL_JIFFIES). */
HELPER(jiffies64)
{
    u64 tick = env->tick ? env->tick : 4000000;

    return now(env, CLOCK_MONOTONIC_COARSE) / tick + (u32)-(300 * (1000000000 / tick));
}

static ALWAYS u64 rotate(u64 v, u32 by) { return v << by | v >> (64 - by); }

/* xoshiro256++ (Blackman and Vigna, public domain). */
HELPER(get_prandom_u32)
{
    u64 *s = env->random;
    u64 result = rotate(s[0] + s[3], 23) + s[0], t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return (u32)(result >> 32);
}

HELPER(get_smp_processor_id) { return env->cpu; }
HELPER(get_numa_node_id) { return env->numa; }
