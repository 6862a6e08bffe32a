"""The words of an action as numbers, both ways: how it ends ("drop", "goto chain 3", "jump 2"), and its hardware counters.

Source:  include/uapi/linux/pkt_cls.h; the words are tc(8)'s, and those of the UAPI's names.
"""

from __future__ import annotations

from tcbpf.errors import InputError
from tcbpf.tables.actions import ACTIONS, GOTO_CHAIN, JUMP, VALUE_MASK

_WITH_NUMBER = {"goto chain": GOTO_CHAIN, "jump": JUMP}
_CODES = {word: row.number for row in ACTIONS for word in (row.name, row.tc)}
_WORDS = {row.number: row.tc for row in ACTIONS}
HW_STATS = {"immediate": 1, "delayed": 2, "disabled": 0}  # TCA_ACT_HW_STATS_*


def control_code(word: str) -> int:
    """Return the code of a control word.

    Raises:  InputError.
    """
    name, _, digits = word.rpartition(" ")
    if name in _WITH_NUMBER:
        if not (digits.isascii() and digits.isdigit()) or int(digits) > VALUE_MASK:
            raise InputError(f"{name} {digits!r}", where="action control", hint=f"a number up to {VALUE_MASK}")
        return _WITH_NUMBER[name] | int(digits)
    if word not in _CODES:
        allowed = ", ".join([*dict.fromkeys(_WORDS.values()), *(f"{name} N" for name in _WITH_NUMBER)])
        raise InputError(f"unknown word {word!r}", where="action control", hint=allowed)
    return _CODES[word]


def control_word(code: int) -> str:
    """Return tc's control word of a code, or the number in brackets for one that has none."""
    for name, bits in _WITH_NUMBER.items():
        if code & ~VALUE_MASK == bits:
            return f"{name} {code & VALUE_MASK}"
    return _WORDS.get(code, f"[{code}]")


def hw_stats_bits(word: str) -> int:
    """Return the bits of an action's hw_stats word.

    Raises:  InputError.
    """
    if word not in HW_STATS:
        raise InputError(f"unknown word {word!r}", where="action hw_stats", hint=", ".join(HW_STATS))
    return HW_STATS[word]
