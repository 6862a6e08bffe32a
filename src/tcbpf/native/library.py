"""The runtime's shared library through ctypes: its structs, constants, functions and helpers."""

from __future__ import annotations

import ctypes
import os
from functools import cache

from tcbpf import cache as disk
from tcbpf.errors import NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

KIND, LIBRARY = "runtimes", "libtcbpf.so"
_NUMBERS: dict[int, Any] = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64}


class _Row(ctypes.Structure):
    """struct tcbpf_layout_row."""

    _fields_ = [
        ("structure", ctypes.c_char_p),
        ("field", ctypes.c_char_p),
        ("type", ctypes.c_char_p),
        ("offset", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("element", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    ]


class _Helper(ctypes.Structure):
    """struct tcbpf_helper."""

    _fields_ = [("name", ctypes.c_char_p), ("id", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("fn", ctypes.c_void_p)]


@cache
def _artifacts() -> str:
    """Return the directory of the runtime's files, building them if needed; cached by this package's identity."""
    name = disk.name_of(disk.identity())
    place, about = disk.load(KIND, name) or ("", b"")
    if about != _about(place):
        from tcbpf.native import build

        try:
            place = build.build()
        except build.BuildError as error:
            raise NotSupported(f"the runtime does not compile here: {error}") from error
        disk.store(KIND, name, (place, _about(place)))
    return place


def _about(place: str) -> bytes:
    return b"".join(disk.file_identity(os.path.join(place, file)) for file in ("stamp", LIBRARY))


@cache
def library() -> ctypes.CDLL:
    """Return the runtime's shared library, building it if needed.

    Raises:  NotSupported when it cannot be built here.
    """
    return ctypes.CDLL(os.path.join(_artifacts(), LIBRARY))


def bitcode() -> bytes:
    """Return the runtime's LLVM bitcode, building it if needed."""
    return _artifact("runtime.bc")


def stamp() -> bytes:
    """Return the hash of the sources that the runtime was built from."""
    return _artifact("stamp")


def _artifact(name: str) -> bytes:
    with open(os.path.join(_artifacts(), name), "rb") as file:
        return file.read()


@cache
def function(name: str, result: Any = ctypes.c_uint64, *arguments: Any) -> Callable[..., Any]:
    """Return the exported C function `name`, typed."""
    prototype = ctypes.CFUNCTYPE(result, *arguments)
    return prototype(address(name))


@cache
def constant(name: str) -> int:
    """Return the value of C's TCBPF_`name`.

    Raises:  ValueError when layout.c does not export it.
    """
    return ctypes.c_int64.in_dll(library(), f"tcbpf_constant_{name}").value


@cache
def address(symbol: str) -> int:
    """Return the address of an exported symbol.

    Raises:  AttributeError when the runtime has no such symbol.
    """
    return ctypes.cast(getattr(library(), symbol), ctypes.c_void_p).value or 0


@cache
def helpers() -> dict[str, int]:
    """Return the address of every helper that the runtime has, by its name in tables.helpers."""
    found: dict[str, int] = {}
    table = ctypes.cast(address("tcbpf_helpers"), ctypes.POINTER(_Helper))
    index = 0
    while table[index].id:
        found[table[index].name.decode()] = table[index].fn
        index += 1
    return found


def helper(name: str) -> int:
    """Return the address of a helper: u64 (struct tcbpf_env *, u64, u64, u64, u64, u64).

    Raises:  NotSupported when the runtime lacks it.
    """
    found = helpers().get(name)
    if found is None:
        raise NotSupported(f"the user datapath has no helper bpf_{name}")
    return found


def kfunc(name: str) -> int:
    """Return the address of a kernel function, which has a helper's signature.

    Raises:  NotSupported when the runtime lacks it.
    """
    try:
        return address(f"tcbpf_kfunc_{name}")
    except AttributeError:
        raise NotSupported(f"the user datapath has no kernel function {name}") from None


@cache
def _layout() -> dict[str, list[_Row]]:
    table = ctypes.cast(address("tcbpf_layout"), ctypes.POINTER(_Row))
    rows: dict[str, list[_Row]] = {}
    index = 0
    while table[index].structure:
        row = table[index]
        rows.setdefault(row.structure.decode(), []).append(row)
        index += 1
    return rows


@cache
def struct(name: str) -> type[Any]:
    """Return the ctypes structure of C's `struct name`; pointers are integers, padding has no name.

    Raises:  KeyError when the runtime has no such struct.
    """
    fields: list[tuple[str, Any]] = []
    at, size, align = 0, 0, 1
    for row in sorted(_layout()[name], key=lambda row: (row.offset, bool(row.field))):
        if not row.field:
            size = row.size
            continue
        if row.offset > at:
            fields.append((f"_{at}", ctypes.c_uint8 * (row.offset - at)))
        one: Any = struct(row.type.decode()) if row.type else _NUMBERS[row.element]
        align = max(align, ctypes.alignment(one))
        fields.append((row.field.decode(), one if row.size == row.element else one * (row.size // row.element)))
        at = row.offset + row.size
    if size > at:
        fields.append((f"_{at}", ctypes.c_uint8 * (size - at)))
    made = type(name, (ctypes.Structure,), {"_fields_": fields, "__doc__": f"struct {name}, as in C."})
    assert ctypes.sizeof(made) == size, f"{name}: {ctypes.sizeof(made)} bytes here, {size} in C"
    return made


def size_of(name: str) -> int:
    """Return the size in bytes of C's `struct name`."""
    return ctypes.sizeof(struct(name))


def offset_of(name: str, field: str) -> int:
    """Return the offset in bytes of a field of C's `struct name`."""
    return int(getattr(struct(name), field).offset)
