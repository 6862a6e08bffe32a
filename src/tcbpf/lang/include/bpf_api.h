/* The names of iproute2's examples: sections, defaults, packet loads and helpers in short. Source: iproute2, paper. */
#ifndef TCBPF_BPF_API_H
#define TCBPF_BPF_API_H
#define __BPF_API__

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/pkt_cls.h>
#include <linux/if_packet.h>
#include <asm/byteorder.h>
#include <bpf_elf.h>
#include <bpf_helpers.h>
#include <stdint.h>
#include <string.h>

#ifndef __stringify
#define __stringify_(x) #x
#define __stringify(x) __stringify_(x)
#endif
#ifndef __inline__
#define __inline__ __inline
#endif
#ifndef __section
#define __section(NAME) __attribute__((section(NAME), used))
#endif
#ifndef __section_tail
#define __section_tail(ID, KEY) __section(__stringify(ID) "/" __stringify(KEY))
#endif
#ifndef __section_xdp_entry
#define __section_xdp_entry __section(ELF_SECTION_PROG)
#endif
#ifndef __section_cls_entry
#define __section_cls_entry __section(ELF_SECTION_CLASSIFIER)
#endif
#ifndef __section_act_entry
#define __section_act_entry __section(ELF_SECTION_ACTION)
#endif
#ifndef __section_lwt_entry
#define __section_lwt_entry __section(ELF_SECTION_PROG)
#endif
#ifndef __section_license
#define __section_license __section(ELF_SECTION_LICENSE)
#endif
#ifndef __section_maps
#define __section_maps __section(ELF_SECTION_MAPS)
#endif
#ifndef BPF_LICENSE
#define BPF_LICENSE(NAME) char ____license[] __section_license = NAME
#endif

/* Maps in one line: their name, the id that tail-call sections and inner maps go by, sizes, scope of the pin, elements. */
#ifndef __BPF_MAP
#define __BPF_MAP(NAME, TYPE, ID, SIZE_KEY, SIZE_VALUE, PIN, MAX_ELEM) \
	struct bpf_elf_map __section_maps NAME = { \
		.type = TYPE, .id = ID, .size_key = SIZE_KEY, .size_value = SIZE_VALUE, .pinning = PIN, .max_elem = MAX_ELEM }
#endif
#ifndef BPF_HASH
#define BPF_HASH(NAME, ID, SIZE_KEY, SIZE_VALUE, PIN, MAX_ELEM) \
	__BPF_MAP(NAME, BPF_MAP_TYPE_HASH, ID, SIZE_KEY, SIZE_VALUE, PIN, MAX_ELEM)
#endif
#ifndef BPF_ARRAY
#define BPF_ARRAY(NAME, ID, SIZE_VALUE, PIN, MAX_ELEM) \
	__BPF_MAP(NAME, BPF_MAP_TYPE_ARRAY, ID, sizeof(__u32), SIZE_VALUE, PIN, MAX_ELEM)
#endif
#ifndef BPF_ARRAY2
#define BPF_ARRAY2(NAME, ID, PIN, MAX_ELEM) BPF_ARRAY(NAME, ID, sizeof(__u16), PIN, MAX_ELEM)
#define BPF_ARRAY4(NAME, ID, PIN, MAX_ELEM) BPF_ARRAY(NAME, ID, sizeof(__u32), PIN, MAX_ELEM)
#define BPF_ARRAY8(NAME, ID, PIN, MAX_ELEM) BPF_ARRAY(NAME, ID, sizeof(__u64), PIN, MAX_ELEM)
#endif
#ifndef BPF_PROG_ARRAY
#define BPF_PROG_ARRAY(NAME, ID, PIN, MAX_ELEM) \
	__BPF_MAP(NAME, BPF_MAP_TYPE_PROG_ARRAY, ID, sizeof(__u32), sizeof(__u32), PIN, MAX_ELEM)
#endif

#ifndef BPF_H_DEFAULT
#define BPF_H_DEFAULT -1
#endif

#ifndef BPF_FUNC
#define __BPF_FUNC(NAME, ...) (*NAME)(__VA_ARGS__) __maybe_unused
#define BPF_FUNC(NAME, ...) __BPF_FUNC(NAME, __VA_ARGS__) = (void *)BPF_FUNC_##NAME
#endif

#ifndef lock_xadd
#define lock_xadd(ptr, val) ((void)__sync_fetch_and_add(ptr, val))
#endif

#ifndef printt
#define printt(fmt, ...) ({ char ____fmt[] = fmt; trace_printk(____fmt, sizeof(____fmt), ##__VA_ARGS__); })
#endif

/* Host and network order. */
#ifndef htons
#define htons(x) ((__u16)__builtin_bswap16(x))
#define ntohs(x) ((__u16)__builtin_bswap16(x))
#define htonl(x) ((__u32)__builtin_bswap32(x))
#define ntohl(x) ((__u32)__builtin_bswap32(x))
#endif

/* Packet loads (LD_ABS, LD_IND): big-endian, and the end of the program when out of range. */
#ifndef load_byte
unsigned long long load_byte(void *skb, unsigned long long off) asm("llvm.bpf.load.byte");
unsigned long long load_half(void *skb, unsigned long long off) asm("llvm.bpf.load.half");
unsigned long long load_word(void *skb, unsigned long long off) asm("llvm.bpf.load.word");
#endif

/* Helpers by their names without bpf_. */
#define map_lookup_elem bpf_map_lookup_elem
#define map_update_elem bpf_map_update_elem
#define map_delete_elem bpf_map_delete_elem
#define ktime_get_ns bpf_ktime_get_ns
#define trace_printk bpf_trace_printk
#define get_prandom_u32 bpf_get_prandom_u32
#define get_smp_processor_id bpf_get_smp_processor_id
#define get_numa_node_id bpf_get_numa_node_id
#define get_cgroup_classid bpf_get_cgroup_classid
#define get_route_realm bpf_get_route_realm
#define get_hash_recalc bpf_get_hash_recalc
#define set_hash_invalid bpf_set_hash_invalid
#define tail_call bpf_tail_call
#define redirect bpf_redirect
#define clone_redirect bpf_clone_redirect
#define skb_load_bytes bpf_skb_load_bytes
#define skb_store_bytes bpf_skb_store_bytes
#define l3_csum_replace bpf_l3_csum_replace
#define l4_csum_replace bpf_l4_csum_replace
#define csum_diff bpf_csum_diff
#define skb_under_cgroup bpf_skb_under_cgroup
#define skb_change_type bpf_skb_change_type
#define skb_change_proto bpf_skb_change_proto
#define skb_change_tail bpf_skb_change_tail
#define skb_pull_data bpf_skb_pull_data
#define skb_event_output bpf_perf_event_output
#define skb_vlan_push bpf_skb_vlan_push
#define skb_vlan_pop bpf_skb_vlan_pop
#define skb_get_tunnel_key bpf_skb_get_tunnel_key
#define skb_set_tunnel_key bpf_skb_set_tunnel_key
#define skb_get_tunnel_opt bpf_skb_get_tunnel_opt
#define skb_set_tunnel_opt bpf_skb_set_tunnel_opt

#endif
