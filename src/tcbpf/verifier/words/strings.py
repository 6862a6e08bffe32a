"""Format strings that are known when the program is checked: the arguments of bpf_snprintf().

Source:  bpf_bprintf_prepare(), kernel/bpf/helpers.c (v6.18).
"""

from __future__ import annotations

import re
from typing import Final

_PUNCTUATION: Final = r"""[!-/:-@\[-`{-~]"""
_SPECIFIER: Final = re.compile(
    r"[0+\- ]*(?:[1-9][0-9]*)?(?:"
    rf"p(?:[ku]s(?=\s|{_PUNCTUATION}|$)|[KxsS]|B|[iI][46]|(?=\s|{_PUNCTUATION}|$))"
    rf"|s(?=\s|{_PUNCTUATION}|$)|c|l?l?[iduxX])",
    re.ASCII,
)
_TEXT: Final = re.compile(r"[\t-\r -~]*")


def is_valid_format(text: bytes, arguments: int) -> bool:
    """Tell whether the kernel takes a format (without its NUL) for so many arguments: each "%" needs one; more may be left."""
    line = text.decode("latin-1")
    if _TEXT.fullmatch(line) is None:
        return False
    at = used = 0
    while (at := line.find("%", at)) >= 0:
        if line.startswith("%%", at):
            at += 2
            continue
        found = _SPECIFIER.match(line, at + 1)
        if found is None or used >= arguments:
            return False
        used, at = used + 1, found.end()
    return True
