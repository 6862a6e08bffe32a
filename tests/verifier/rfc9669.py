"""What instructions give, told a second time in Python's arithmetic from the text of RFC 9669, by name; not from the
rows.
"""

from __future__ import annotations

from tcbpf.tables.insns import Alu, End, Jump


def result(row: Alu | End, width: int, x: int, y: int) -> int:
    """Return dst after the operation on dst = x and src = y, 64 bits each (4.1, 4.2)."""
    if isinstance(row, End):
        low = x & (1 << row.bits) - 1
        return low if row.name.startswith("LE") else int.from_bytes(low.to_bytes(row.bits // 8, "little"), "big")
    keep, sign = (1 << width) - 1, 1 << (width - 1)
    x, y = x & keep, y & keep
    signed_x, signed_y = (x ^ sign) - sign, (y ^ sign) - sign
    by = y & width - 1
    quotient = 0
    if signed_y:  # towards zero
        quotient = abs(signed_x) // abs(signed_y) * (1 if (signed_x < 0) == (signed_y < 0) else -1)
    gives = {
        "ADD": x + y,
        "SUB": x - y,
        "MUL": x * y,
        "DIV": x // y if y else 0,
        "MOD": x % y if y else x,
        "SDIV": quotient,
        "SMOD": signed_x - quotient * signed_y,
        "OR": x | y,
        "AND": x & y,
        "XOR": x ^ y,
        "LSH": x << by,
        "RSH": x >> by,
        "ARSH": signed_x >> by,
        "NEG": -x,
        "MOV": y,
    }
    if row.name in gives:
        return gives[row.name] & keep
    bits = {"MOVSX8": 8, "MOVSX16": 16, "MOVSX32": 32}[row.name]
    return ((y & (1 << bits) - 1 ^ 1 << bits - 1) - (1 << bits - 1)) & keep


def holds(row: Jump, width: int, x: int, y: int) -> bool:
    """Say whether the jump is taken for dst = x and src = y (4.3)."""
    keep, sign = (1 << width) - 1, 1 << (width - 1)
    x, y = x & keep, y & keep
    if row.name.startswith("JS") and row.name != "JSET":
        x, y = (x ^ sign) - sign, (y ^ sign) - sign
    return {
        "EQ": x == y,
        "NE": x != y,
        "ET": x & y != 0,
        "GT": x > y,
        "GE": x >= y,
        "LT": x < y,
        "LE": x <= y,
    }[row.name[-2:]]
