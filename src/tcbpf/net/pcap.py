"""Read and write pcap and pcapng files, packet by packet.

The runtime's packet loop reads captures at full speed; this module serves tools, tests and small captures, and its errors name
the packet and the offset.

Source:  draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from tcbpf.errors import InputError
from tcbpf.files import NewFile

LINKTYPE_ETHERNET = 1
LINK_TYPES = {
    0: "BSD loopback",
    1: "Ethernet",
    9: "PPP",
    101: "raw IP",
    105: "IEEE 802.11",
    108: "OpenBSD loopback",
    113: "Linux cooked",
    127: "802.11 radiotap",
    195: "IEEE 802.15.4",
    228: "raw IPv4",
    229: "raw IPv6",
    276: "Linux cooked v2",
}

PCAP_US, PCAP_NS = 0xA1B2C3D4, 0xA1B23C4D
SHB, IDB, OPB, SPB, EPB = 0x0A0D0D0A, 1, 2, 3, 6  # pcapng block types
BYTE_ORDER_MAGIC = 0x1A2B3C4D
OPT_IF_NAME, OPT_TSRESOL, OPT_TSOFFSET, OPT_EPB_FLAGS = 2, 9, 14, 2
MAX_CAPLEN = 0x40000  # 256 KiB, as tcpdump; more is a damaged length
MAX_BLOCK = 4 * MAX_CAPLEN


@dataclass(frozen=True, slots=True)
class Packet:
    """One captured packet.

    Units:   ts_ns nanoseconds since the epoch; wire_len bytes on the wire, len(data) of which were captured;
             interface counts the file's interface descriptions from 0; number counts the file's packets from 1;
             direction "", "in" or "out".
    """

    data: bytes
    ts_ns: int = 0
    wire_len: int = 0
    link_type: int = LINKTYPE_ETHERNET
    interface: int = 0
    number: int = 0
    direction: str = ""


@dataclass(slots=True)
class Interface:
    """An interface description of a pcapng section. Units: offset in seconds, added to each time stamp."""

    link_type: int = LINKTYPE_ETHERNET
    snaplen: int = 0
    ticks: int = 1_000_000
    offset: int = 0
    name: str = ""


def read(path: str | os.PathLike[str], *, link_type: int | None = LINKTYPE_ETHERNET) -> Iterator[Packet]:
    """Yield the packets of a pcap or pcapng file, all of `link_type` (None: any).

    Raises:  InputError naming the packet and the offset for a file that is cut short or damaged, or of another link
             type.
    """
    with open(path, "rb") as file:
        source = _Source(file, os.fspath(path))
        magic = source.take(4, "file header")
        if magic == b"\x0a\x0d\x0d\x0a":
            packets = _read_pcapng(source)
        elif (order := _pcap_order(magic)) is not None:
            packets = _read_pcap(source, *order)
        else:
            raise source.wrong(0, f"is not a capture: it starts with {magic.hex()}", "a pcap or pcapng file is needed")
        for packet in packets:
            if link_type is not None and packet.link_type != link_type:
                raise foreign_link_type(source.path, packet.link_type, packet=packet.number, wanted=link_type)
            yield packet


def foreign_link_type(path: str, link_type: int, *, packet: int = 0, wanted: int = LINKTYPE_ETHERNET) -> InputError:
    """Return the error for a capture whose link type the datapath does not accept."""
    name = LINK_TYPES.get(link_type, "unknown")
    return InputError(
        f"link type {link_type} ({name}) is not {LINK_TYPES.get(wanted, str(wanted))}",
        where=f"{path}: packet {packet}" if packet else path,
        hint=f'packets of link type {wanted} are needed: record on an Ethernet device, not on "any"',
    )


class _Source:
    """A capture being read: the file, the current offset and the packet number."""

    def __init__(self, file: io.BufferedReader, path: str) -> None:
        self.file, self.path, self.offset, self.number = file, path, 0, 0

    def take(self, size: int, what: str) -> bytes:
        """Return the next `size` bytes; `what` names them in errors."""
        data = self.file.read(size)
        if len(data) < size:
            what = f"cut short: {what} needs {size} bytes, {len(data)} are left"
            raise self.wrong(self.offset, what, "the recording was interrupted; copy it again, or keep the packets before")
        self.offset += size
        return data

    def at_end(self) -> bool:
        """Tell whether the file is at its end."""
        return not self.file.peek(1)

    def wrong(self, offset: int, what: str, hint: str = "") -> InputError:
        """Return the error for a fault at `offset`."""
        packet = f"packet {self.number + 1}, " if offset else ""
        return InputError(what, where=f"{self.path}: {packet}offset {offset}", hint=hint)


def _pcap_order(magic: bytes) -> tuple[str, int] | None:
    """Return byte order and nanoseconds per tick for a pcap magic number, or None."""
    for order in "<", ">":
        (number,) = struct.unpack(order + "I", magic)
        if number in (PCAP_US, PCAP_NS):
            return order, 1000 if number == PCAP_US else 1
    return None


def _read_pcap(source: _Source, order: str, tick_ns: int) -> Iterator[Packet]:
    major, _minor, _zone, _figs, _snaplen, network = struct.unpack(order + "HHiIII", source.take(20, "file header"))
    if major != 2:
        raise source.wrong(4, f"pcap version {major} is not known", "version 2.4 is needed")
    link_type = network & 0xFFFF  # the upper half tells of a frame check sequence
    record = struct.Struct(order + "IIII")
    while not source.at_end():
        start = source.offset
        seconds, ticks, caplen, wire_len = record.unpack(source.take(16, "packet header"))
        if caplen > MAX_CAPLEN:
            raise source.wrong(start, f"a captured length of {caplen} bytes is damage", f"at most {MAX_CAPLEN} are possible")
        data = source.take(caplen, "packet")
        source.number += 1
        yield Packet(data, seconds * 1_000_000_000 + ticks * tick_ns, wire_len, link_type, 0, source.number)


def _read_pcapng(source: _Source) -> Iterator[Packet]:
    order, interfaces, first = "<", list[Interface](), True
    while first or not source.at_end():
        start = 0 if first else source.offset
        head = b"\x0a\x0d\x0d\x0a" if first else source.take(4, "block header")
        first = False
        if head == b"\x0a\x0d\x0d\x0a":
            raw = source.take(8, "section header")
            order = "<" if raw[4:] == struct.pack("<I", BYTE_ORDER_MAGIC) else ">"
            if raw[4:] != struct.pack(order + "I", BYTE_ORDER_MAGIC):
                raise source.wrong(
                    start + 8, f"section byte order mark {raw[4:].hex()} is not known", "1a2b3c4d either way round"
                )
            (length,) = struct.unpack(order + "I", raw[:4])
            interfaces, kind, rest = [], SHB, 12
        else:
            (kind,) = struct.unpack(order + "I", head)
            (length,) = struct.unpack(order + "I", source.take(4, "block length"))
            rest = 8
        if length < rest + 4 or length % 4 or length > MAX_BLOCK:
            raise source.wrong(
                start, f"a block length of {length} is damage", "it is a multiple of 4, header and trailer included"
            )
        body = source.take(length - rest - 4, "block")
        (again,) = struct.unpack(order + "I", source.take(4, "block trailer"))
        if again != length:
            raise source.wrong(
                source.offset - 4, f"block length {length} is closed by {again}", "both are equal in a sound file"
            )
        if kind == IDB:
            interfaces.append(_interface(source, start, order, body))
        elif kind in (EPB, OPB, SPB):
            yield _packet(source, start, order, kind, body, interfaces)


def _interface(source: _Source, start: int, order: str, body: bytes) -> Interface:
    if len(body) < 8:
        raise source.wrong(start, "an interface description of less than 8 bytes is damage")
    link_type, _, snaplen = struct.unpack_from(order + "HHI", body)
    made = Interface(link_type, snaplen)
    for code, value in _options(order, body[8:]):
        if code == OPT_TSRESOL and value:
            power = value[0] & 0x7F
            made.ticks = 2**power if value[0] & 0x80 else 10**power
        elif code == OPT_TSOFFSET and len(value) == 8:
            (made.offset,) = struct.unpack(order + "q", value)
        elif code == OPT_IF_NAME:
            made.name = value.decode("utf-8", "replace")
    return made


def _packet(source: _Source, start: int, order: str, kind: int, body: bytes, interfaces: list[Interface]) -> Packet:
    index, high, low = 0, 0, 0
    head = 4 if kind == SPB else 20
    if len(body) < head:
        raise source.wrong(start, f"a packet block of {len(body)} bytes is damage", f"at least {head} are needed")
    if kind == SPB:
        (wire_len,) = struct.unpack_from(order + "I", body)
        snaplen = interfaces[0].snaplen if interfaces else 0
        caplen = min(wire_len, snaplen or wire_len, len(body) - head)
    elif kind == EPB:
        index, high, low, caplen, wire_len = struct.unpack_from(order + "IIIII", body)
    else:
        index, _drops, high, low, caplen, wire_len = struct.unpack_from(order + "HHIIII", body)
    if index >= len(interfaces):
        raise source.wrong(start, f"interface {index} is not described", f"the section describes {len(interfaces)}")
    if caplen > min(len(body) - head, MAX_CAPLEN):
        raise source.wrong(start, f"a captured length of {caplen} in a block of {len(body)} bytes is damage")
    interface = interfaces[index]
    ticks = high << 32 | low
    ts_ns = interface.offset * 1_000_000_000 + ticks * 1_000_000_000 // interface.ticks if kind != SPB else 0
    direction = ""
    if kind == EPB:
        for code, value in _options(order, body[head + (caplen + 3 & ~3) :]):
            if code == OPT_EPB_FLAGS and len(value) == 4:
                direction = ("", "in", "out", "")[struct.unpack(order + "I", value)[0] & 3]
    source.number += 1
    return Packet(body[head : head + caplen], ts_ns, wire_len, interface.link_type, index, source.number, direction)


def _options(order: str, raw: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(raw):
        code, length = struct.unpack_from(order + "HH", raw, at)
        if code == 0 or at + 4 + length > len(raw):
            return
        yield code, raw[at + 4 : at + 4 + length]
        at += 4 + (length + 3 & ~3)


class Writer:
    """A capture being written, published atomically.

    `close`, or leaving the `with` block without an exception, publishes the file; an exception discards it.

    Units:   nanoseconds. pcapng says so in its interface description; pcap uses the nanosecond magic.
    Raises:  OSError (ENOSPC, EFBIG ...) with the path, from write or close.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        format: str = "",
        link_type: int = LINKTYPE_ETHERNET,
        interfaces: tuple[str, ...] = ("",),
        snaplen: int = MAX_CAPLEN,
    ) -> None:
        self.format, self.count = format or format_of_name(path), 0
        self._file = NewFile(path)
        self._file.write(capture_header(self.format, link_type, interfaces, snaplen))

    def write(self, data: bytes, ts_ns: int = 0, *, wire_len: int = 0, interface: int = 0, direction: str = "") -> None:
        """Append one packet."""
        if self.format == "pcap":
            head = struct.pack("<IIII", *divmod(ts_ns, 1_000_000_000), len(data), wire_len or len(data))
            self.append(head + data, 1)
        else:
            self.append(enhanced_block(data, ts_ns, wire_len or len(data), interface, direction), 1)

    def append(self, records: bytes | memoryview, count: int) -> None:
        """Append `count` packets given as records of this format."""
        self._file.write(records)
        self.count += count

    def flush(self) -> None:
        """Write out all buffered packets."""
        self._file.flush()

    def close(self) -> None:
        """Publish the file."""
        self._file.keep()

    def discard(self) -> None:
        """Drop the file; nothing of it remains."""
        self._file.discard()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def format_of_name(path: str | os.PathLike[str]) -> str:
    """Return the format for a file name: "pcap" for .pcap and .cap, else "pcapng"."""
    return "pcap" if os.fspath(path).endswith((".pcap", ".cap", ".dmp")) else "pcapng"


def capture_header(format: str, link_type: int, interfaces: tuple[str, ...], snaplen: int) -> bytes:
    """Return the bytes before the first packet."""
    if format == "pcap":
        return struct.pack("<IHHiIII", PCAP_NS, 2, 4, 0, 0, snaplen, link_type)
    blocks = [_block(SHB, struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1))]
    for name in interfaces:
        options = (_option(OPT_IF_NAME, name.encode()) if name else b"") + _option(OPT_TSRESOL, b"\x09") + _option(0, b"")
        blocks.append(_block(IDB, struct.pack("<HHI", link_type, 0, snaplen) + options))
    return b"".join(blocks)


def enhanced_block(data: bytes, ts_ns: int, wire_len: int, interface: int = 0, direction: str = "") -> bytes:
    """Return the Enhanced Packet Block of one packet, its time stamp in nanoseconds."""
    padding = bytes(-len(data) % 4)
    options = b""
    if direction:
        options = _option(OPT_EPB_FLAGS, struct.pack("<I", 1 if direction == "in" else 2)) + _option(0, b"")
    head = struct.pack("<IIIII", interface, ts_ns >> 32, ts_ns & 0xFFFFFFFF, len(data), wire_len)
    return _block(EPB, head + data + padding + options)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)
