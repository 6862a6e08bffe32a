/* Who runs the program, and the locks in map values between those who do.
 *
 * Differs: the current task is the process that runs the program; on the kernel, whichever the packet interrupted.
 */
#include "../base.h"

enum { PR_GET_NAME = 16, COMM = 16 };

HELPER(get_current_pid_tgid) { return (u64)sys2(SYS_getpid, 0, 0) << 32 | (u32)sys2(SYS_gettid, 0, 0); }
HELPER(get_current_uid_gid) { return (u64)sys2(SYS_getgid, 0, 0) << 32 | (u32)sys2(SYS_getuid, 0, 0); }

/* (buf, size) */
HELPER(get_current_comm)
{
    u8 comm[COMM] = {0}, *buf = (u8 *)r1;
    u32 size = (u32)r2, n = min_u32(size, COMM);

    sys2(SYS_prctl, PR_GET_NAME, (s64)comm);
    memcpy(buf, comm, n);
    memset(buf + n, 0, size - n);
    buf[n - 1] = 0;
    return 0;
}

HELPER(spin_lock)
{
    spin_take(env, (u32 *)r1);
    return 0;
}

HELPER(spin_unlock)
{
    spin_give((u32 *)r1);
    return 0;
}
