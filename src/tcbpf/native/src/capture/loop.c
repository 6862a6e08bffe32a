/* The packet loop: read, lay out, run, count, keep. */
#include "../base.h"

enum { LINKTYPE_ETHERNET = 1, DLT_RAW = 12, LINKTYPE_RAW = 101, LINKTYPE_IPV4 = 228, LINKTYPE_IPV6 = 229 };
enum { SMALL = 32, VERDICTS_FULL = TCBPF_VERDICTS * 3 / 4 };

/* Rows of the table in use; Python empties it when it is full. */
static u32 verdicts_used(const struct tcbpf_loop *loop)
{
    u32 used = 0;

    for (u32 i = 0; i < TCBPF_VERDICTS; i++)
        used += loop->verdicts[i].used;
    return used;
}

/* Count a verdict in the table; 1 when it was new there. */
static COLD u32 count_other(struct tcbpf_loop *loop, u32 verdict)
{
    u32 at = (verdict * 0x9e3779b1u) >> 24;

    while (loop->verdicts[at].used && loop->verdicts[at].value != verdict)
        at = (at + 1) % TCBPF_VERDICTS;
    loop->verdicts[at].count++;
    if (loop->verdicts[at].used)
        return 0;
    loop->verdicts[at].used = 1;
    loop->verdicts[at].value = verdict;
    return 1;
}

/* Lay a record out: in place when nothing will store to it, else behind headroom in the buffer. */
static ALWAYS void lay_out(struct tcbpf_skb *skb, const struct tcbpf_packet *p, u32 writes)
{
    u8 *data = (u8 *)p->data;
    u32 len = p->caplen;

    if (writes) {
        len = min_u32(len, (u32)(skb->spare_end - skb->spare) - 2 * TCBPF_HEADROOM);
        data = skb->spare + TCBPF_HEADROOM;
        memcpy(data, p->data, len);
        skb->head = skb->spare;
        skb->end = skb->spare_end;
        skb->readonly = 0;
    } else {
        skb->head = data;
        skb->end = data + len;
        skb->readonly = 1;
    }
    tcbpf_skb_set(skb, data, len, p->len > len ? p->len : len);
}

/* EtherType of an IP packet, as a device that carries nothing else (tun, WireGuard) tells it; 0 for other link types. */
static u16 ip_protocol(const struct tcbpf_skb *skb, u32 linktype)
{
    u32 version = skb->u.len ? skb->data[0] >> 4 : 0;

    switch (linktype) {
    case LINKTYPE_IPV4: return swap16(ETH_P_IP);
    case LINKTYPE_IPV6: return swap16(ETH_P_IPV6);
    case DLT_RAW: case LINKTYPE_RAW: return version == 4 ? swap16(ETH_P_IP) : version == 6 ? swap16(ETH_P_IPV6) : 0;
    }
    return 0;
}

/* A frame without an Ethernet header: the network header comes first, and eth_type_trans() has nothing to say. */
static COLD void lay_out_other(struct tcbpf_skb *skb, u32 linktype)
{
    skb->u.pkt_type = skb->mac_len = 0;
    skb->network = 0;
    skb->u.protocol = ip_protocol(skb, linktype);
}

typedef u32 (*step_fn)(struct tcbpf_env *env, struct tcbpf_skb *skb, const void *what, tcbpf_fn fn);

static ALWAYS u32 loop_over(struct tcbpf_loop *loop, struct tcbpf_env *env, step_fn step, const void *what, tcbpf_fn fn)
{
    struct tcbpf_capture *in = loop->in;
    struct tcbpf_skb *skb = loop->skb;
    u32 mark = skb->u.mark, priority = skb->u.priority, iif = skb->u.ingress_ifindex, ifindex = skb->u.ifindex;
    struct tcbpf_dev *dev = skb->dev;
    struct tcbpf_sink *out = loop->out;
    struct tcbpf_net *net = env->net;
    u32 status = TCBPF_MORE, others = verdicts_used(loop);
    u64 budget = loop->budget, packets = 0, bytes = 0, cut = 0;

    if (net)
        net->pressed = 0;
    for (; budget; budget--) {
        struct tcbpf_packet p;
        u32 verdict;

        if (unlikely(others >= VERDICTS_FULL || (out && !sink_has_room(out)) || (net && net->pressed))) {
            status = TCBPF_FULL;
            break;
        }
        if (unlikely(stopped(env))) {
            status = TCBPF_STOPPED;
            break;
        }
        status = capture_next(in, &p);
        if (unlikely(status != TCBPF_MORE || !p.data))
            break;
        if (unlikely(in->interfaces[p.interface].linktype != loop->linktype)) {
            in->pos = (u64)(p.data - in->base) - p.head;
            in->error = in->interfaces[p.interface].linktype;
            status = TCBPF_LINKTYPE;
            break;
        }
        lay_out(skb, &p, loop->writes);
        if (unlikely(loop->linktype != LINKTYPE_ETHERNET))
            lay_out_other(skb, loop->linktype);
        cut += skb->cut != 0;
        skb->u.mark = mark;
        skb->u.priority = priority;
        skb->u.ingress_ifindex = iif;
        skb->u.ifindex = ifindex;
        skb->dev = dev;
        if (unlikely(out || loop->timed))
            skb->ns = packet_ns(in, &p);
        packets++;
        bytes += p.len;
        verdict = step(env, skb, what, fn);
        if (likely(verdict + 1 < SMALL))
            loop->small[verdict + 1]++;
        else
            others += count_other(loop, verdict);
        if (unlikely(out) && (verdict + 1 < SMALL ? loop->keep >> (verdict + 1) & 1 : loop->keep_others)) {
            sink_packet(out, skb);
            loop->kept++;
        }
    }
    skb->u.mark = mark;
    skb->u.priority = priority;
    loop->packets += packets;
    loop->bytes += bytes;
    loop->cut += cut;
    return status;
}

static ALWAYS u32 step_program(struct tcbpf_env *env, struct tcbpf_skb *skb, const void *maps, tcbpf_fn fn)
{
    env->tail_calls = 0;
    return (u32)fn(skb, env, maps);
}

INLINED u32 tcbpf_loop_inline(struct tcbpf_loop *loop, struct tcbpf_env *env, tcbpf_fn fn, struct tcbpf_map *const *maps)
{
    return loop_over(loop, env, step_program, maps, fn);
}

u32 tcbpf_loop_run(struct tcbpf_loop *loop, struct tcbpf_env *env, struct tcbpf_prog *prog)
{
    u64 before = loop->packets;
    u32 status = loop_over(loop, env, step_program, prog->maps, prog->fn);

    prog->run_cnt += loop->packets - before;
    return status;
}

/* BPF_PROG_TEST_RUN's repeat: runs see each other's changes to the packet; the last r0. */
u64 tcbpf_repeat(struct tcbpf_env *env, const struct tcbpf_prog *prog, struct tcbpf_skb *skb, u64 times)
{
    u64 r0 = 0;

    while (times-- && !stopped(env)) {
        env->tail_calls = 0;
        r0 = prog->fn(skb, env, prog->maps);
    }
    return r0;
}

static ALWAYS u32 step_receive(struct tcbpf_env *env, struct tcbpf_skb *skb, const void *dev, tcbpf_fn fn)
{
    return (u32)tcbpf_receive(env, (struct tcbpf_dev *)dev, skb);
}

/* Where a packet socket puts the network header of what is sent through it: behind the tags (packet_parse_headers). */
static ALWAYS u16 behind_tags(const struct tcbpf_skb *skb)
{
    u16 proto = (u16)skb->u.protocol, at = ETH_HLEN;

    for (u32 depth = 0; is_vlan(proto); depth++, at += VLAN_HLEN) {
        if (depth == 7 || (u32)at + VLAN_HLEN > skb->u.len)
            return skb->network;
        proto = load16(skb->data + at + 2);
    }
    return at > ETH_HLEN ? at : skb->network;
}

static ALWAYS u32 step_transmit(struct tcbpf_env *env, struct tcbpf_skb *skb, const void *dev, tcbpf_fn fn)
{
    skb->u.pkt_type = PACKET_HOST;                                /* sent by this host: no link header was looked at */
    skb->network = behind_tags(skb);
    return (u32)tcbpf_transmit(env, (struct tcbpf_dev *)dev, skb);
}

u32 tcbpf_loop_device(struct tcbpf_loop *loop, struct tcbpf_env *env, struct tcbpf_dev *dev, u32 ingress)
{
    loop->skb->dev = dev;
    return ingress ? loop_over(loop, env, step_receive, dev, NULL) : loop_over(loop, env, step_transmit, dev, NULL);
}
