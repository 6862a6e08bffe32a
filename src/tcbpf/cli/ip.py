"""`tcbpf ip link`: devices, in the words of ip(8)."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tcbpf.control.objects import Link
from tcbpf.control.request import Op, Request
from tcbpf.datapath.base import Datapath
from tcbpf.datapath.choose import open_datapath
from tcbpf.errors import TcError
from tcbpf.tc.kinds.device import LOOPBACK, kind_of

USAGE = """\
Usage: tcbpf ip [ OPTIONS ] link { add | del | set | show }
       tcbpf ip link add [ name ] NAME [ mtu MTU ] [ address LLADDR ] type { dummy | veth [ peer [ name ] NAME ] | ifb }
       tcbpf ip link set [ dev ] NAME { up | down | mtu MTU | address LLADDR | name NEWNAME }
       tcbpf ip link del [ dev ] NAME
       tcbpf ip link show [ [ dev ] NAME ] [ up ] [ type TYPE ]
       OPTIONS := { -j[son] | -p[retty] | -br[ief] | -o[neline] | -n[etns] NAME |
                    --home DIR | --datapath user|kernel }"""


class UsageError(Exception):
    """The words are not ip(8)'s grammar: what to print, and the exit status."""

    def __init__(self, words: str, status: int = 255) -> None:
        self.words, self.status = words, status


@dataclass
class Options:
    """What stands before, or with -- anywhere."""

    json: bool = False
    pretty: bool = False
    brief: bool = False
    oneline: bool = False
    netns: str = ""
    home: str = ""
    datapath: str = ""


def main(words: Sequence[str]) -> int:
    """Run one command of ip(8)'s grammar: 0 done, 1 there is no such device, 2 refused, 255 not understood."""
    try:
        options, rest = read_options(list(words))
        if not rest or rest[0] in ("help", "-h", "--help"):
            print(USAGE)
            return 0
        if not abbreviates(rest[0], "link"):
            raise UsageError(f'Object "{rest[0]}" is unknown, try "tcbpf ip help".')
        verb, arguments = (rest[1], rest[2:]) if len(rest) > 1 else ("show", [])
        with open_datapath(options.datapath, home=options.home, netns=options.netns, lasting=True) as dp:
            return run(dp, verb, arguments, options)
    except UsageError as error:
        print(error.words, file=sys.stderr)
        return error.status


def read_options(words: list[str]) -> tuple[Options, list[str]]:
    """Take the options out of the words."""
    options, rest = Options(), list[str]()
    at = iter(words)
    for word in at:
        name, equals, value = word.partition("=")
        if name in ("--home", "--datapath"):
            setattr(options, name[2:], value if equals else need(at, name))
        elif rest or not word.startswith("-"):
            rest.append(word)
        elif abbreviates(word, "-netns"):
            options.netns = need(at, word)
        else:
            flag = next((f for f in ("json", "pretty", "brief", "oneline") if abbreviates(word.lstrip("-"), f)), "")
            if not flag:
                raise UsageError(f'Option "{word}" is unknown, try "tcbpf ip help".')
            setattr(options, flag, True)
    return options, rest


def abbreviates(word: str, full: str) -> bool:
    """Tell whether `word` is a beginning of `full`, as ip(8) allows."""
    return bool(word) and full.startswith(word)


def need(words: Iterator[str], before: str) -> str:
    """Return the next word, which `before` needs."""
    word = next(words, None)
    if word is None:
        raise UsageError(f'Command line is not complete. Try option "help" ({before} needs a word)')
    return word


def run(dp: Datapath, verb: str, words: list[str], options: Options) -> int:
    """Carry out one verb on links."""
    if abbreviates(verb, "show") or verb in ("list", "lst", "ls", "l"):
        return show(dp, words, options)
    try:
        if abbreviates(verb, "add"):
            dp.apply(Request(Op.ADD, read_add(words)))
        elif abbreviates(verb, "delete"):
            dp.apply(Request(Op.DELETE, Link(read_device(words))))
        elif abbreviates(verb, "set"):
            change(dp, words)
        else:
            raise UsageError(f'Command "{verb}" is unknown, try "tcbpf ip link help".')
    except TcError as error:
        return refused(error, words)
    return 0


def refused(error: TcError, words: list[str]) -> int:
    """Print a refusal as ip(8) does, and return its status."""
    if error.errno == errno.ENODEV:
        print(f'Cannot find device "{read_device(words)}"', file=sys.stderr)
        return 1
    if error.extack:
        print(f"Error: {error.extack}.", file=sys.stderr)
    else:
        print(f"RTNETLINK answers: {os.strerror(error.errno or errno.EIO)}", file=sys.stderr)
    return 2


def read_device(words: list[str]) -> str:
    """Return the device that `[ dev ] NAME` names."""
    names = [word for word in words if word not in ("dev", "name")]
    if not names:
        raise UsageError('Not enough information: "dev" argument is required.')
    return names[0]


def read_add(words: list[str]) -> Link:
    """Return the Link that the words after `link add` describe."""
    link, at = Link("", kind=""), iter(words)
    for word in at:
        if word == "type":
            link = replace(link, kind=need(at, "type"))
            break
        link = described(link, word, at)
    for word in at:
        if word != "peer" or not kind_of(link).paired:
            raise UsageError(f'{link.kind}: unknown option "{word}"?', 2)
        name = need(at, "peer")
        link = replace(link, peer=need(at, "name") if name == "name" else name)
    if not link.kind:
        raise UsageError('Not enough information: "type" argument is required')
    return link


def described(link: Link, word: str, at: Iterator[str]) -> Link:
    """Return the Link with one attribute read."""
    if word in ("up", "down"):
        return replace(link, up=word == "up")
    if word == "mtu":
        text = need(at, "mtu")
        if not text.isdigit() or not int(text):
            raise UsageError(f'Error: argument "{text}" is wrong: Invalid "mtu" value')
        return replace(link, mtu=int(text))
    if word == "address":
        return replace(link, address=need(at, "address"))
    if word in ("dev", "name"):
        return replace(link, name=need(at, word))
    if link.name:
        raise UsageError(f'Error: either "dev" is duplicate, or "{word}" is a garbage.')
    return replace(link, name=word)


def change(dp: Datapath, words: list[str]) -> None:
    """Set what the words after `link set` say; what they do not say stays."""
    name = read_device(words)
    found = dp.apply(Request(Op.GET, Link(name)))
    old = found[0] if found else Link(name)
    assert isinstance(old, Link)
    asked, at, new_name = Link(name, up=old.up), iter(words), ""
    seen = False
    for word in at:
        if word in ("dev",) or (word == name and not seen):
            seen = True if word == name else need(at, "dev") == name
        elif word == "name":
            new_name = need(at, "name")
        elif word in ("up", "down", "mtu", "address"):
            asked = described(asked, word, at)
        else:
            raise UsageError(f'Error: either "dev" is duplicate, or "{word}" is a garbage.')
    dp.apply(Request(Op.CHANGE, replace(asked, options={"name": new_name} if new_name else {})))


def show(dp: Datapath, words: list[str], options: Options) -> int:
    """Print the devices that the words after `link show` select."""
    name, kind, only_up, at = "", "", False, iter(words)
    for word in at:
        if word == "type":
            kind = need(at, "type")
        elif word == "up":
            only_up = True
        else:
            name = need(at, "dev") if word == "dev" else word
    every = {link.index: link for link in dp.apply(Request(Op.SHOW, Link(""))) if isinstance(link, Link)}
    chosen = [
        link for link in every.values() if name in ("", link.name) and kind in ("", link.kind) and (link.up or not only_up)
    ]
    if name and not any(link.name == name for link in every.values()):
        print(f'Device "{name}" does not exist.', file=sys.stderr)
        return 1
    rows = [described_row(link, every) for link in chosen]
    if options.json:
        print(
            json.dumps(
                [brief(row) if options.brief else row for row in rows],
                indent=4 if options.pretty else None,
                separators=None if options.pretty else (",", ":"),
            )
        )
        return 0
    for row in rows:
        print(brief_line(row) if options.brief else line(row, "\\" if options.oneline else "\n"))
    return 0


def described_row(link: Link, every: Mapping[int, Link]) -> dict[str, Any]:
    """Return what ip(8) prints of a link, in the names of its JSON."""
    flags, state = flags_of(link, every)
    row: dict[str, Any] = {"ifindex": link.index}
    if link.peer:
        row["link"] = link.peer
    kind = kind_of(link)
    loopback = kind is LOOPBACK
    return row | {
        "ifname": link.name,
        "flags": flags,
        "mtu": link.mtu,
        "qdisc": link.qdisc,
        "operstate": state,
        "linkmode": "DEFAULT",
        "group": "default",
        "txqlen": kind.tx_queue_len,
        "link_type": "loopback" if loopback else "ether",
        "address": link.address,
        "broadcast": "00:00:00:00:00:00" if loopback else "ff:ff:ff:ff:ff:ff",
    }


def flags_of(link: Link, every: Mapping[int, Link]) -> tuple[list[str], str]:
    """Return a link's flags in ip(8)'s order, and its operational state."""
    peer = every.get(link.peer_index)
    carrier = link.up and (peer is None or peer.up)
    flags = ["NO-CARRIER"] if link.up and not carrier else []
    flags += kind_of(link).flags
    flags += (["UP"] if link.up else []) + (["LOWER_UP"] if carrier else [])
    flags += ["M-DOWN"] if peer is not None and not peer.up else []
    if not link.up:
        return flags, "DOWN"
    if not carrier:
        return flags, "LOWERLAYERDOWN"
    return flags, "UP" if peer is not None else "UNKNOWN"


def line(row: Mapping[str, Any], newline: str) -> str:
    """Return a link as `ip link show` prints it."""
    name = f"{row['ifname']}@{row['link']}" if "link" in row else row["ifname"]
    return (
        f"{row['ifindex']}: {name}: <{','.join(row['flags'])}> mtu {row['mtu']} qdisc {row['qdisc']} state {row['operstate']} "
        f"mode {row['linkmode']} group {row['group']} qlen {row['txqlen']}{newline}"
        f"    link/{row['link_type']} {row['address']} brd {row['broadcast']}"
    )


def brief(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a link as `ip -br -j link show` has it."""
    return {key: row[key] for key in ("link", "ifname", "operstate", "address", "flags") if key in row}


def brief_line(row: Mapping[str, Any]) -> str:
    """Return a link as `ip -br link show` prints it."""
    name = f"{row['ifname']}@{row['link']}" if "link" in row else row["ifname"]
    return f"{name:<16} {row['operstate']:<14} {row['address']} <{','.join(row['flags'])}> "
