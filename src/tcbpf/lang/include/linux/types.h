/* The UAPI's integer types. */
#ifndef TCBPF_LINUX_TYPES_H
#define TCBPF_LINUX_TYPES_H
#define _LINUX_TYPES_H
#define _UAPI_LINUX_TYPES_H

#include <asm/types.h>

typedef __u16 __le16;
typedef __u16 __be16;
typedef __u32 __le32;
typedef __u32 __be32;
typedef __u64 __le64;
typedef __u64 __be64;
typedef __u16 __sum16;
typedef __u32 __wsum;
typedef unsigned int __poll_t;
typedef __u64 __aligned_u64_t;

typedef long __kernel_long_t;
typedef unsigned long __kernel_ulong_t;
typedef unsigned long __kernel_size_t;
typedef long __kernel_ssize_t;
typedef int __kernel_pid_t;
typedef unsigned short __kernel_sa_family_t;
typedef long long __kernel_time64_t;
typedef long __kernel_time_t;
typedef long __kernel_old_time_t;
typedef unsigned int __kernel_uid32_t;
typedef unsigned int __kernel_gid32_t;

#ifndef __bitwise
#define __bitwise
#define __bitwise__
#endif
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#define __aligned_s64 __s64 __attribute__((aligned(8)))
#define __aligned_be64 __be64 __attribute__((aligned(8)))
#define __aligned_le64 __le64 __attribute__((aligned(8)))

#endif
