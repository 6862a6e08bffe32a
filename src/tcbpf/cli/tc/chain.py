"""`tc chain`: add, show and remove chains of filters."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tcbpf.cli.tc import show as tc_show
from tcbpf.cli.tc.filter import ERROR, read_request, require_block
from tcbpf.cli.tc.request import apply, require_device, show
from tcbpf.control.args import USAGE, Options, Quit, Words, absent, matches
from tcbpf.control.objects import Chain
from tcbpf.control.request import Op

if TYPE_CHECKING:
    from tcbpf.cli.tc.request import Opener

CHAIN_USAGE = """\
Usage: tc chain [ add | del | get | show ] [ dev STRING [ root | ingress | egress | parent CLASSID ] | block INDEX ]
          [ chain INDEX ]
"""
COMMANDS = (("add", Op.ADD), ("delete", Op.DELETE), ("get", Op.GET), ("list", Op.SHOW), ("show", Op.SHOW), ("lst", Op.SHOW))


def chain(opener: Opener, words: Words, options: Options) -> int:
    """Run one `tc chain` command."""
    asked = words.take() if words else "show"
    op = next((op for word, op in COMMANDS if matches(asked, word)), None)
    if op is None and not matches(asked, "help"):
        raise Quit(USAGE, f'Command "{asked}" is unknown, try "tc chain help".')
    request = read_request(words, op) if op is not None else None
    if op is None or request is None:
        sys.stderr.write(CHAIN_USAGE)
        return 0
    if request.kind:
        absent("chain templates")
    if op is Op.GET and not request.parent:
        raise Quit(USAGE, "Must specify filter parent")
    require_device(dp := opener(), request.dev)
    if op is Op.SHOW:
        require_block(dp, request.block)
    what = Chain(request.dev, request.parent, request.chain, request.block)
    rows = [row for row in apply(dp, op, what, after=ERROR) if isinstance(row, Chain)]
    said = request.chain if op is Op.SHOW else None
    selected = tc_show.Selection(request.dev, request.parent, chain=said, block=request.block)
    return show(rows, tc_show.chain, options, selected) if op in (Op.GET, Op.SHOW) else 0
