"""What a caller gives a run: a packet's bytes, a context's numbers, a count. Checked here, before native code sees them."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tcbpf.errors import InputError
from tcbpf.tables.skb import SKB, Field

CB_WORDS = 5
MAX_REPEAT = (1 << 32) - 1
TAGS = (0, 0x0081, 0xA888)
"""What vlan_proto may be: nothing, ETH_P_8021Q, ETH_P_8021AD; in network order."""


def packet_of(given: Any) -> bytes:
    """Return a packet's bytes.

    Raises:  InputError for everything that is not bytes, a bytearray or a memoryview.
    """
    if not isinstance(given, bytes | bytearray | memoryview):
        raise InputError(f"a packet is bytes, not {type(given).__name__}", hint="bytes.fromhex() reads hex digits")
    return bytes(given)


def repeat_of(given: Any) -> int:
    """Return how often to run: 0 counts as once, as it does for BPF_PROG_TEST_RUN.

    Raises:  InputError.
    """
    return max(1, _fit("repeat", given, MAX_REPEAT))


def numbers_of(ctx: Any, length: int) -> dict[str, int]:
    """Return a context's fields by the names of tables.skb, for a packet of `length` bytes: "cb" is five numbers.

    Raises:  InputError for a field that does not exist or that nobody gives, a number that is none or does not fit, and one
             that no packet has: a wire_len shorter than the packet, a tag that is no VLAN's.
    """
    if ctx is None:
        return {}
    if not isinstance(ctx, Mapping):
        raise InputError(f"a context is a mapping of names to numbers, not {type(ctx).__name__}")
    numbers = {row.name: _fit(row.name, value, limit(row)) for row, value in _rows(ctx)}
    if numbers.get("wire_len") == 0:  # as without one: the packet's own
        del numbers["wire_len"]
    if numbers.get("wire_len", length) < length:
        raise InputError(f"wire_len {numbers['wire_len']} of a packet of {length} bytes", hint="it is at least as long")
    if numbers.get("vlan_proto", 0) not in TAGS:
        raise InputError(f"vlan_proto {numbers['vlan_proto']:#x}", hint="0x0081 or 0xa888, as the bytes lie")
    return numbers


def limit(row: Field) -> int:
    """Return the largest number that a caller may give a field."""
    _, size = row.native if row.native != (0, 0) else (0, row.size)
    return row.most or (1 << 8 * size) - 1


def names() -> list[str]:
    """Return the fields that a caller may give."""
    return [*(row.name for row in SKB if _is_given(row) and not row.name.startswith("cb[")), "cb"]


def _is_given(row: Field) -> bool:
    return not row.pointer and not row.fixed


def _rows(ctx: Mapping[Any, Any]) -> Iterator[tuple[Field, Any]]:
    """Yield each field's row with what was given for it."""
    for name, value in ctx.items():
        if name == "cb":
            if isinstance(value, str | bytes) or not isinstance(value, Sequence) or len(value) != CB_WORDS:
                raise InputError(f"cb is {CB_WORDS} numbers, not {value!r}")
            yield from ((SKB[f"cb[{i}]"], word) for i, word in enumerate(value))
            continue
        row = SKB.get(name) if isinstance(name, str) else None
        if row is None or not _is_given(row):
            why = "is the packet's" if row is not None and row.fixed else "is none that a number sets"
            raise InputError(f"context field {name!r} {why}", hint=", ".join(names()))
        yield row, value


def _fit(name: str, value: Any, most: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} is a whole number, not {value!r}") from None
    if not 0 <= number <= most:
        raise InputError(f"{name} is 0 to {most}; {number} does not fit")
    return number
