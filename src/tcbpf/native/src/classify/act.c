/* Actions of a filter: gact, mirred, vlan, skbedit, bpf; and the chain of them (tcf_action_exec). */
#include "../base.h"

enum { ACTIONS_MAX = 32, MIRRED_NEST_LIMIT = 4, MIRRED_EGRESS_REDIR = 1, MIRRED_EGRESS_MIRROR, MIRRED_INGRESS_REDIR, MIRRED_INGRESS_MIRROR };
enum { VLAN_POP = 1, VLAN_PUSH, VLAN_MODIFY };
enum { EDIT_PRIORITY = 1, EDIT_QUEUE = 2, EDIT_MARK = 4, EDIT_PTYPE = 8, EDIT_MASK = 16 };

static u64 prog_run(struct tcbpf_env *env, struct tcbpf_prog *prog, struct tcbpf_skb *skb);             /* classify.c */
static s64 net_mirror(struct tcbpf_env *env, struct tcbpf_skb *skb, u32 ifindex, int inward);            /* net.c */

/* What an action counts: the packet once, with the length that its qdisc counted. */
static ALWAYS void act_count(struct tcbpf_action *a, const struct tcbpf_skb *skb)
{
    a->packets++;
    a->bytes += skb->u.wire_len - skb->cut;
}

/* A copy to another device. At ingress a redirect whose control ends the packet sends the packet itself: it is gone then. */
static s32 act_mirred(struct tcbpf_env *env, struct tcbpf_action *a, struct tcbpf_skb *skb)
{
    int redirects = a->mode == MIRRED_EGRESS_REDIR || a->mode == MIRRED_INGRESS_REDIR;
    int inward = a->mode == MIRRED_INGRESS_REDIR || a->mode == MIRRED_INGRESS_MIRROR;
    int gone = redirects && skb->at_ingress && (a->control == TC_ACT_SHOT || a->control == TC_ACT_STOLEN
                                                || a->control == TC_ACT_QUEUED || a->control == TC_ACT_TRAP);
    s64 err;

    if (env->mirred >= MIRRED_NEST_LIMIT) {
        env->net->dropped_recursion++;
        return TC_ACT_SHOT;
    }
    act_count(a, skb);
    env->mirred++;
    err = net_mirror(env, skb, a->ifindex, inward);
    env->mirred--;
    a->overlimits += err != 0;
    if (err == -ENODEV)
        return redirects ? TC_ACT_SHOT : a->control;
    return gone ? TC_ACT_STOLEN : a->control;
}

static s64 vlan_modify(struct tcbpf_skb *skb, const struct tcbpf_action *a)
{
    u16 tci, proto;
    s64 err;

    if (skb->u.vlan_present) {
        tci = (u16)skb->u.vlan_tci;
        skb->u.vlan_present = 0;
    } else {
        proto = (u16)skb->u.protocol;
        if (!is_vlan(proto))
            return 0;
        err = tag_remove(skb, &tci);
        if (err)
            return err;
    }
    tci = (u16)((tci & 0xf000) | a->vlan_id);
    if (a->vlan_prio_set)
        tci = (u16)((tci & 0x1fff) | a->vlan_prio << 13);
    tag_put(skb, a->vlan_proto, tci);
    return 0;
}

static s32 act_vlan(struct tcbpf_action *a, struct tcbpf_skb *skb)
{
    s64 err = 0;

    if (a->mode == VLAN_POP)
        err = vlan_pop(skb);
    else if (a->mode == VLAN_PUSH)
        err = vlan_push(skb, a->vlan_proto, (u16)(a->vlan_id | a->vlan_prio << 13));
    else if (a->mode == VLAN_MODIFY)
        err = vlan_modify(skb, a);
    a->drops += err != 0;
    return err ? TC_ACT_SHOT : a->control;
}

static s32 act_skbedit(const struct tcbpf_action *a, struct tcbpf_skb *skb)
{
    if (a->set & EDIT_PRIORITY)
        skb->u.priority = a->priority;
    if (a->set & EDIT_QUEUE)
        skb->u.queue_mapping = a->queue;
    if (a->set & EDIT_MARK) {
        u32 mask = a->set & EDIT_MASK ? a->mask : ~0u;

        skb->u.mark = (skb->u.mark & ~mask) | (a->mark & mask);
    }
    if (a->set & EDIT_PTYPE)
        skb->u.pkt_type = a->ptype;
    return a->control;
}

/* PIPE, RECLASSIFY, OK, REDIRECT and SHOT pass; UNSPEC becomes the configured control, the rest UNSPEC (tcf_bpf_act()). */
static s32 act_bpf(struct tcbpf_env *env, struct tcbpf_action *a, struct tcbpf_skb *skb)
{
    s32 code = (s32)prog_run(env, a->prog, skb);

    switch (code) {
    case TC_ACT_SHOT:
        a->drops++;
        return code;
    case TC_ACT_PIPE:
    case TC_ACT_RECLASSIFY:
    case TC_ACT_OK:
    case TC_ACT_REDIRECT:
        return code;
    case TC_ACT_UNSPEC:
        return a->control;
    default:
        return TC_ACT_UNSPEC;
    }
}

static s32 act_one(struct tcbpf_env *env, struct tcbpf_action *a, struct tcbpf_skb *skb)
{
    s32 code = a->control;

    if (a->kind == TCBPF_ACT_MIRRED)
        return act_mirred(env, a, skb);
    act_count(a, skb);
    if (a->kind == TCBPF_ACT_VLAN)
        code = act_vlan(a, skb);
    else if (a->kind == TCBPF_ACT_SKBEDIT)
        code = act_skbedit(a, skb);
    else if (a->kind == TCBPF_ACT_BPF)
        code = act_bpf(env, a, skb);
    else
        a->drops += code == TC_ACT_SHOT;                          /* gact */
    return code;
}

static ALWAYS int is_extended(s32 code, s32 which) { return code >= 0 && (code & ~TC_ACT_VALUE) == which; }

static s32 actions_run(struct tcbpf_env *env, const struct tcbpf_filter *f, struct tcbpf_skb *skb, struct tcbpf_result *res)
{
    u32 skip = 0, jumps = ACTIONS_MAX;
    s32 code = TC_ACT_OK;

restart:
    for (u32 i = 0; i < f->n_actions; i++) {
        u32 repeats = ACTIONS_MAX;

        if (skip) {
            skip--;
            continue;
        }
        do {
            code = act_one(env, f->actions[i], skb);
        } while (code == TC_ACT_REPEAT && --repeats);
        if (code == TC_ACT_REPEAT)
            return TC_ACT_OK;
        if (is_extended(code, TC_ACT_JUMP)) {
            skip = (u32)code & TC_ACT_VALUE;
            if (!skip || skip > f->n_actions || !--jumps)
                return TC_ACT_OK;
            goto restart;
        }
        if (is_extended(code, TC_ACT_GOTO_CHAIN))
            res->chain = (u32)code & TC_ACT_VALUE;
        if (code != TC_ACT_PIPE)
            break;
    }
    return code;
}
