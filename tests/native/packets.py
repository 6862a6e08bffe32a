"""Small packets, made by hand."""

MAC = bytes.fromhex("020000000002020000000001")
IPV4 = bytes.fromhex("4500003c1c4640004006b1e6c0a80001c0a80002")
TCP = bytes.fromhex("303900500000000100000002501072105a5a0000")
UDP = bytes.fromhex("c000003500280000")
IPV6 = (
    bytes.fromhex("6000000000281140")
    + bytes.fromhex("20010db8000000000000000000000001")
    + bytes.fromhex("20010db8000000000000000000000002")
)
BODY = bytes(range(20))


def ether(kind: int, payload: bytes) -> bytes:
    """Return a frame."""
    return MAC + kind.to_bytes(2, "big") + payload


def tagged(kind: int, payload: bytes, *tags: tuple[int, int]) -> bytes:
    """Return a frame with VLAN tags (protocol, tci) in its bytes, outermost first."""
    return MAC + b"".join(p.to_bytes(2, "big") + t.to_bytes(2, "big") for p, t in tags) + kind.to_bytes(2, "big") + payload


TCP4 = ether(0x0800, IPV4 + TCP + BODY)
UDP6 = ether(0x86DD, IPV6 + UDP + BODY * 2)
ARP = ether(0x0806, bytes(28))
LLC = ether(46, b"\x42\x42\x03" + bytes(43))
NOVELL = ether(46, b"\xff\xff\x00\x20" + bytes(42))
MULTICAST = b"\x01\x00\x5e\x00\x00\x01" + TCP4[6:]
BROADCAST = b"\xff" * 6 + TCP4[6:]
TO_ZERO = bytes(6) + TCP4[6:]
VLAN = tagged(0x0800, IPV4 + TCP + BODY, (0x8100, 0x2064))
QINQ = tagged(0x0800, IPV4 + TCP + BODY, (0x88A8, 0x0007), (0x8100, 0x6123))
SHORT = ether(0x88B5, b"")
SHORT_VLAN = ether(0x8100, b"\x00\x05")
ALL = (TCP4, UDP6, ARP, LLC, NOVELL, MULTICAST, BROADCAST, TO_ZERO, VLAN, QINQ, SHORT, SHORT_VLAN)
