/* Maps in a `maps` section, as tc(8) defined them first. Source: iproute2. */
#ifndef TCBPF_BPF_ELF_H
#define TCBPF_BPF_ELF_H
#define __BPF_ELF__

#include <linux/types.h>

#define ELF_SECTION_LICENSE "license"
#define ELF_SECTION_MAPS "maps"
#define ELF_SECTION_PROG "prog"
#define ELF_SECTION_CLASSIFIER "classifier"
#define ELF_SECTION_ACTION "action"
#define ELF_MAX_MAPS 64
#define ELF_MAX_LICENSE_LEN 128

#define PIN_NONE 0
#define PIN_OBJECT_NS 1
#define PIN_GLOBAL_NS 2

struct bpf_elf_map {
	__u32 type;
	__u32 size_key;
	__u32 size_value;
	__u32 max_elem;
	__u32 flags;
	__u32 id;
	__u32 pinning;
	__u32 inner_id;
	__u32 inner_idx;
};

/* Tell the loader the key's and value's types, so that tools can print them. */
#define BPF_ANNOTATE_KV_PAIR(name, type_key, type_val) \
	struct ____btf_map_##name { type_key key; type_val value; }; \
	struct ____btf_map_##name __attribute__((section(".maps." #name), used)) ____btf_map_##name = { }

#endif
