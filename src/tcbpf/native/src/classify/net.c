/* Devices: a packet's way through hooks, across veth pairs, along redirects, into captures. */
#include "../base.h"

enum { XMIT_RECURSION_LIMIT = 8, NESTED_MAX = 64, HOPS_MAX = 1024, LOOPBACK_IFINDEX = 1 };

static struct tcbpf_dev *dev_find(struct tcbpf_env *env, u32 netns, u32 ifindex)
{
    const struct tcbpf_net *net = env->net;

    for (u32 i = 0; net && i < net->n_devs; i++)
        if (net->devs[i]->ifindex == ifindex && net->devs[i]->netns == netns)
            return net->devs[i];
    return NULL;
}

static ALWAYS u32 netns_of(const struct tcbpf_skb *skb) { return skb->dev ? skb->dev->netns : 0; }

static void capture_on(struct tcbpf_env *env, struct tcbpf_sink *sink, const struct tcbpf_skb *skb)
{
    sink_packet(sink, skb);
    if (!sink_has_room(sink) && env->net)
        env->net->pressed = 1;
}

/* --- hooks ------------------------------------------------------------------------------------------------------------------- */

/* What a qdisc counts: the whole frame on its way out, what follows the link header on its way in (sch_handle_ingress() runs
 * with data behind it). wire_len shows the same, and what a capture left out.
 */
static u32 qdisc_pkt_len(struct tcbpf_skb *skb)
{
    u32 len = skb->at_ingress && skb->u.len >= ETH_HLEN ? skb->u.len - ETH_HLEN : skb->u.len;

    skb->u.wire_len = len + skb->cut;
    return len;
}

static s32 hook_run(struct tcbpf_env *env, struct tcbpf_hook *hook, struct tcbpf_skb *skb)
{
    struct tcbpf_result res;
    s32 code;

    hook->packets++;
    hook->bytes += qdisc_pkt_len(skb);
    code = tcbpf_classify(env, hook, skb, &res);
    if (code == TC_ACT_SHOT)
        hook->drops++;
    else if (code == TC_ACT_OK || code == TC_ACT_RECLASSIFY)
        skb->u.tc_index = (u16)res.classid;
    return code;
}

/* The packet goes on after these codes; after all others somebody else has it, or nobody. */
static ALWAYS int goes_on(s32 code)
{
    return code != TC_ACT_SHOT && code != TC_ACT_STOLEN && code != TC_ACT_QUEUED && code != TC_ACT_TRAP
        && code != TC_ACT_REDIRECT;
}

/* --- receive ------------------------------------------------------------------------------------------------------------------- */

/* What __netif_receive_skb_core() does before the ingress hook. */
static void rx_prepare(struct tcbpf_dev *dev, struct tcbpf_skb *skb)
{
    u16 tci, proto = (u16)skb->u.protocol;

    skb->dev = dev;
    skb->u.ifindex = skb->u.ingress_ifindex = dev->ifindex;
    skb->network = ETH_HLEN;
    skb->mac_len = ETH_HLEN;
    if (skb->transport == TCBPF_UNKNOWN)
        skb->transport = skb->network;
    if (is_vlan(proto) && !skb->u.vlan_present && skb->u.len >= ETH_HLEN + VLAN_HLEN && !tag_remove(skb, &tci)) {
        tag_put(skb, proto, tci);
        skb->transport = skb->network;
    }
    skb->at_ingress = 1;
}

static s32 redirect_run(struct tcbpf_env *env, struct tcbpf_skb *skb);

/* The packet, laid out, at a device: its hook decides. `again`: a peer redirect moved the packet to another device. */
static s32 rx_core(struct tcbpf_env *env, struct tcbpf_dev *dev, struct tcbpf_skb *skb)
{
    s32 code = TC_ACT_UNSPEC, first = TC_ACT_UNSPEC;

    for (u32 round = 0; round < NESTED_MAX; round++) {
        dev->rx_packets++;
        dev->rx_bytes += skb->u.len;
        rx_prepare(dev, skb);
        code = dev->ingress ? hook_run(env, dev->ingress, skb) : TC_ACT_UNSPEC;
        if (!round)
            first = code;
        if (code != TC_ACT_REDIRECT || redirect_run(env, skb) != -EAGAIN)
            break;
        dev = skb->dev;
    }
    if (code == TC_ACT_SHOT)
        dev->rx_dropped++;
    if (goes_on(code) && dev->rx)
        capture_on(env, dev->rx, skb);
    return first;
}

s32 tcbpf_receive(struct tcbpf_env *env, struct tcbpf_dev *dev, struct tcbpf_skb *skb)
{
    s32 code = TC_ACT_SHOT;

    if (!env->nested)
        env->hops = 0;
    if (!(dev->flags & TCBPF_DEV_UP)) {
        dev->rx_dropped++;
    } else if (env->nested >= NESTED_MAX || env->hops >= HOPS_MAX) {      /* the kernel would go round for ever */
        dev->rx_dropped++;
        if (env->net)
            env->net->dropped_recursion++;
    } else {
        env->hops++;
        env->nested++;
        code = rx_core(env, dev, skb);
        env->nested--;
    }
    return code;
}

/* netif_rx(): the packet is received once the stack is unwound, so that nothing of it counts as nested. */
static s32 receive_later(struct tcbpf_env *env, struct tcbpf_dev *dev, struct tcbpf_skb *skb)
{
    u32 depth = env->depth, mirred = env->mirred;
    s32 code;

    env->depth = env->mirred = 0;
    code = tcbpf_receive(env, dev, skb);
    env->depth = depth;
    env->mirred = mirred;
    return code;
}

/* ____dev_forward_skb() and eth_type_trans(): the packet arrives as from a wire. */
static s32 forward_in(struct tcbpf_env *env, struct tcbpf_dev *dev, struct tcbpf_skb *skb)
{
    int crosses = netns_of(skb) != dev->netns;

    if (!(dev->flags & TCBPF_DEV_UP) || skb->u.len < ETH_HLEN
        || (skb->u.len > dev->mtu + dev->hard_header_len + VLAN_HLEN && !skb->u.gso_size)) {
        dev->rx_dropped++;
        return TC_ACT_SHOT;
    }
    skb->dev = dev;
    skb->u.priority = 0;
    skb->u.ingress_ifindex = 0;
    skb->ignore_df = 0;
    skb->tunnel.family = 0;
    if (crosses) {
        skb->u.mark = 0;
        skb->u.tstamp = 0;
    }
    skb_classify(skb);
    return receive_later(env, dev, skb);
}

/* --- transmit ------------------------------------------------------------------------------------------------------------------- */

/* A classful root: the class that the packet falls into; 0 when its filters drop it. */
static int root_run(struct tcbpf_env *env, struct tcbpf_dev *dev, struct tcbpf_skb *skb)
{
    struct tcbpf_result res = {0, 0};
    u32 classid = skb->u.priority;
    s32 code = TC_ACT_UNSPEC;

    for (u32 i = 0; i < dev->n_classes; i++)                      /* a priority that names a class selects it */
        if (dev->classes[i]->classid == classid)
            goto found;
    code = tcbpf_classify(env, dev->root, skb, &res);
    if (!goes_on(code)) {
        dev->root->drops += code == TC_ACT_SHOT;
        return 0;
    }
    classid = code >= 0 && res.classid ? res.classid : dev->default_class;
found:
    dev->root->packets++;
    dev->root->bytes += skb->u.len;
    for (u32 i = 0; i < dev->n_classes; i++)
        if (dev->classes[i]->classid == classid) {
            dev->classes[i]->packets++;
            dev->classes[i]->bytes += skb->u.len;
            break;
        }
    return 1;
}

/* Onto the wire: a capture, or a peer. */
static void wire(struct tcbpf_env *env, struct tcbpf_dev *dev, struct tcbpf_skb *skb)
{
    dev->tx_packets++;
    dev->tx_bytes += skb->u.len;
    if (dev->tx)
        capture_on(env, dev->tx, skb);
    if (dev->kind == TCBPF_DEV_VETH && dev->peer)
        forward_in(env, dev->peer, skb);
    else if (dev->kind == TCBPF_DEV_LO)
        forward_in(env, dev, skb);
}

static COLD s32 recursion(struct tcbpf_env *env, struct tcbpf_dev *dev)
{
    if (env->net)
        env->net->dropped_recursion++;
    dev->tx_dropped++;
    return -ENETDOWN;
}

s32 tcbpf_transmit(struct tcbpf_env *env, struct tcbpf_dev *dev, struct tcbpf_skb *skb)
{
    s32 code = TC_ACT_UNSPEC;

    if (!env->nested)
        env->hops = 0;
    if (env->nested >= NESTED_MAX || env->hops >= HOPS_MAX)       /* the kernel would go round for ever */
        return recursion(env, dev);
    env->hops++;
    env->nested++;
    skb->dev = dev;
    skb->u.ifindex = dev->ifindex;
    skb->at_ingress = 0;
    if (dev->egress)
        code = hook_run(env, dev->egress, skb);
    if (code == TC_ACT_REDIRECT)
        redirect_run(env, skb);
    else if (!goes_on(code) || !(dev->flags & TCBPF_DEV_UP) || (dev->root && !root_run(env, dev, skb)))
        dev->tx_dropped += code != TC_ACT_STOLEN && code != TC_ACT_QUEUED && code != TC_ACT_TRAP;
    else if (env->depth > XMIT_RECURSION_LIMIT)
        recursion(env, dev);
    else
        wire(env, dev, skb);
    env->nested--;
    return code;
}

/* --- redirects ------------------------------------------------------------------------------------------------------------------- */

/* __bpf_tx_skb(): a program's transmission, of which only so many may be inside one another. */
static s32 redirect_out(struct tcbpf_env *env, struct tcbpf_dev *dev, struct tcbpf_skb *skb)
{
    s32 code;

    if (env->depth > XMIT_RECURSION_LIMIT)
        return recursion(env, dev);
    env->depth++;
    code = tcbpf_transmit(env, dev, skb);
    env->depth--;
    return code;
}

/* Follow what bpf_redirect() noted. -EAGAIN: classify again on skb->dev. */
static s32 redirect_run(struct tcbpf_env *env, struct tcbpf_skb *skb)
{
    struct tcbpf_redirect to = env->redirect;
    struct tcbpf_dev *dev = dev_find(env, netns_of(skb), to.ifindex);

    memset(&env->redirect, 0, sizeof(env->redirect));
    if (!dev) {
        if (env->net)
            env->net->dropped_no_dev++;
        return -EINVAL;
    }
    if (to.kind == TCBPF_REDIRECT_PEER) {
        struct tcbpf_dev *peer = skb->at_ingress ? dev->peer : NULL;

        if (!peer || !(peer->flags & TCBPF_DEV_UP) || peer->netns == dev->netns)
            return -EINVAL;
        skb->dev = peer;
        return -EAGAIN;
    }
    if (skb->network == 0)                                        /* no link header to send it with */
        return -ERANGE;
    skb->u.tstamp = 0;
    if (to.kind == TCBPF_REDIRECT_NEIGH && !is_ipv4(skb) && !is_ipv6(skb))
        return -EINVAL;                                           /* nothing that has a neighbour */
    return to.flags & BPF_F_INGRESS ? forward_in(env, dev, skb) : redirect_out(env, dev, skb);
}

typedef s32 (*send_fn)(struct tcbpf_env *env, struct tcbpf_dev *dev, struct tcbpf_skb *skb);

/* Send a copy: what became of it, or -ENOMEM. */
static s32 send_copy(struct tcbpf_env *env, struct tcbpf_dev *dev, const struct tcbpf_skb *skb, send_fn send)
{
    struct tcbpf_redirect outer = env->redirect;
    struct tcbpf_net *net = env->net;
    struct tcbpf_skb copy = *skb;
    s32 code;

    if (net->buffers_used == net->n_buffers) {
        net->dropped_no_buffer++;
        return -ENOMEM;
    }
    copy.spare = net->buffers + (u64)net->buffers_used++ * TCBPF_BUFFER;
    copy.spare_end = copy.spare + TCBPF_BUFFER;
    copy.readonly = 1;                                            /* so that making it writable copies it */
    if (skb_writable(&copy, 0)) {
        net->buffers_used--;
        return -ENOMEM;
    }
    copy.u.tstamp = 0;
    code = send(env, dev, &copy);
    net->buffers_used--;
    env->redirect = outer;
    return code;
}

/* Send a copy to a device of the packet's namespace: 0, 1 for a drop on the way, or -errno. */
static s64 net_clone_redirect(struct tcbpf_env *env, struct tcbpf_skb *skb, u32 ifindex, u64 flags)
{
    struct tcbpf_dev *dev = dev_find(env, netns_of(skb), ifindex);
    s32 code;

    if (!dev)                                                     /* a run without devices has the loopback, where nobody listens */
        return env->net || ifindex != LOOPBACK_IFINDEX ? -EINVAL : 0;
    code = send_copy(env, dev, skb, flags & BPF_F_INGRESS ? forward_in : redirect_out);
    return code < -1 ? code : code == TC_ACT_SHOT;
}

/* tcf_mirred_to_dev(): 0, -ENODEV for a device that is gone or down, else what the way said. */
static s64 net_mirror(struct tcbpf_env *env, struct tcbpf_skb *skb, u32 ifindex, int inward)
{
    struct tcbpf_dev *dev = dev_find(env, netns_of(skb), ifindex);
    s32 code;

    if (!dev || !(dev->flags & TCBPF_DEV_UP))
        return -ENODEV;
    code = send_copy(env, dev, skb, !inward ? tcbpf_transmit : skb->at_ingress ? tcbpf_receive : receive_later);
    return code < -1 ? code : (!inward || skb->at_ingress) && code == TC_ACT_SHOT;
}
