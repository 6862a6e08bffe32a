"""Classic filters out of C: arrays of `{ code, jt, jf, k }`, and of BPF_STMT() and BPF_JUMP() with the kernel's names.

Source:  include/uapi/linux/filter.h, for the two macros.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tcbpf.errors import InputError
from tcbpf.uapi import filter as names
from tcbpf.uapi import packet as more_names

_ROW = re.compile(r"(?P<macro>BPF_STMT|BPF_JUMP)\s*\((?P<args>(?:[^()]|\([^()]*\))*)\)|\{(?P<fields>[^{}()]*)\}")
_CAST = re.compile(r"\(\s*(?:__u32|u_int\w*|uint\w*|unsigned(?:\s+\w+)?|int)\s*\)")
_TERM = re.compile(r"\s*(?P<sign>[-+|]?)\s*(?P<term>\w+)\s*")
_SUFFIX = re.compile(r"(?i)(?<=[0-9a-f])u?l{0,2}$")


def is_array(text: str) -> bool:
    """Tell whether `text` is C rather than numbers."""
    return "{" in text or "BPF_STMT" in text or "BPF_JUMP" in text


def rows(text: str, path: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield code, jt, jf and k of each instruction; `text` has no comments.

    Raises:  InputError that names the bad row.
    """
    for n, match in enumerate(_ROW.finditer(text)):
        fields = [field for field in _CAST.sub("", match["args"] or match["fields"] or "").split(",") if field.strip()]
        if len(fields) != (2 if match["macro"] == "BPF_STMT" else 4):
            raise InputError(
                f"Error at instruction {n}!",
                where=path,
                hint="{ code, jt, jf, k }, BPF_STMT(code, k), BPF_JUMP(code, k, jt, jf)",
            )
        code, *rest = (_value(field, n, path) for field in fields)
        match match["macro"]:
            case "BPF_STMT":
                yield code, 0, 0, rest[0]
            case "BPF_JUMP":
                yield code, rest[1], rest[2], rest[0]
            case _:
                yield code, rest[0], rest[1], rest[2]


def _value(text: str, n: int, path: str) -> int:
    """Return the value of numbers and names that are added."""
    total, at, text = 0, 0, text.replace("(", " ").replace(")", " ")
    while at < len(text):
        term = _TERM.match(text, at)
        if term is None or (at and not term["sign"]):
            raise InputError(f"Error at instruction {n}!", where=path, hint=f"{text.strip()!r} is no sum of numbers and names")
        value = _number(term["term"], n, path)
        total = total | value if term["sign"] == "|" else total - value if term["sign"] == "-" else total + value
        at = term.end()
    return total


def _number(word: str, n: int, path: str) -> int:
    value = getattr(names, word, getattr(more_names, word, None))
    if isinstance(value, int):
        return value
    digits = _SUFFIX.sub("", word)
    try:
        return int(digits, 8 if digits.isdigit() and digits[0] == "0" else 0)
    except ValueError:
        raise InputError(
            f"Error at instruction {n}!",
            where=path,
            hint=f"{word!r} is neither a number nor a name of linux/filter.h or linux/if_ether.h",
        ) from None
