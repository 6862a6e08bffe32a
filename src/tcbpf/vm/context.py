"""Where a context field lies in struct tcbpf_skb: what the machine code and the interpreter both go by."""

from __future__ import annotations

from tcbpf.tables.skb import Field


def place(field: Field, off: int, size: int) -> tuple[int, int]:
    """Return where in struct tcbpf_skb an access of `size` bytes at `off` goes, and how many bytes it has there.

    A packet pointer is eight bytes, whatever the author's four; a field that is narrower inside has no upper bytes: they read
    as zero and are not stored. A read of part of a field gives as much as the kernel has of it, from wherever it starts, when
    that is no more than was asked for: the kernel then shifts nothing (convert_ctx_accesses()).
    """
    where, have = field.native if field.native != (0, 0) else (field.off, field.size)
    inside = off - field.off
    if field.pointer and have == 8:
        return where, 8
    if field.have and field.have <= size < field.size:
        return where, field.have
    if have < field.size:
        return where + inside, min(size, max(have - inside, 0))
    return where + inside, size
