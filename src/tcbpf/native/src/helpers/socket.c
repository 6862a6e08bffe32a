/* Sockets: this host has none. What looks for one finds none, so what takes one is never reached.
 *
 * Differs: there are no sockets, cgroups or IPsec states: look-ups find none, skb->sk is NULL, ids are 0. BPF_PROG_TEST_RUN makes
 * a socket up for every packet; a packet on its way in has none.
 */
#include "../base.h"

enum { OVERFLOW_UID = 65534, FIRST_NETNS_COOKIE = 1 };

#define NONE(name) HELPER(name) { return 0; }
#define REFUSED(name, errno) HELPER(name) { return ERR(errno); }

NONE(sk_lookup_tcp)
NONE(sk_lookup_udp)
NONE(skc_lookup_tcp)
NONE(sk_release)
NONE(sk_fullsock)
NONE(tcp_sock)
NONE(get_listener_sock)
NONE(skc_to_tcp6_sock)
NONE(skc_to_tcp_sock)
NONE(skc_to_tcp_timewait_sock)
NONE(skc_to_tcp_request_sock)
NONE(skc_to_udp6_sock)
NONE(skc_to_unix_sock)
NONE(skc_to_mptcp_sock)
NONE(sk_storage_get)
REFUSED(sk_storage_delete, ENOENT)
REFUSED(sk_assign, EOPNOTSUPP)
REFUSED(tcp_check_syncookie, EINVAL)
REFUSED(tcp_gen_syncookie, EINVAL)
NONE(get_socket_cookie)
HELPER(get_socket_uid) { return OVERFLOW_UID; }
NONE(skb_cgroup_id)
NONE(skb_ancestor_cgroup_id)

/* (skb) */
HELPER(get_netns_cookie) { return r1 && skb_of(r1)->dev ? FIRST_NETNS_COOKIE + skb_of(r1)->dev->netns : FIRST_NETNS_COOKIE; }

/* (skb, index, state, size, flags): no packet came through IPsec. */
HELPER(skb_get_xfrm_state)
{
    memset((void *)r3, 0, (u32)r4);
    return ERR(EINVAL);
}
