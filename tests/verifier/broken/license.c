// A helper for GPL programs only, in one that is not.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

// gpl_only | - | declare the program's license as "GPL"
SEC("tc")
int not_free(struct __sk_buff *skb)
{
	return bpf_ktime_get_ns() & bpf_get_current_uid_gid() ? bpf_get_current_pid_tgid() & 1 : bpf_probe_read_kernel(0, 0, skb); // here
}

char _license[] SEC("license") = "Proprietary";
