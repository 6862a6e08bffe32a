// SPDX-License-Identifier: Apache-2.0
/* Tunnels in collect metadata mode: the program, not the device, says where a packet goes.
 *
 *     ip link add vxlan0 type vxlan dstport 4789 external
 *     tc filter add dev vxlan0 egress bpf da obj tunnel.o sec tc/egress
 *
 * One device serves every peer: `peers` maps the mark to a tunnel endpoint, which skb_set_tunnel_key() attaches to the packet.
 * On ingress skb_get_tunnel_key() says what the outer header held.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct peer {
	__u32 tunnel_id;
	__u32 remote;                                   /* host order, as struct bpf_tunnel_key has it */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct peer);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} received SEC(".maps");

SEC("tc/egress") int to_peer(struct __sk_buff *skb)
{
	__u32 mark = skb->mark;
	struct peer *peer = bpf_map_lookup_elem(&peers, &mark);
	struct bpf_tunnel_key key = {};

	if (!peer)
		return TC_ACT_OK;
	key.tunnel_id = peer->tunnel_id;
	key.remote_ipv4 = peer->remote;
	key.tunnel_ttl = 64;
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX))
		return TC_ACT_SHOT;
	return TC_ACT_OK;
}

SEC("tc") int from_peer(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {};
	__u64 one = 1, *packets;
	__u32 id;

	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0))
		return TC_ACT_OK;                       /* no tunnel brought it */
	id = key.tunnel_id;
	skb->mark = id;
	packets = bpf_map_lookup_elem(&received, &id);
	if (packets)
		__sync_fetch_and_add(packets, 1);
	else
		bpf_map_update_elem(&received, &id, &one, BPF_NOEXIST);
	return TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";
