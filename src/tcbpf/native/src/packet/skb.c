/* A packet's place in its buffer: laying out, making writable, making room. */
#include "../base.h"

enum { ETH_HLEN = 14, ETH_ALEN = 6, VLAN_HLEN = 4 };
enum { ETH_P_802_3_MIN = 0x600, ETH_P_802_3 = 1, ETH_P_ALL = 3, ETH_P_802_2 = 4, ETH_P_IP = 0x800, ETH_P_8021Q = 0x8100,
       ETH_P_IPV6 = 0x86dd, ETH_P_8021AD = 0x88a8 };
enum { PACKET_HOST, PACKET_BROADCAST, PACKET_MULTICAST, PACKET_OTHERHOST };

static ALWAYS struct tcbpf_skb *skb_of(u64 ctx) { return (struct tcbpf_skb *)ctx; }

/* The protocol (network order) that stands at `type`, with what follows for 802.2 (eth_type_trans). */
static ALWAYS u16 ether_protocol(const u8 *type, u32 left)
{
    u16 proto = load16(type);

    if (likely(swap16(proto) >= ETH_P_802_3_MIN))
        return proto;
    return swap16(left >= 4 && load16(type + 2) == 0xffff ? ETH_P_802_3 : ETH_P_802_2);
}

static ALWAYS u32 packet_type(const u8 *dst, const u8 *address)
{
    u32 high = load32(dst);
    u16 low = load16(dst + 4);

    if (unlikely(dst[0] & 1))
        return address && high == 0xffffffff && low == 0xffff ? PACKET_BROADCAST : PACKET_MULTICAST;
    if (address)
        return high == load32(address) && low == load16(address + 4) ? PACKET_HOST : PACKET_OTHERHOST;
    return high == 0 && low == 0 ? PACKET_HOST : PACKET_OTHERHOST;
}

/* Protocol and type as eth_type_trans() on the packet's device finds them. Without a device it is the loopback: all zeros is
 * its own address, and no address is its broadcast's.
 */
static ALWAYS void skb_classify(struct tcbpf_skb *skb)
{
    if (likely(skb->u.len >= ETH_HLEN)) {
        skb->u.protocol = ether_protocol(skb->data + 12, skb->u.len - 12);
        skb->u.pkt_type = packet_type(skb->data, skb->dev ? skb->dev->address : NULL);
        skb->network = ETH_HLEN;
    } else {
        skb->u.protocol = skb->u.pkt_type = 0;
        skb->network = (u16)skb->u.len;
    }
    skb->mac_len = 0;                                             /* until a device receives it (skb_reset_mac_len()) */
    skb->transport = TCBPF_UNKNOWN;
}

/* Forget what the last packet and its programs left. */
static ALWAYS void skb_forget(struct tcbpf_skb *skb)
{
    struct tcbpf_sk_buff *u = &skb->u;

    u->queue_mapping = u->vlan_present = u->vlan_tci = u->vlan_proto = u->tc_index = u->hash = u->tc_classid = 0;
    memset(u->cb, 0, sizeof(u->cb));
    skb->ip_summed = skb->csum_level = skb->csum_valid = skb->l4_hash = skb->ignore_df = skb->encapsulation = 0;
    skb->gso_type = u->gso_size = u->gso_segs = 0;
    u->tstamp = 0;
    u->tstamp_type = 0;
    skb->tunnel.family = 0;
}

static ALWAYS void skb_place(struct tcbpf_skb *skb, u8 *data, u32 len, u32 wire_len)
{
    skb->data = skb->data_meta = data;
    skb->data_end = data + len;
    skb->u.len = len;
    skb->cut = wire_len - len;
    skb->mac_back = 0;
    skb->u.wire_len = wire_len;
}

INLINED void tcbpf_skb_set(struct tcbpf_skb *skb, u8 *data, u32 len, u32 wire_len)
{
    skb_forget(skb);
    skb_place(skb, data, len, wire_len);
    skb_classify(skb);
}

/* --- geometry: the helpers' only ways to move data and data_end ---------------------------------------------------------- */

static ALWAYS u32 headroom(const struct tcbpf_skb *skb) { return (u32)(skb->data - skb->head); }

/* Whatever geometry changed, the metadata area before data is gone (bpf_compute_data_pointers; nothing sets it here). */
static ALWAYS void skb_moved(struct tcbpf_skb *skb)
{
    skb->data_meta = skb->data;
    skb->u.len = (u32)(skb->data_end - skb->data);
}

/* Move the packet to `head` room bytes in, in the buffer that may be written. */
static COLD s64 skb_relocate(struct tcbpf_skb *skb, u8 *head, u8 *end, u32 room)
{
    u32 len = skb->u.len;

    if (!head || (u64)(end - head) < (u64)room + len)
        return -ENOMEM;
    memmove(head + room, skb->data, len);
    skb->head = head;
    skb->end = end;
    skb->data = skb->data_meta = head + room;
    skb->data_end = skb->data + len;
    skb->readonly = 0;
    return 0;
}

/* skb_ensure_writable(): the first `len` bytes exist and may be stored to. */
static ALWAYS s64 skb_writable(struct tcbpf_skb *skb, u64 len)
{
    if (unlikely(len > skb->u.len))
        return -ENOMEM;
    if (unlikely(skb->readonly))
        return skb_relocate(skb, skb->spare, skb->spare_end, TCBPF_HEADROOM);
    return 0;
}

/* skb_cow(): at least `room` bytes before data, and all of it may be stored to. */
static ALWAYS s64 skb_make_headroom(struct tcbpf_skb *skb, u32 room)
{
    s64 err = skb_writable(skb, 0);

    if (err || likely(headroom(skb) >= room))
        return err;
    return skb_relocate(skb, skb->head, skb->end, room + TCBPF_HEADROOM);
}

static ALWAYS s64 skb_make_tailroom(struct tcbpf_skb *skb, u32 room)
{
    s64 err = skb_writable(skb, 0);

    if (err || likely((u64)(skb->end - skb->data_end) >= room))
        return err;
    if ((u64)(skb->end - skb->head) < (u64)skb->u.len + room)
        return -ENOMEM;
    return skb_relocate(skb, skb->head, skb->end, 0);
}

static ALWAYS void shift(u16 *offset, s32 by)
{
    if (*offset != TCBPF_UNKNOWN)
        *offset = (u16)(*offset + by);
}

/* Offsets are counted from data: who moves data says by how much they move. */
static ALWAYS void skb_push(struct tcbpf_skb *skb, u32 len)
{
    skb->data -= len;
    shift(&skb->network, (s32)len);
    shift(&skb->transport, (s32)len);
    skb->csum_start = (u16)(skb->csum_start + len);
    skb_moved(skb);
}

static ALWAYS void skb_pull(struct tcbpf_skb *skb, u32 len)
{
    skb->data += len;
    shift(&skb->network, -(s32)len);
    shift(&skb->transport, -(s32)len);
    skb->csum_start = (u16)(skb->csum_start - len);
    skb_moved(skb);
}
