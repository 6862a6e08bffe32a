/* A hook's filters over one packet, as tcf_classify() and cls_bpf do it. */
#include "../base.h"

enum { RECLASSIFY_MAX = 16 };

static ALWAYS u64 prog_run(struct tcbpf_env *env, struct tcbpf_prog *prog, struct tcbpf_skb *skb)
{
    u32 tail_calls = env->tail_calls;
    struct tcbpf_prog *outer = env->prog;
    u64 r0;

    if (prog->flags & TCBPF_PROG_WRITES && skb_writable(skb, 0))
        return (u64)TC_ACT_SHOT;
    env->tail_calls = 0;
    env->prog = prog;
    prog->run_cnt++;
    r0 = prog->fn(skb, env, prog->maps);
    env->prog = outer;
    env->tail_calls = tail_calls;
    return r0;
}

/* The protocol that filters match: of the tag beside the packet, if there is one. */
static ALWAYS u16 filter_protocol(const struct tcbpf_skb *skb)
{
    return (u16)(skb->u.vlan_present ? skb->u.vlan_proto : skb->u.protocol);
}

/* Direct action keeps these; everything else means "next filter". */
static ALWAYS s32 direct_code(s32 code)
{
    switch (code) {
    case TC_ACT_OK:
    case TC_ACT_SHOT:
    case TC_ACT_STOLEN:
    case TC_ACT_TRAP:
    case TC_ACT_REDIRECT:
        return code;
    default:
        return TC_ACT_UNSPEC;
    }
}

/* One filter: its code, negative for "next filter". */
static s32 filter_run(struct tcbpf_env *env, struct tcbpf_filter *f, struct tcbpf_skb *skb, struct tcbpf_result *res)
{
    s32 r;

    f->packets++;
    if (f->kind == TCBPF_CLS_MATCHALL) {
        if (f->flags & TCBPF_FILTER_SKIP_SW)
            return TC_ACT_UNSPEC;
        res->classid = f->classid;
        return actions_run(env, f, skb, res);
    }
    skb->u.tc_classid = (u16)f->classid;
    if (f->flags & TCBPF_FILTER_SKIP_SW)
        r = f->flags & TCBPF_FILTER_DIRECT ? TC_ACT_UNSPEC : 0;
    else
        r = (s32)prog_run(env, f->prog, skb);
    if (f->flags & TCBPF_FILTER_DIRECT) {
        res->classid = (f->classid & 0xffff0000) | (u16)skb->u.tc_classid;
        return direct_code(r);
    }
    if (!r)
        return TC_ACT_UNSPEC;
    res->classid = r == -1 ? f->classid : (u32)r;
    return actions_run(env, f, skb, res);
}

/* Two filters of one "tp": the protocol is matched once for both. */
static ALWAYS int same_tp(const struct tcbpf_filter *a, const struct tcbpf_filter *b)
{
    return a->pref == b->pref && a->protocol == b->protocol && a->kind == b->kind;
}

static const struct tcbpf_chain *chain_find(const struct tcbpf_hook *hook, u32 index)
{
    for (u32 i = 0; i < hook->n_chains; i++)
        if (hook->chains[i]->index == index)
            return hook->chains[i];
    return NULL;
}

s32 tcbpf_classify(struct tcbpf_env *env, const struct tcbpf_hook *hook, struct tcbpf_skb *skb, struct tcbpf_result *res)
{
    u32 resets = 0, matches = 0;
    const struct tcbpf_chain *chain;

    res->classid = res->chain = 0;
    chain = chain_find(hook, 0);
again:
    for (u32 i = 0; chain && i < chain->n_filters; i++) {
        struct tcbpf_filter *f = chain->filters[i];
        s32 code;

        if (!i || !same_tp(f, chain->filters[i - 1]))
            matches = !f->protocol || f->protocol == filter_protocol(skb);
        if (!matches)
            continue;
        code = filter_run(env, f, skb, res);
        if (code == TC_ACT_RECLASSIFY || is_extended(code, TC_ACT_GOTO_CHAIN)) {
            u32 index = code == TC_ACT_RECLASSIFY ? 0 : (u32)code & TC_ACT_VALUE;

            if (resets++ >= RECLASSIFY_MAX)
                return TC_ACT_SHOT;
            chain = chain_find(hook, index);
            goto again;
        }
        if (code >= 0) {
            f->hits++;
            return code;
        }
    }
    return TC_ACT_UNSPEC;
}
