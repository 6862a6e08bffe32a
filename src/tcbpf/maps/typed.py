"""Keys and values of maps as Python values, by their BTF type, both ways.

An integer is an int, an enumerator its name, a structure a dict, an array a list, characters a str. What the type or the
field's name says is an address is its text: `__be32 saddr` is "10.0.0.1", `struct in6_addr` "fe80::1", `__u8 h_dest[6]`
"aa:bb:cc:dd:ee:ff". Other network-order numbers (`__be16 port`) are ints in host order. Without BTF, 1, 2, 4 and 8 bytes are
an int and other sizes hexadecimal digits. Going in, an address's text is taken for any integer or bytes of its size, and
`bytes` of the right length for anything.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tcbpf.errors import InputError, ObjectError
from tcbpf.obj.btf import MODIFIERS, Btf, Kind, Member, Type

_ADDRESS = re.compile(
    r"addr|(^|_)(v?ip[46]?|ipv[46]|src|dst|source|dest|host|gateway|resolver|server|client|peer|remote|local|nh)(_|$|\d)", re.I
)
_MAC = re.compile(r"mac|h_dest|h_source|eth|lladdr|hw", re.I)
_BIG = {"__be16", "__be32", "__be64", "__sum16"}
_FLOATS = {4: "<f", 8: "<d"}


@dataclass(frozen=True, slots=True)
class Shape:
    """One type, as a key or value of a map: `id` of `btf`, or only a size when there is no BTF.

    Units:   size in bytes.
    """

    size: int
    btf: Btf | None = None
    id: int = 0
    name: str = ""  # of the field, or empty for a whole key or value

    def decode(self, data: bytes) -> Any:
        """Return the Python value of `data`."""
        return decode(self.btf, self.id, data, self.name) if self.btf else _plain(data)

    def encode(self, value: Any, where: str, base: bytes = b"") -> bytes:
        """Return the bytes of a Python value; a structure's unnamed members are `base`'s, or zero.

        Raises:  InputError that says what was expected.
        """
        if isinstance(value, (bytes, bytearray, memoryview)):
            raw = bytes(value)
            if len(raw) != self.size:
                raise InputError(f"{len(raw)} bytes", where=where, hint=f"it has {self.size}")
            return raw
        if self.btf is None:
            return _plain_bytes(value, self.size, where)
        out = bytearray(base or bytes(self.size))
        _put(self.btf, self.id, value, out, 0, self.name, where)
        return bytes(out)


# --- out ---------------------------------------------------------------------------------------------------------------


def decode(btf: Btf, id: int, data: bytes, name: str = "") -> Any:
    """Return the Python value of `data`, which is of type `id`; `name` is the field's, for addresses."""
    alias, row = _unalias(btf, id)
    if row.kind in (Kind.INT, Kind.PTR, Kind.FLOAT):
        return _number(row, alias, data, name)
    if row.kind in (Kind.ENUM, Kind.ENUM64):
        number, mask = int.from_bytes(data[: row.size], "little", signed=row.signed), (1 << row.size * 8) - 1
        return next((m.name for m in row.members if m.value & mask == number & mask), number)
    if row.kind == Kind.ARRAY:
        return _array(btf, row, data, name)
    if row.kind in (Kind.STRUCT, Kind.UNION):
        if address := _address_size(btf, row):
            return _ip(data[:address])
        return dict(_members(btf, row, data))
    if row.kind == Kind.DATASEC:
        return {m.name: decode(btf, btf[m.type].type, data[m.offset : m.offset + m.value], m.name) for m in row.members}
    return data.hex()


def _unalias(btf: Btf, id: int) -> tuple[str, Type]:
    """Return the name of the outermost network-order typedef on the way (or ""), and the type behind all of them."""
    alias = ""
    row = btf.resolve(id)  # refuses a cycle, so that the loop below ends
    step = btf[id]
    while step.kind in MODIFIERS:
        if step.kind == Kind.TYPEDEF and step.name in _BIG:
            alias = step.name
        step = btf[step.type]
    return alias, row


def _number(row: Type, alias: str, data: bytes, name: str) -> Any:
    size = row.size or 8
    raw = data[:size]
    if row.kind == Kind.FLOAT:
        return struct.unpack(_FLOATS[size], raw)[0] if size in _FLOATS else raw.hex()
    if alias == "__be32" and _says_address(name):
        return _ip(raw)
    value = int.from_bytes(raw, "big" if alias else "little", signed=row.signed and not alias)
    return bool(value) if row.encoding & 4 and value < 2 else value


def _says_address(name: str) -> bool:
    """Return whether a network-order word of that name is an address: it is the whole key or value, or its name says so."""
    return not name or _ADDRESS.search(name) is not None


def _array(btf: Btf, row: Type, data: bytes, name: str) -> Any:
    alias, element = _unalias(btf, row.type)
    size = btf.sizeof(row.type)
    if element.kind == Kind.INT and element.size == 1 and (element.name == "char" or element.encoding & 2):
        text, _, rest = data[: row.nelems].partition(b"\0")
        if not rest.strip(b"\0") and text.isascii():
            return text.decode()
    if form := _address_form(element, alias, row.nelems * size, name):
        return _mac(data) if form == "mac" else _ip(data[: row.nelems * size])
    return [decode(btf, row.type, data[i * size : (i + 1) * size], name) for i in range(row.nelems)]


def _address_form(element: Type, alias: str, size: int, name: str) -> str:
    """Return "mac" or "ip" for an array that its size and its field's name make an address, or ""."""
    if element.kind != Kind.INT or element.size not in (1, 4) or not name:
        return ""
    if size == 6 and element.size == 1 and (_MAC.search(name) or _ADDRESS.search(name)):
        return "mac"
    return "ip" if size in (4, 16) and (element.size == 1 or size == 16) and _ADDRESS.search(name) else ""


def _address_size(btf: Btf, row: Type) -> int:
    """Return the size of the address that a structure is (struct in_addr, struct in6_addr), or 0."""
    return {"in6_addr": 16, "in_addr": 4}.get(row.name, 0) if row.size in (4, 16) else 0


def _members(btf: Btf, row: Type, data: bytes) -> list[tuple[str, Any]]:
    """Return (name, value) of each member; those of an anonymous member stand in its place."""
    found: list[tuple[str, Any]] = []
    for m in row.members:
        if bits := _bits(btf, m):
            offset, width, signed = bits
            value = int.from_bytes(data, "little") >> offset & (1 << width) - 1
            found.append((m.name, value - (1 << width) if signed and value >> width - 1 else value))
            continue
        part = data[m.offset // 8 : m.offset // 8 + btf.sizeof(m.type)]
        inner = btf.resolve(m.type)
        if not m.name and inner.kind in (Kind.STRUCT, Kind.UNION):
            found.extend(_members(btf, inner, part))
        else:
            found.append((m.name, decode(btf, m.type, part, m.name)))
    return found


def _bits(btf: Btf, m: Member) -> tuple[int, int, bool] | None:
    """Return (offset, width, signed) of a bit-field, in bits, or None for any other member."""
    row = btf.resolve(m.type)
    if m.bits:
        return m.offset, m.bits, row.signed
    if row.kind == Kind.INT and (row.bits != row.size * 8 or row.bit_offset or m.offset % 8):
        return m.offset + row.bit_offset, row.bits, row.signed
    return None


def _ip(raw: bytes) -> str:
    return str(ipaddress.ip_address(raw))


def _mac(raw: bytes) -> str:
    return raw[:6].hex(":")


def _plain(data: bytes) -> Any:
    return int.from_bytes(data, "little") if len(data) in (1, 2, 4, 8) else data.hex()


# --- in ----------------------------------------------------------------------------------------------------------------


def address_bytes(text: str, size: int) -> bytes | None:
    """Return the bytes of an IPv4, IPv6 or hardware address's text, or None when it is none of that size."""
    if size == 6 and re.fullmatch(r"[0-9a-fA-F]{1,2}([:-][0-9a-fA-F]{1,2}){5}", text):
        return bytes(int(part, 16) for part in re.split("[:-]", text))
    try:
        packed = ipaddress.ip_address(text).packed
    except ValueError:
        return None
    return packed if len(packed) == size else None


def _whole(value: Any) -> int | None:
    """Return the number that an int, a bool or a number's text means, or None."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        try:
            return int(value, 0)
        except ValueError:
            return None
    return None


def _integer(value: Any, size: int, order: str, where: str, expected: str) -> bytes:
    """Return a number, signed or not, in `size` bytes; an address's text of that size as it stands on the wire."""
    if isinstance(value, str) and (raw := address_bytes(value, size)) is not None:
        return raw
    number = _whole(value)
    if number is None:
        raise InputError(f"{value!r} is not {expected}", where=where)
    if not -(1 << size * 8 - 1) <= number < 1 << size * 8:
        raise InputError(f"{number} does not fit into {size} bytes", where=where)
    return (number & (1 << size * 8) - 1).to_bytes(size, "big" if order == "big" else "little")


def _plain_bytes(value: Any, size: int, where: str) -> bytes:
    if isinstance(value, str):
        if (raw := address_bytes(value, size)) is not None:
            return raw
        digits = re.sub(r"[\s:]|0x", "", value)
        if (size not in (1, 2, 4, 8) or " " in value.strip()) and re.fullmatch(f"[0-9a-fA-F]{{{2 * size}}}", digits):
            return bytes.fromhex(digits)
    if size in (1, 2, 4, 8) or isinstance(value, int):
        return _integer(value, size, "little", where, f"an integer of {size} bytes")
    raise InputError(f"{value!r} is not {size} bytes", where=where, hint=f"{2 * size} hexadecimal digits: no BTF says more")


def _put(btf: Btf, id: int, value: Any, out: bytearray, at: int, name: str, where: str) -> None:
    """Write `value` as type `id` into out[at:]."""
    alias, row = _unalias(btf, id)
    if isinstance(value, (bytes, bytearray)) and row.kind != Kind.DATASEC:
        _put_raw(bytes(value), btf.sizeof(id), out, at, where)
    elif row.kind in (Kind.STRUCT, Kind.UNION):
        _put_struct(btf, row, value, out, at, where)
    elif row.kind == Kind.DATASEC:
        _put_section(btf, row, value, out, where)
    elif row.kind == Kind.ARRAY:
        _put_array(btf, row, value, out, at, name, where)
    elif row.kind in (Kind.ENUM, Kind.ENUM64):
        known = {m.name: m.value for m in row.members}
        number = known.get(value, value) if isinstance(value, str) else value
        expected = "one of " + ", ".join(list(known)[:8])
        out[at : at + row.size] = _integer(number, row.size, "little", where, expected)
    elif row.kind == Kind.FLOAT and row.size in _FLOATS:
        out[at : at + row.size] = struct.pack(_FLOATS[row.size], float(value))
    elif row.kind in (Kind.INT, Kind.PTR):
        size = row.size or 8
        expected = "an address" if alias == "__be32" and _says_address(name) else f"an integer ({btf.name(id)})"
        out[at : at + size] = _integer(value, size, "big" if alias else "little", where, expected)
    else:
        raise InputError(f"{btf.name(id)} cannot be written", where=where)


def _put_raw(raw: bytes, size: int, out: bytearray, at: int, where: str) -> None:
    if len(raw) != size:
        raise InputError(f"{len(raw)} bytes", where=where, hint=f"it has {size}")
    out[at : at + size] = raw


def _put_array(btf: Btf, row: Type, value: Any, out: bytearray, at: int, name: str, where: str) -> None:
    element, size = btf.resolve(row.type), btf.sizeof(row.type)
    if isinstance(value, str):
        if (raw := address_bytes(value, row.nelems * size)) is not None and element.name != "char":
            out[at : at + len(raw)] = raw
            return
        raw = value.encode()
        if size != 1 or len(raw) > row.nelems:
            raise InputError(f"{value!r} is not {btf.name(row.id)}", where=where)
        out[at : at + row.nelems] = raw.ljust(row.nelems, b"\0")
        return
    if not isinstance(value, Sequence) or len(value) > row.nelems:
        raise InputError(f"{value!r} is not a list of up to {row.nelems}", where=where)
    for i, one in enumerate(value):
        _put(btf, row.type, one, out, at + i * size, name, f"{where}[{i}]")


def _put_struct(btf: Btf, row: Type, value: Any, out: bytearray, at: int, where: str) -> None:
    size = _address_size(btf, row)
    if size and isinstance(value, str):
        raw = address_bytes(value, size)
        if raw is None:
            raise InputError(f"{value!r} is not an IPv{4 if size == 4 else 6} address", where=where)
        out[at : at + size] = raw
        return
    places = _places(btf, row)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = dict(zip(places, value, strict=False)) if len(value) <= len(places) else value
    if isinstance(value, str) and len(row.members) == 1 and row.members[0].name:
        value = {row.members[0].name: value}
    if not isinstance(value, Mapping):
        raise InputError(f"{value!r} is not {btf.name(row.id)}", where=where, hint="a dict with " + ", ".join(places))
    for name, one in value.items():
        if name not in places:
            raise InputError(f"{btf.name(row.id)} has no {name!r}", where=where, hint="it has " + ", ".join(places))
        base, m = places[name]
        if bits := _bits(btf, m):
            _put_bits(out, (at + base) * 8 + bits[0], bits[1], one, f"{where}.{name}")
        else:
            _put(btf, m.type, one, out, at + base + m.offset // 8, name, f"{where}.{name}")


def _places(btf: Btf, row: Type, base: int = 0) -> dict[str, tuple[int, Member]]:
    """Return each member by name with the offset in bytes of the structure it is in; anonymous members stand open."""
    found: dict[str, tuple[int, Member]] = {}
    for m in row.members:
        inner = btf.resolve(m.type)
        if not m.name and inner.kind in (Kind.STRUCT, Kind.UNION):
            found |= _places(btf, inner, base + m.offset // 8)
        elif m.name:
            found[m.name] = (base, m)
    return found


def _put_bits(out: bytearray, offset: int, width: int, value: Any, where: str) -> None:
    number = _whole(value)
    if number is None or not -(1 << width - 1) <= number < 1 << width:
        raise InputError(f"{value!r} does not fit into {width} bits", where=where)
    mask = (1 << width) - 1
    whole = int.from_bytes(out, "little") & ~(mask << offset) | (number & mask) << offset
    out[:] = whole.to_bytes(len(out), "little")


def _put_section(btf: Btf, row: Type, value: Any, out: bytearray, where: str) -> None:
    names = {m.name: m for m in row.members}
    if not isinstance(value, Mapping) or not names.keys() >= value.keys():
        raise InputError(f"{value!r} does not name its variables", where=where, hint="a dict of " + ", ".join(names))
    for name, one in value.items():
        _put(btf, btf[names[name].type].type, one, out, names[name].offset, name, f"{where}.{name}")


def shape_of(btf: Btf | None, id: int, size: int) -> Shape:
    """Return the shape of a map's key or value; BTF of another size than the map's is not believed."""
    if btf is None or not id:
        return Shape(size)
    try:
        return Shape(size, btf, id) if btf.sizeof(id) == size else Shape(size)
    except ObjectError:
        return Shape(size)
