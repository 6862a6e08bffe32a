"""BTF, the type information of BPF objects: look types up, measure and name them.

Source:  Documentation/bpf/btf.rst; include/uapi/linux/btf.h.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from tcbpf.errors import ObjectError

MAGIC = 0xEB9F
POINTER_SIZE = 8
MAX_DEPTH = 64  # of modifiers, typedefs and nested arrays: more is a cycle
MAX_SIZE = 1 << 31
STATIC, GLOBAL, EXTERN = 0, 1, 2  # linkage of functions and variables


class Kind(IntEnum):
    """Kinds of types: BTF_KIND_*."""

    VOID, INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(12)
    FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)


MODIFIERS = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})


@dataclass(frozen=True, slots=True)
class Member:
    """A part of a type: a struct's member, an enumerator, a parameter or a section's variable.

    Units:   offset and bits in bits for struct members (bits 0: not a bit-field); in bytes for a section's variables,
             where `value` is the size. `value` is the number of an enumerator.
    """

    name: str
    type: int = 0
    offset: int = 0
    bits: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True)
class Type:
    """One type.

    Units:   size in bytes. type is the id referred to (pointee, element, return type, aliased type, ...), 0 for void.
             nelems is an array's. linkage is a function's or variable's; encoding an integer's (1 signed, 2 char).
    """

    id: int
    kind: Kind
    name: str
    size: int = 0
    type: int = 0
    index_type: int = 0
    nelems: int = 0
    encoding: int = 0
    bits: int = 0
    bit_offset: int = 0
    linkage: int = 0
    flag: bool = False
    members: tuple[Member, ...] = ()
    start: int = 0  # of its record, in bytes from the start of the blob
    component: int = -1  # of a declaration tag: the member or parameter, -1 for the whole

    @property
    def signed(self) -> bool:
        """True for a signed integer or enumeration."""
        return self.flag if self.kind in (Kind.ENUM, Kind.ENUM64) else self.encoding & 1 != 0


VOID = Type(0, Kind.VOID, "void")


def text_at(raw: bytes, start: int, size: int, offset: int) -> str:
    """Return the string at `offset` of a string section, which is `size` bytes from `start` on.

    Raises:  ObjectError when the section has no such offset.
    """
    if offset >= size and offset:
        raise ObjectError(f"string at {offset:#x} of {size:#x}", section=".BTF", offset=start)
    end = raw.find(b"\0", start + offset, start + size)
    return raw[start + offset : end if end >= 0 else start + size].decode("utf-8", "backslashreplace")


class Btf:
    """A blob of BTF and the types it holds, by id; id 0 is void."""

    def __init__(self, raw: bytes, types: Sequence[Type], strings: tuple[int, int]) -> None:
        self.raw, self.types, self._strings = raw, types, strings

    def __len__(self) -> int:
        return len(self.types)

    def __getitem__(self, id: int) -> Type:
        """Return the type of that id.

        Raises:  ObjectError when there is none.
        """
        if not 0 <= id < len(self.types):
            raise ObjectError(f"type id {id} of {len(self.types)}", section=".BTF")
        return self.types[id]

    def string(self, offset: int) -> str:
        """Return the string at `offset` of the string section."""
        start, size = self._strings
        return text_at(self.raw, start, size, offset)

    @cached_property
    def _offsets(self) -> dict[str, int]:
        start, size = self._strings
        found: dict[str, int] = {}
        at = 0
        for text in self.raw[start : start + size].split(b"\0"):
            found.setdefault(text.decode("utf-8", "backslashreplace"), at)
            at += len(text) + 1
        return found

    def offset_of(self, text: str) -> int:
        """Return where the string section holds `text`, or 0 (the empty string)."""
        return self._offsets.get(text, 0)

    def named(self, name: str) -> Iterator[Type]:
        """Yield every type of that name."""
        return iter(self._by_name.get(name, ()))

    @cached_property
    def _by_name(self) -> dict[str, tuple[Type, ...]]:
        found: dict[str, tuple[Type, ...]] = {}
        for row in self.types:
            if row.name:
                found[row.name] = (*found.get(row.name, ()), row)
        return found

    def find(self, name: str, *kinds: Kind) -> Type | None:
        """Return the first type of that name (and of one of `kinds`), or None."""
        return next((row for row in self.named(name) if not kinds or row.kind in kinds), None)

    def decl_tags(self, id: int) -> Sequence[tuple[int, str]]:
        """Return the declaration tags on a type, each with the member or parameter it is on, -1 for the type itself."""
        return self._decl_tags.get(id, ())

    @cached_property
    def _decl_tags(self) -> dict[int, list[tuple[int, str]]]:
        found: dict[int, list[tuple[int, str]]] = {}
        for row in self.types:
            if row.kind is Kind.DECL_TAG:
                found.setdefault(row.type, []).append((row.component, row.name))
        return found

    def resolve(self, id: int) -> Type:
        """Return the type behind typedefs and qualifiers.

        Raises:  ObjectError for a cycle.
        """
        row = self[id]
        for _ in range(MAX_DEPTH):
            if row.kind not in MODIFIERS:
                return row
            row = self[row.type]
        raise ObjectError(f"type id {id} is a cycle", section=".BTF")

    def sizeof(self, id: int) -> int:
        """Return the size of a type in bytes.

        Raises:  ObjectError when it has none (void, a function, an incomplete type).
        """
        count = 1
        for _ in range(MAX_DEPTH):
            row = self.resolve(id)
            if row.kind == Kind.ARRAY:
                count, id = count * row.nelems, row.type
                continue
            size = POINTER_SIZE if row.kind == Kind.PTR else row.size
            if row.kind == Kind.VAR:
                id = row.type
                continue
            if row.kind in (Kind.VOID, Kind.FWD, Kind.FUNC, Kind.FUNC_PROTO):
                raise ObjectError(f"{self.name(id)} has no size", section=".BTF")
            if count * size >= MAX_SIZE:
                raise ObjectError(f"{self.name(id)} is too large", section=".BTF")
            return count * size
        raise ObjectError(f"type id {id} is a cycle", section=".BTF")

    def name(self, id: int) -> str:
        """Return how C spells a type: "struct key *", "__u8[4]"."""
        after = ""
        for _ in range(MAX_DEPTH):
            row = self[id]
            if row.kind == Kind.PTR:
                after, id = "*" + after, row.type
            elif row.kind == Kind.ARRAY:
                after, id = after + f"[{row.nelems}]", row.type
            elif row.kind in (Kind.CONST, Kind.VOLATILE):
                after, id = (after if not after else f" {row.kind.name.lower()}{after}"), row.type
            elif row.kind in (Kind.RESTRICT, Kind.TYPE_TAG):
                id = row.type
            else:
                word = {
                    Kind.STRUCT: "struct ",
                    Kind.UNION: "union ",
                    Kind.ENUM: "enum ",
                    Kind.ENUM64: "enum ",
                    Kind.FWD: "struct ",
                }
                text = word.get(row.kind, "") + (row.name or "(anonymous)")
                return text + (" " if after.startswith("*") else "") + after
        raise ObjectError(f"type id {id} is a cycle", section=".BTF")
