/* Where packets end up: capture records appended to a buffer that Python drains. */
#include "../base.h"

enum { PCAPNG_EPB = 6, EPB_DATA = 28, EPB_FIXED = 32, PCAP_FIXED = 16 };
enum { SINK_ROOM = TCBPF_MAX_CAPLEN + 64 };                /* what any one packet may need */

static ALWAYS int sink_has_room(const struct tcbpf_sink *sink) { return sink->size - sink->used >= SINK_ROOM; }

/* Write a record's head; returns where its *kept bytes belong, or NULL when it does not fit (and then nothing is written). */
static u8 *sink_open(struct tcbpf_sink *sink, u32 *kept, u32 len, u64 ns)
{
    u8 *at = sink->buf + sink->used;
    u64 need;

    if (sink->snaplen && *kept > sink->snaplen)
        *kept = sink->snaplen;
    need = sink->format == TCBPF_PCAPNG ? EPB_FIXED + round_up(*kept, 4) : PCAP_FIXED + (u64)*kept;
    if (sink->size - sink->used < need) {
        sink->lost++;
        return NULL;
    }
    sink->used += need;
    sink->packets++;
    if (sink->format == TCBPF_PCAPNG) {
        u32 head[7] = {PCAPNG_EPB, (u32)need, sink->interface, (u32)(ns >> 32), (u32)ns, *kept, len};

        memset(at + need - 8, 0, 4);                       /* padding, which the data may overwrite */
        memcpy(at, head, sizeof(head));
        store32(at + need - 4, (u32)need);
        return at + EPB_DATA;
    }
    u32 unit = sink->format == TCBPF_PCAP_NS ? 1 : 1000;
    u32 head[4] = {(u32)(ns / 1000000000u), (u32)(ns % 1000000000u) / unit, *kept, len};

    memcpy(at, head, sizeof(head));
    return at + PCAP_FIXED;
}

/* A packet as a capture on its device shows it: with the tag that is kept beside it. */
static void sink_packet(struct tcbpf_sink *sink, const struct tcbpf_skb *skb)
{
    u32 tag = skb->u.vlan_present && skb->u.len >= 2 * ETH_ALEN ? VLAN_HLEN : 0, kept = skb->u.len + tag;
    u32 wire = skb->u.len + skb->cut;
    u8 head[2 * ETH_ALEN + VLAN_HLEN], *to = sink_open(sink, &kept, wire + tag, skb->ns);

    if (!to)
        return;
    if (!tag) {
        memcpy(to, skb->data, kept);
        return;
    }
    memcpy(head, skb->data, 2 * ETH_ALEN);
    store16(head + 12, (u16)skb->u.vlan_proto);
    store16(head + 14, swap16((u16)skb->u.vlan_tci));
    memcpy(to, head, min_u32(kept, sizeof(head)));
    if (kept > sizeof(head))
        memcpy(to + sizeof(head), skb->data + 2 * ETH_ALEN, kept - sizeof(head));
}
