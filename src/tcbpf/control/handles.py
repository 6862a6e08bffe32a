"""tc(8)'s words for handles and protocols, both ways.

Handles are hexadecimal: "ffff:" is a qdisc, "1:10" a class; "root" and "none" are the two ends. Protocols are
ethertypes, by name or number.

Source:  tc(8); include/uapi/linux/if_ether.h.
"""

from __future__ import annotations

from tcbpf.control.objects import handle_of
from tcbpf.errors import InputError
from tcbpf.uapi.tc import TC_H_CLSACT, TC_H_MIN_EGRESS, TC_H_MIN_INGRESS, TC_H_ROOT, TC_H_UNSPEC

PROTOCOLS = {
    "loop": 0x0060,
    "pup": 0x0200,
    "pupat": 0x0201,
    "ip": 0x0800,
    "x25": 0x0805,
    "arp": 0x0806,
    "bpq": 0x08FF,
    "ieeepup": 0x0A00,
    "ieeepupat": 0x0A01,
    "dec": 0x6000,
    "dna_dl": 0x6001,
    "dna_rc": 0x6002,
    "dna_rt": 0x6003,
    "lat": 0x6004,
    "diag": 0x6005,
    "cust": 0x6006,
    "sca": 0x6007,
    "rarp": 0x8035,
    "atalk": 0x809B,
    "aarp": 0x80F3,
    "802.1Q": 0x8100,
    "ipx": 0x8137,
    "ipv6": 0x86DD,
    "mpls_uc": 0x8847,
    "mpls_mc": 0x8848,
    "ppp_disc": 0x8863,
    "ppp_ses": 0x8864,
    "atmmpoa": 0x884C,
    "atmfate": 0x8884,
    "802.1ad": 0x88A8,
    "aoe": 0x88A2,
    "tipc": 0x88CA,
    "profinet": 0x8892,
    "ethercat": 0x88A4,
    "mrp": 0x88E3,
    "lldp": 0x88CC,
    "802_3": 0x0001,
    "ax25": 0x0002,
    "all": 0x0003,
    "802_2": 0x0004,
    "snap": 0x0005,
    "ddcmp": 0x0006,
    "wan_ppp": 0x0007,
    "ppp_mp": 0x0008,
    "localtalk": 0x0009,
    "can": 0x000C,
    "ppptalk": 0x0010,
    "tr_802_2": 0x0011,
    "mobitex": 0x0015,
    "control": 0x0016,
    "irda": 0x0017,
    "econet": 0x0018,
}
"""Ethertype by the name that tc prints."""

_NAMES = {number: name for name, number in PROTOCOLS.items()}
_NUMBERS = {name.lower(): number for name, number in PROTOCOLS.items()} | {"ipv4": 0x0800}

HOOKS = {"ingress": handle_of(0xFFFF, TC_H_MIN_INGRESS), "egress": handle_of(0xFFFF, TC_H_MIN_EGRESS)}
"""The filter parents of a clsact qdisc's hooks."""


def parse_qdisc_handle(word: str) -> int:
    """Return the handle of a qdisc: "1:", "1", "ffff:" or "none".

    Raises:  InputError.
    """
    if word == "none":
        return TC_H_UNSPEC
    major, _, rest = word.partition(":")
    number = _hex16(major)
    if number is None or rest:
        raise InputError(f"invalid qdisc ID {word!r}", hint='a hexadecimal number and a colon, as in "1:" or "ffff:"')
    return handle_of(number, 0)


def parse_classid(word: str) -> int:
    """Return the 32-bit handle of "1:10", ":10", "1:", "root" or "none".

    Raises:  InputError.
    """
    if word in ("root", "none"):
        return TC_H_ROOT if word == "root" else TC_H_UNSPEC
    major, colon, minor = word.partition(":")
    if not colon:
        try:
            number = int(word, 16)
        except ValueError:
            number = -1
        if 0 <= number <= 0xFFFFFFFF:
            return number
    high, low = _hex16(major or "0"), _hex16(minor or "0")
    if not colon or high is None or low is None:
        raise InputError(f"invalid class ID {word!r}", hint='two hexadecimal numbers, as in "1:10"')
    return handle_of(high, low)


def format_handle(handle: int) -> str:
    """Return a handle as tc prints it: "ffff:", "1:10", ":1", "root" or "none"."""
    if handle in (TC_H_ROOT, TC_H_UNSPEC):
        return "root" if handle == TC_H_ROOT else "none"
    major, minor = handle >> 16, handle & 0xFFFF
    if not major:
        return f":{minor:x}"
    return f"{major:x}:{minor:x}" if minor else f"{major:x}:"


def parse_protocol(word: str) -> int:
    """Return the ethertype of a name or number (decimal, 0x, 0 octal).

    Raises:  InputError.
    """
    number = _NUMBERS.get(word.lower())
    if number is None:
        number = _number(word)
    if number is None or not 0 <= number <= 0xFFFF:
        raise InputError(f"invalid protocol {word!r}", hint='a name such as "ip", "ipv6", "all" or an ethertype such as 0x86dd')
    return number


def format_protocol(number: int) -> str:
    """Return an ethertype as tc prints it: its name, or the decimal number in brackets."""
    return _NAMES.get(number, f"[{number}]")


def hook_of(parent: int) -> str:
    """Return "ingress" or "egress" for a clsact filter parent, or "" for another one."""
    if parent in (TC_H_CLSACT, handle_of(0xFFFF, 0)):
        return "ingress"
    return next((word for word, handle in HOOKS.items() if handle == parent), "")


def _hex16(digits: str) -> int | None:
    """Return the 16-bit number of hexadecimal `digits`, or None."""
    try:
        number = int(digits, 16)
    except ValueError:
        return None
    return number if 0 <= number <= 0xFFFF else None


def _number(word: str) -> int | None:
    """Return a C integer literal's value, or None."""
    try:
        return int(word, 8) if word.startswith("0") and word.isdigit() else int(word, 0)
    except ValueError:
        return None
