"""Blocks: the filters of one hook, or of all hooks that share a block's number.

Source:  tcf_block_find(), tcf_block_get_ext(), net/sched/cls_api.c (v6.18); compared with tc(8) on a live kernel.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress

from tcbpf.control.objects import Chain, Filter, Link
from tcbpf.errors import TcError
from tcbpf.tc.kinds.qdisc import QDISCS
from tcbpf.tc.qdisc import INGRESS_HANDLE
from tcbpf.tc.state import Hook, State

CLSACT_INGRESS, CLSACT_EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
MAX_CHAIN = 0x0FFFFFFF


def hook_of_parent(state: State, link: Link, parent: int, what: str) -> Hook:
    """Return the hook whose filters a parent names.

    Raises:  TcError.
    """
    if not parent:
        root = state.root(link.index)
        if root is None:
            raise TcError(errno.EINVAL, what, "Qdisc not classful")
        parent = root.handle
    qdisc = state.qdiscs.get((link.index, parent & 0xFFFF0000))
    if qdisc is None:
        raise TcError(errno.EINVAL, what, "Parent Qdisc doesn't exists")
    if qdisc.handle == INGRESS_HANDLE:
        if "egress" not in QDISCS[qdisc.kind].hooks:
            return link.index, CLSACT_INGRESS  # one block, whatever the minor number
        if parent == INGRESS_HANDLE:
            raise TcError(errno.EINVAL, what)
        if parent not in (CLSACT_INGRESS, CLSACT_EGRESS):
            raise TcError(errno.ENOENT, what, "Specified class doesn't exist")
        return link.index, parent
    if QDISCS[qdisc.kind].classes is None:
        raise TcError(errno.EINVAL, what, "Qdisc not classful")
    if parent & 0xFFFF and (link.index, parent) not in state.classes:
        raise TcError(errno.ENOENT, what, "Specified class doesn't exist")
    return link.index, parent


def shared_block(state: State, hook: Hook) -> Hook:
    """Return the shared block that a hook's filters are in, or the hook itself."""
    index, parent = hook
    qdisc = state.qdiscs.get((index, INGRESS_HANDLE)) if parent in (CLSACT_INGRESS, CLSACT_EGRESS) else None
    number = 0 if qdisc is None else qdisc.ingress_block if parent == CLSACT_INGRESS else qdisc.egress_block
    return (0, number) if number else hook


def hook_for_change(state: State, request: Filter | Chain, what: str) -> Hook:
    """Return the hook, or the shared block, that a request may change.

    Raises:  TcError.
    """
    if request.block:
        if not any(request.block in (q.ingress_block, q.egress_block) for q in state.qdiscs.values()):
            raise TcError(errno.EINVAL, what, "Block of given index was not found")
        return 0, request.block
    hook = hook_of_parent(state, state.link(request.dev, what), request.parent, what)
    if shared_block(state, hook) != hook:
        said = "This filter block is shared. Please use the block index to manipulate the filters"
        raise TcError(errno.EOPNOTSUPP, what, said)
    return hook


def hooks_for_dump(state: State, request: Filter | Chain, what: str) -> Iterator[Hook]:
    """Yield the hooks and shared blocks that a dump visits; a parent that does not exist has none."""
    if request.block:
        yield 0, request.block
        return
    for link in [state.link(request.dev, what)] if request.dev else [state.links[index] for index in sorted(state.links)]:
        with suppress(TcError):
            yield shared_block(state, hook_of_parent(state, link, request.parent, what))


def has_chain(state: State, hook: Hook, number: int) -> bool:
    """Tell whether a block has a chain."""
    return any(number == one for one, _ in state.chains.get(hook, ()))
