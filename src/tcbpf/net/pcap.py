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

from tcbpf.errors import CaptureError, InputError
from tcbpf.files import NewFile

LINKTYPE_ETHERNET = 1
LINK_TYPES = {
    0: "BSD loopback",
    1: "Ethernet",
    9: "PPP",
    12: "raw IP",
    50: "PPP over serial",
    51: "PPPoE",
    101: "raw IP",
    104: "Cisco HDLC",
    105: "IEEE 802.11",
    108: "OpenBSD loopback",
    113: "Linux cooked",
    119: "802.11 Prism",
    127: "802.11 radiotap",
    192: "PPI",
    195: "IEEE 802.15.4",
    228: "raw IPv4",
    229: "raw IPv6",
    276: "Linux cooked v2",
}

IP_LINKS = frozenset({12, 101, 228, 229})
"""Link types whose packets begin with the IP header, as those of a tun, ipip or WireGuard device do."""

PCAP_US, PCAP_NS, PCAP_MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34  # the last is Kuznetzov's, with longer record headers
SHB, IDB, OPB, SPB, EPB = 0x0A0D0D0A, 1, 2, 3, 6  # pcapng block types
BYTE_ORDER_MAGIC = 0x1A2B3C4D
OPT_IF_NAME, OPT_TSRESOL, OPT_TSOFFSET, OPT_EPB_FLAGS = 2, 9, 14, 2
MAX_CAPLEN = 0x40000  # 256 KiB, as tcpdump; more is a damaged length
MAX_BLOCK = 64 << 20  # of a block that is read; others may have any length
NS_BITS = (1 << 64) - 1  # time stamps go round, as the runtime's do


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
    """Yield the packets of a pcap or pcapng file, all of `link_type` (None: any); "-" is standard input.

    Raises:  CaptureError naming the packet and the offset where the file is cut short or damaged; InputError for a file that is
             no capture, or a packet of another link type.
    """
    with open("/dev/stdin" if path == "-" else path, "rb") as file:
        source = _Source(file, os.fspath(path))
        magic = source.take(4, "file header")
        if magic == b"\x0a\x0d\x0d\x0a":
            packets = _read_pcapng(source)
        elif (kind := _pcap_kind(magic)) is not None:
            packets = _read_pcap(source, *kind)
        else:
            raise InputError(
                f"is not a capture: it starts with {magic.hex()}",
                where=f"{source.path}: offset 0",
                hint="a pcap or pcapng file is needed",
            )
        for packet in packets:
            if link_type is not None and packet.link_type != link_type:
                raise foreign_link_type(source.path, packet.link_type, packet=packet.number, wanted=link_type)
            yield packet


def foreign_link_type(path: str, link_type: int, *, packet: int = 0, wanted: int = LINKTYPE_ETHERNET) -> InputError:
    """Return the error for a capture whose link type the datapath does not accept."""
    name = LINK_TYPES.get(link_type, "unknown")
    return InputError(
        f"packets of link type {link_type} ({name}) are not what a device hands to a classifier",
        where=f"{path}: packet {packet}" if packet else path,
        hint=f'{LINK_TYPES.get(wanted, wanted)} is: record on the device itself, not on "any"; '
        "of a file of several interfaces, tshark -Y frame.interface_id==N -w FILE keeps one",
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
            raise self.wrong(self.offset, what, "the recording was interrupted, or not all of it was copied")
        self.offset += size
        return data

    def skip(self, size: int, what: str) -> None:
        """Pass over `size` bytes, which are `what`, however many."""
        while size:
            size -= len(self.take(min(size, 1 << 20), what))

    def at_end(self) -> bool:
        """Tell whether the file is at its end."""
        return not self.file.peek(1)

    def wrong(self, offset: int, what: str, hint: str = "") -> CaptureError:
        """Return the error for a fault at `offset`."""
        packet = f"packet {self.number + 1}, " if offset else ""
        return CaptureError(what, where=f"{self.path}: {packet}offset {offset}", hint=hint)


def _pcap_kind(magic: bytes) -> tuple[str, int] | None:
    """Return the byte order and the number that a pcap magic tells, or None."""
    for order in "<", ">":
        (number,) = struct.unpack(order + "I", magic)
        if number in (PCAP_US, PCAP_NS, PCAP_MODIFIED):
            return order, number
    return None


def _read_pcap(source: _Source, order: str, magic: int) -> Iterator[Packet]:
    major, minor, _zone, _figs, snaplen, network = struct.unpack(order + "HHiIII", source.take(20, "file header"))
    if (major, minor) != (543, 0) and major != 2:
        raise InputError(f"pcap version {major} is not known", where=source.path, hint="version 2.4 is needed")
    link_type = network & 0xFFFF  # the upper half tells of a frame check sequence
    record = struct.Struct(order + ("IIII8x" if magic == PCAP_MODIFIED else "IIII"))
    longest = snaplen if 0 < snaplen < 1 << 31 else MAX_CAPLEN
    while not source.at_end():
        start = source.offset
        seconds, ticks, caplen, wire_len = record.unpack(source.take(record.size, "packet header"))
        if major == 543 or minor < 3 or (minor == 3 and caplen > wire_len):  # old versions have them the other way round
            caplen, wire_len = wire_len, caplen
        if caplen > MAX_CAPLEN:
            raise source.wrong(start, f"a captured length of {caplen} bytes is damage", f"at most {MAX_CAPLEN} are possible")
        data = source.take(caplen, "packet")[:longest]
        source.number += 1
        ts_ns = seconds * 1_000_000_000 + ticks * (1 if magic == PCAP_NS else 1000)
        yield Packet(data, ts_ns, wire_len, link_type, 0, source.number)


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
        if length < rest + 4 or length % 4:
            raise source.wrong(
                start, f"a block length of {length} is damage", "it is a multiple of 4, header and trailer included"
            )
        body = b""
        if kind not in (SHB, IDB, OPB, SPB, EPB):
            source.skip(length - rest - 4, "block")
        elif length > MAX_BLOCK:
            raise source.wrong(start, f"a block of {length} bytes is damage", f"at most {MAX_BLOCK} are possible")
        else:
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
    ts_ns = interface.offset * 1_000_000_000 + ticks * 1_000_000_000 // interface.ticks & NS_BITS
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
        link_type: int | None = LINKTYPE_ETHERNET,
        interfaces: tuple[str, ...] = ("",),
        snaplen: int = MAX_CAPLEN,
    ) -> None:
        self.format, self.count, self.path = format or format_of_name(path), 0, path
        self._snaplen = snaplen
        self._links: list[int] = [] if link_type is None else [link_type] * len(interfaces)
        self._file = NewFile(path)
        if link_type is not None:
            self._file.write(capture_header(self.format, link_type, interfaces, snaplen))

    def interface(self, link_type: int) -> int:
        """Return the index of an interface of that link type, described now when there was none.

        Raises:  InputError for a second link type in a pcap, which has one.
        """
        if link_type in self._links:
            return self._links.index(link_type)
        if not self._links:
            self._file.write(capture_header(self.format, link_type, ("",), self._snaplen))
        elif self.format == "pcapng":
            self._file.write(interface_block(link_type, "", self._snaplen))
        else:
            what = f"link types {self._links[0]} and {link_type} do not fit one pcap"
            raise InputError(
                what, where=os.fspath(self.path), hint="a name that ends in .pcapng asks for the format that holds both"
            )
        self._links.append(link_type)
        return len(self._links) - 1

    def write(self, data: bytes, ts_ns: int = 0, *, wire_len: int = 0, interface: int = 0, direction: str = "") -> None:
        """Append one packet."""
        if self.format == "pcap":
            seconds, rest = divmod(ts_ns, 1_000_000_000)
            head = struct.pack("<IIII", seconds & 0xFFFFFFFF, rest, len(data), wire_len or len(data))
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
        if not self._links:
            self.interface(LINKTYPE_ETHERNET)
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
    return b"".join([*blocks, *(interface_block(link_type, name, snaplen) for name in interfaces)])


def interface_block(link_type: int, name: str, snaplen: int) -> bytes:
    """Return the Interface Description Block of an interface whose time stamps are nanoseconds."""
    options = (_option(OPT_IF_NAME, name.encode()) if name else b"") + _option(OPT_TSRESOL, b"\x09") + _option(0, b"")
    return _block(IDB, struct.pack("<HHI", link_type, 0, snaplen) + options)


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
