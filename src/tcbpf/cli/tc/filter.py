"""`tc filter`: its grammar; tc/kinds/filter takes the options of each kind."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from tcbpf.cli.tc import show as tc_show
from tcbpf.cli.tc.action import Command
from tcbpf.cli.tc.request import apply, block_number, choose, require_device, show
from tcbpf.control.args import LOCAL, USAGE, Options, Quit, Words, absent, c_number, duplicate, matches, parsed
from tcbpf.control.handles import HOOKS, parse_classid, parse_protocol
from tcbpf.control.objects import ETH_P_ALL, Filter, Qdisc
from tcbpf.control.request import Op
from tcbpf.tc.kinds.filter import FILTERS
from tcbpf.uapi.tc import TC_H_ROOT

if TYPE_CHECKING:
    from tcbpf.cli.tc.request import Opener
    from tcbpf.datapath.base import Datapath

FILTER_USAGE = f"""\
Usage: tc filter [ add | del | change | replace | show | get ] dev STRING
          [ root | ingress | egress | parent CLASSID ]   (or, for dev STRING and what follows it: block INDEX)
          [ pref PRIO ] [ protocol PROTO ] [ chain INDEX ] [ handle FILTERID ]
          [ FILTER_KIND [ its options ] ]
FILTER_KIND := {" | ".join(FILTERS)}
"""
ERROR = "We have an error talking to the kernel"


@dataclass(slots=True)
class Request:
    """The part of a command before the filter's kind; None, 0 and "" where it is silent."""

    dev: str = ""
    parent: int = 0
    handle: str = ""
    pref: int = 0
    protocol: int | None = None
    chain: int | None = None
    kind: str = ""
    block: int = 0


def filter(opener: Opener, words: Words, options: Options) -> int:
    """Run one `tc filter` command."""
    op = choose(words, "filter", FILTER_USAGE)
    if op is None:
        return 0
    request = read_request(words, op)
    if request is None:
        sys.stderr.write(FILTER_USAGE)
        return 0
    if op is Op.GET:
        require_all(request)
    require_device(dp := opener(), request.dev)
    if op is Op.SHOW:
        require_block(dp, request.block)
        return filter_show(dp, request, options)
    row = read_filter(dp, op, request, words)
    rows = apply(dp, op, row, after=ERROR)
    if op is not Op.GET:
        return 0
    return show([row for row in rows if isinstance(row, Filter)], tc_show.filter, options, tc_show.Selection(dev=request.dev))


def require_all(request: Request) -> None:
    """Refuse a `get` that does not name one filter; the handle is checked later, after the kind's options."""
    said = (
        ("protocol", request.protocol is not None),
        ("priority", request.pref),
        ("parent", request.parent),
        ("type", request.kind),
    )
    for what, there in said:
        if not there:
            raise Quit(USAGE, f"Must specify filter {what}")
    if not request.dev and not request.block:
        raise Quit(USAGE, 'Must specify netdevice "dev" or block index "block"')


def exclusive(word: str, other: str, *, show: bool) -> NoReturn:
    """Refuse a command that names both a device and a block."""
    raise Quit(
        USAGE,
        f'Error: "{word}" cannot be used in the same time as "{other}"'
        if show
        else 'Error: "dev" and "block" are mutually exclusive',
    )


def read_request(words: Words, op: Op) -> Request | None:
    """Take the words before the kind, and the kind; None for help.

    Raises:  Quit.
    """
    request, show = Request(), op is Op.SHOW
    while words:
        word = words.take()
        if word == "dev":
            if request.dev:
                duplicate("dev", words.next)
            request.dev = words.take()
            if request.block:
                exclusive("dev", "block", show=show)
        elif matches(word, "block"):
            if request.block:
                duplicate("block", words.next)
            request.block = block_number(words, "invalid block index value")
            if request.dev:
                exclusive("block", "dev", show=show)
        elif word in ("root", "ingress", "egress"):
            if request.parent:
                raise Quit(USAGE, f'Error: "{word}" is duplicate parent ID')
            request.parent = TC_H_ROOT if word == "root" else HOOKS[word]
        elif word == "parent":
            if request.parent:
                duplicate("parent", words.next)
            request.parent = parsed(parse_classid, words.take(), "invalid parent ID" if show else "Invalid parent ID")
        elif word == "handle":
            if request.handle:
                duplicate("handle", words.next)
            request.handle = words.take()
        elif matches(word, "preference") or matches(word, "priority"):
            if request.pref:
                duplicate("priority", words.next)
            request.pref = words.number("invalid preference") if show else words.number("invalid priority value", limit=0xFFFF)
        elif matches(word, "protocol"):
            if request.protocol is not None:
                duplicate("protocol", words.next)
            request.protocol = parsed(parse_protocol, words.take(), "invalid protocol")
        elif matches(word, "chain"):
            if request.chain is not None:
                duplicate("chain", words.next)
            request.chain = words.number("invalid chain index value")
        elif not show and matches(word, "estimator"):
            absent(word)
        elif matches(word, "help"):
            return None
        elif show:
            raise Quit(USAGE, f' What is "{word}"? Try "tc filter help"')
        else:
            request.kind = word
            break
    return request


def read_filter(dp: Datapath, op: Op, request: Request, words: Words) -> Filter:
    """Return the filter that a command describes, its program loaded.

    Raises:  Quit.
    """
    handle = c_number(request.handle) if request.handle else 0
    if handle is not None and handle > 0xFFFFFFFF:
        handle = None
    protocol = request.protocol
    if protocol is None:
        protocol = ETH_P_ALL if op in (Op.ADD, Op.REPLACE) else 0
    row = Filter(
        request.dev,
        request.parent,
        request.kind,
        protocol=protocol,
        pref=request.pref,
        chain=request.chain or 0,
        block=request.block,
    )
    if not request.kind:
        if request.handle:
            raise Quit(USAGE, 'Must specify filter type when using "handle"')
        return row
    kind = FILTERS.get(request.kind)
    if kind is None:
        if words:
            raise Quit(LOCAL, f'Unknown filter "{request.kind}", hence option "{words.next}" is unparsable')
        if request.handle:
            raise Quit(LOCAL, f'Unknown filter "{request.kind}", hence "handle {request.handle}" is unparsable')
        return row
    if handle is None:
        raise Quit(LOCAL, 'Illegal "handle"')
    options, actions = kind.parse(words, Command(dp))
    if op is Op.GET and not request.handle:
        raise Quit(USAGE, 'Must specify filter "handle"')
    return replace(row, handle=handle, options=options, actions=actions)


def require_block(dp: Datapath, number: int) -> None:
    """Refuse the number of a shared block that no qdisc has."""
    rows = apply(dp, Op.SHOW, Qdisc("", "", parent=0)) if number else ()
    if number and not any(isinstance(row, Qdisc) and number in (row.ingress_block, row.egress_block) for row in rows):
        raise Quit(LOCAL, f'Cannot find block "{number}"')


def filter_show(dp: Datapath, request: Request, options: Options) -> int:
    """Run `tc filter show`."""
    asked = Filter(
        request.dev,
        request.parent,
        request.kind,
        protocol=request.protocol or 0,
        pref=request.pref & 0xFFFF,
        chain=request.chain or 0,
        block=request.block,
    )
    rows = [row for row in apply(dp, Op.SHOW, asked, after="Cannot send dump request") if isinstance(row, Filter)]
    if request.chain is not None:
        rows = [row for row in rows if row.chain == request.chain]
    selected = tc_show.Selection(request.dev, request.parent, request.protocol or 0, request.pref, request.chain, request.block)
    return show(rows, tc_show.filter, options, selected)
