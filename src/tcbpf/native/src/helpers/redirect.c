/* Where a packet is to go: bpf_redirect() and its kin only note it, the hook acts on it (net.c). */
#include "../base.h"

enum { BPF_F_INGRESS = 1 };
enum { TC_ACT_UNSPEC = -1, TC_ACT_OK, TC_ACT_RECLASSIFY, TC_ACT_SHOT, TC_ACT_PIPE, TC_ACT_STOLEN, TC_ACT_QUEUED,
       TC_ACT_REPEAT, TC_ACT_REDIRECT, TC_ACT_TRAP, TC_ACT_JUMP = 0x10000000, TC_ACT_GOTO_CHAIN = 0x20000000,
       TC_ACT_VALUE = 0x0fffffff };

static u64 redirect_note(struct tcbpf_env *env, u64 ifindex, u32 flags, u32 kind)
{
    env->redirect.ifindex = (u32)ifindex;
    env->redirect.flags = flags;
    env->redirect.kind = kind;
    env->redirect.nh_family = 0;
    return TC_ACT_REDIRECT;
}

/* (ifindex, flags) */
HELPER(redirect)
{
    return r2 & ~(u64)BPF_F_INGRESS ? TC_ACT_SHOT : redirect_note(env, r1, (u32)r2, 0);
}

/* (ifindex, flags) */
HELPER(redirect_peer) { return r2 ? TC_ACT_SHOT : redirect_note(env, r1, 0, TCBPF_REDIRECT_PEER); }

/* (ifindex, struct bpf_redir_neigh *, size, flags) */
HELPER(redirect_neigh)
{
    struct tcbpf_redirect *to = &env->redirect;
    s32 size = (s32)r3;

    if (r4 || (size && size < 20))
        return TC_ACT_SHOT;
    redirect_note(env, r1, 0, TCBPF_REDIRECT_NEIGH);
    if (size)
        memcpy(&to->nh_family, (void *)r2, 20);
    return TC_ACT_REDIRECT;
}

static s64 net_clone_redirect(struct tcbpf_env *env, struct tcbpf_skb *skb, u32 ifindex, u64 flags);

/* (skb, ifindex, flags) */
HELPER(clone_redirect)
{
    if (unlikely(r3 & ~(u64)BPF_F_INGRESS))
        return ERR(EINVAL);
    if (unlikely(skb_of(r1)->u.gso_size && !skb_of(r1)->gso_type))
        return ERR(EBADMSG);                                      /* what no device could cut into segments */
    return (u64)net_clone_redirect(env, skb_of(r1), (u32)r2, r3);
}
