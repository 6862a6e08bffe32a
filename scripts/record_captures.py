#!/usr/bin/env python3
"""Record examples/captures/: real clients and servers, talking in network namespaces made for the purpose.

Needs root, ip(8), ping, curl, openssl and dnsmasq; leaves nothing behind but the captures. Each scene below is one
file. The recorder is a packet socket in the client's namespace, with segmentation and checksum offload off, so that
every frame is as it would be on a wire.

    scripts/record_captures.py [DIR] [SCENE ...]
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from pyroute2 import netns

from tcbpf.net.pcap import Writer

CLIENT, SERVER, MIDDLE = (f"tcbpf-record-{os.getpid()}-{role}" for role in ("client", "server", "middle"))
ETH_P_ALL = 0x0003
ETHTOOL_SRXCSUM, ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO = 0x15, 0x17, 0x1F, 0x24, 0x2C
SIOCETHTOOL, PACKET_OUTGOING, SOL_PACKET, PACKET_AUXDATA = 0x8946, 4, 263, 8
TP_STATUS_VLAN_VALID = 0x10
IPV6_HOPOPTS, IPV6_DSTOPTS = 54, 59


def sh(command: str, *, space: str = "", check: bool = True) -> None:
    """Run a command, in a network namespace when one is named."""
    words = (["ip", "netns", "exec", space] if space else []) + command.split()
    subprocess.run(words, check=check, stdout=subprocess.DEVNULL, stderr=None if check else subprocess.DEVNULL)


@contextlib.contextmanager
def inside(space: str) -> Iterator[None]:
    """Be in a network namespace: sockets made here stay there."""
    netns.pushns(space)
    try:
        yield
    finally:
        netns.popns()


def plain(space: str, dev: str) -> None:
    """Turn a device's offloads off, so that packets have their wire form."""
    with inside(space), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for what in ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO, ETHTOOL_STXCSUM, ETHTOOL_SRXCSUM:
            value = ctypes.create_string_buffer(struct.pack("II", what, 0))
            fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", dev.encode(), ctypes.addressof(value)))


@contextlib.contextmanager
def wire(mtu: int = 1500) -> Iterator[None]:
    """Make a client and a server namespace with a veth pair between them."""
    try:
        for space in CLIENT, SERVER:
            sh(f"ip netns add {space}")
            sh("ip link set lo up", space=space)
        sh(
            f"ip link add c0 mtu {mtu} address 02:00:00:00:00:0c netns {CLIENT} type veth "
            f"peer name s0 mtu {mtu} address 02:00:00:00:00:05 netns {SERVER}"
        )
        for space, dev, host in (CLIENT, "c0", 1), (SERVER, "s0", 2):
            plain(space, dev)
            sh(f"ip addr add 10.0.0.{host}/24 dev {dev}", space=space)
            sh(f"ip addr add fd00::{host}/64 dev {dev} nodad", space=space)
            sh(f"ip link set {dev} up", space=space)
        yield
    finally:
        for space in CLIENT, SERVER, MIDDLE:
            sh(f"ip netns del {space}", check=False)


class Recorder:
    """Record a device's packets, both ways, to a pcapng file."""

    def __init__(self, path: Path, *, space: str = CLIENT, dev: str = "c0") -> None:
        self.path, self.stopping = path, False
        with inside(space):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self.sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
            self.sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            self.sock.bind((dev, ETH_P_ALL))
        self.sock.settimeout(0.3)
        self.dev = dev
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        """Copy packets until told to stop and the line is quiet."""
        with Writer(self.path, interfaces=(self.dev,)) as out:
            while True:
                try:
                    data, extra, _flags, where = self.sock.recvmsg(65536, 256)
                except TimeoutError:
                    if self.stopping:
                        break
                    continue
                data = with_tag(data, extra)
                out.write(data, time.time_ns(), direction="out" if where[2] == PACKET_OUTGOING else "in")

    def __enter__(self) -> Recorder:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.3)
        self.stopping = True
        self.thread.join()
        self.sock.close()
        self.path.chmod(0o644)


def with_tag(data: bytes, extra: list[tuple[int, int, bytes]]) -> bytes:
    """Return the frame with the VLAN tag that the kernel keeps beside it put back."""
    for level, kind, raw in extra:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _len, _snap, _mac, _net, tci, tpid = struct.unpack_from("IIIHHHH", raw)
            if status & TP_STATUS_VLAN_VALID:
                return data[:12] + struct.pack("!HH", tpid or 0x8100, tci) + data[12:]
    return data


@contextlib.contextmanager
def server(command: list[str], port: int, *, tcp: bool = True) -> Iterator[None]:
    """Run a server in the server namespace until the block is left."""
    process = subprocess.Popen(["ip", "netns", "exec", SERVER, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with inside(SERVER):
            for _ in range(100):
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                    if not tcp or probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
        if not tcp:
            time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def web(root: Path) -> Iterator[None]:
    """Serve `root` over HTTP on port 80."""
    with server([sys.executable, "-m", "http.server", "80", "--directory", str(root)], 80):
        yield


@contextlib.contextmanager
def secure_web(root: Path) -> Iterator[None]:
    """Serve `root` over HTTPS on port 443, with a certificate of its own making."""
    with tempfile.TemporaryDirectory() as keys:
        sh(
            f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=a.com -keyout {keys}/key -out {keys}/cert",
            check=False,
        )
        code = (
            "import http.server, ssl, functools, sys;"
            "h = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1]);"
            "s = http.server.ThreadingHTTPServer(('', 443), h);"
            "c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER);"
            "c.load_cert_chain(sys.argv[2] + '/cert', sys.argv[2] + '/key');"
            "s.socket = c.wrap_socket(s.socket, server_side=True); s.serve_forever()"
        )
        with server([sys.executable, "-c", code, str(root), keys], 443):
            yield


@contextlib.contextmanager
def names() -> Iterator[None]:
    """Serve DNS on port 53, over UDP and TCP, for example.com and a text too long for one datagram."""
    text = ",".join(f"part {n} of a long text that needs a stream" for n in range(5))
    options = [
        "--address=/www.example.com/10.0.0.2",
        "--address=/blocked.example.net/10.0.0.2",
        "--address=/www.example.com/fd00::2",
        f"--txt-record=long.example.com,{text}" + f",{text}" * 8,
    ]
    with server(
        [
            "dnsmasq",
            "-k",
            "-C",
            "/dev/null",
            "-p",
            "53",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
            "--pid-file",
            "--listen-address=10.0.0.2,10.0.0.53,127.0.0.1",
            "--bind-interfaces",
            *options,
        ],
        53,
    ):
        yield


def ask(name: str, *, at: str = "10.0.0.2", stream: bool = False) -> None:
    """Look a name up with the C library's resolver."""
    etc = Path("/etc/netns") / CLIENT
    made = [path for path in (etc.parent, etc) if not path.exists()]
    etc.mkdir(parents=True, exist_ok=True)
    try:
        (etc / "resolv.conf").write_text(f"nameserver {at}\noptions timeout:1 attempts:1{' use-vc' if stream else ''}\n")
        sh(f"getent ahosts {name}", space=CLIENT, check=False)
    finally:
        (etc / "resolv.conf").unlink()
        for path in reversed(made):
            path.rmdir()


def fetch(url: str) -> None:
    """Get a page with curl."""
    sh(f"curl -sk -m 5 -o /dev/null {url}", space=CLIENT)


@contextlib.contextmanager
def pages() -> Iterator[Path]:
    """Make a directory of files to serve."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "index.html").write_text("<!doctype html><title>hello</title>" + "<p>a paragraph of text</p>\n" * 40)
        (root / "large").write_bytes(bytes(range(256)) * 512)
        yield root


def http(out: Path) -> None:
    """HTTP: curl and python's http.server."""
    with wire(), pages() as root, web(root), Recorder(out):
        for url in "http://10.0.0.2/", "http://10.0.0.2/large", "http://10.0.0.2/missing", "http://10.0.0.2/":
            fetch(url)


def tls(out: Path) -> None:
    """HTTPS: curl and python's ssl."""
    with wire(), pages() as root, secure_web(root), Recorder(out):
        fetch("https://10.0.0.2/")
        fetch("https://10.0.0.2/large")


def dns(out: Path) -> None:
    """DNS over UDP and TCP: the C library's resolver and dnsmasq."""
    with wire():
        sh("ip addr add 10.0.0.53/24 dev s0", space=SERVER)
        with names(), Recorder(out):
            for stream in False, True:
                ask("www.example.com", stream=stream)
                ask("blocked.example.net", stream=stream)
                ask("missing.example.org", stream=stream)
                ask("www.example.com", at="10.0.0.53", stream=stream)


def icmp(out: Path) -> None:
    """ICMP and ICMPv6 echo of several sizes, ARP and neighbour discovery, and a port that is not there."""
    with wire(), Recorder(out):
        for size in 0, 56, 1000:
            sh(f"ping -c 2 -i 0.2 -s {size} 10.0.0.2", space=CLIENT)
            sh(f"ping -c 2 -i 0.2 -s {size} fd00::2", space=CLIENT)
        with inside(CLIENT), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"nobody listens", ("10.0.0.2", 9))


def fragments(out: Path) -> None:
    """IPv4 and IPv6 fragments: echo and datagrams larger than the MTU."""
    with wire(), Recorder(out):
        for target in "10.0.0.2", "fd00::2":
            sh(f"ping -c 2 -i 0.2 -s 4000 {target}", space=CLIENT)
        with inside(CLIENT), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(bytes(6000), ("10.0.0.2", 9))


def ipv6_ext(out: Path) -> None:
    """IPv6 extension headers as the kernel sends them: hop-by-hop, destination options, segment routing, fragments."""
    pad = bytes((0, 0, 1, 4, 0, 0, 0, 0))  # next header filled in by the kernel; PadN of 4
    with wire(), Recorder(out):
        sh("ping -c 1 fd00::2", space=CLIENT)
        with inside(CLIENT):
            for options in (IPV6_HOPOPTS,), (IPV6_DSTOPTS,), (IPV6_HOPOPTS, IPV6_DSTOPTS):
                for size in 32, 3000:
                    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
                        for option in options:
                            sock.setsockopt(socket.IPPROTO_IPV6, option, pad)
                        sock.sendto(bytes(size), ("fd00::2", 53))
        sh("sysctl -qw net.ipv6.conf.all.seg6_enabled=1 net.ipv6.conf.s0.seg6_enabled=1", space=SERVER)
        sh("ip -6 route add fd01::/64 via fd00::2", space=CLIENT)
        sh("ip -6 addr add fd01::2/128 dev lo", space=SERVER)
        sh("ip -6 route add fd01::2/128 encap seg6 mode inline segs fd00::2 dev c0", space=CLIENT, check=False)
        sh("ping -c 2 -i 0.2 fd01::2", space=CLIENT, check=False)


def jumbo(out: Path) -> None:
    """Jumbo frames: HTTP and echo with an MTU of 9000."""
    with wire(mtu=9000), pages() as root, web(root), Recorder(out):
        fetch("http://10.0.0.2/large")
        sh("ping -c 2 -i 0.2 -s 8972 10.0.0.2", space=CLIENT)


def vxlan(out: Path) -> None:
    """VXLAN: HTTP and echo inside a tunnel."""
    with wire(mtu=1600):
        for space, dev, here, there in (CLIENT, "c0", 1, 2), (SERVER, "s0", 2, 1):
            sh(
                f"ip link add vx0 type vxlan id 42 local 10.0.0.{here} remote 10.0.0.{there} dstport 4789 dev {dev}",
                space=space,
            )
            sh(f"ip addr add 172.16.0.{here}/24 dev vx0", space=space)
            sh("ip link set vx0 mtu 1500 up", space=space)
            plain(space, "vx0")
        with pages() as root, web(root), Recorder(out):
            fetch("http://172.16.0.2/")
            sh("ping -c 2 -i 0.2 172.16.0.2", space=CLIENT)


def vlan(out: Path) -> None:
    """The trunk between two switches: IP in VLAN 10, ARP in VLAN 20 of a provider's VLAN 100 (two tags)."""
    with wire(), pages() as root, web(root):
        trunk(out, lambda: (fetch("http://10.0.0.2/"), sh("ping -c 3 -i 0.2 10.0.0.2", space=CLIENT)))


def trunk(out: Path, traffic: Callable[[], object]) -> None:
    """Switch the client's and the server's frames over a tagged trunk while `traffic` runs, and record the trunk."""
    sh(f"ip netns add {MIDDLE}")
    for space, dev, port in (CLIENT, "c0", "p0"), (SERVER, "s0", "p1"):
        sh(f"ip link del {dev}", space=space, check=False)
        sh(f"ip link add {dev} netns {space} type veth peer name {port} netns {MIDDLE}")
        plain(space, dev)
        plain(MIDDLE, port)
        sh(f"ip addr add 10.0.0.{1 if dev == 'c0' else 2}/24 dev {dev}", space=space)
        sh(f"ip link set {dev} up", space=space)
        sh(f"ip link set {port} up", space=MIDDLE)
    sh("ip link add t0 type veth peer name t1", space=MIDDLE)
    for dev in "t0", "t1":
        plain(MIDDLE, dev)
        sh(f"ip link set {dev} up", space=MIDDLE)
    stop = threading.Event()

    def tag(data: bytes) -> bytes:
        number = 20 if data[12:14] == b"\x08\x06" else 10
        inner = data[:12] + struct.pack("!HH", 0x8100, 3 << 13 | number) + data[12:]
        return inner if number == 10 else inner[:12] + struct.pack("!HH", 0x88A8, 100) + inner[12:]

    def untag(data: bytes) -> bytes:
        while data[12:14] in (b"\x81\x00", b"\x88\xa8"):
            data = data[:12] + data[16:]
        return data

    def relay(source: str, sink: str, change: Callable[[bytes], bytes]) -> None:
        with inside(MIDDLE):
            ends = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) for _ in range(2)]
            for end, dev in zip(ends, (source, sink), strict=True):
                end.bind((dev, ETH_P_ALL))
            ends[0].setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        ends[0].settimeout(0.2)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                data, extra, _, where = ends[0].recvmsg(65536, 256)
                if where[2] != PACKET_OUTGOING:
                    ends[1].send(change(with_tag(data, extra)))
        for end in ends:
            end.close()

    hops = [("p0", "t0", tag), ("t1", "p1", untag), ("p1", "t1", tag), ("t0", "p0", untag)]
    threads = [threading.Thread(target=relay, args=hop) for hop in hops]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.3)
        with Recorder(out, space=MIDDLE, dev="t0"):
            traffic()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def mixed(out: Path) -> None:
    """A little of everything at once: what an office's uplink looks like."""
    with wire():
        sh("ip addr add 10.0.0.53/24 dev s0", space=SERVER)
        for host in range(10, 18):
            sh(f"ip addr add 10.0.0.{host}/24 dev c0", space=CLIENT)
        with pages() as root, web(root), secure_web(root), names(), Recorder(out):
            for host in range(10, 18):
                ask("www.example.com", at="10.0.0.2" if host % 3 else "10.0.0.53")
                page = "large" if host < 12 else ""
                sh(f"curl -sk -m 5 -o /dev/null --interface 10.0.0.{host} https://10.0.0.2/{page}", space=CLIENT)
                if host % 2:
                    sh(f"curl -s -m 5 -o /dev/null --interface 10.0.0.{host} http://10.0.0.2/", space=CLIENT)
                ask("blocked.example.net", at="10.0.0.53", stream=host == 12)
            sh("ping -c 3 -i 0.2 10.0.0.2", space=CLIENT)
            sh("ping -c 2 -i 0.2 -s 3000 fd00::2", space=CLIENT)


SCENES = [http, tls, dns, icmp, fragments, ipv6_ext, jumbo, vxlan, vlan, mixed]


def main(argv: list[str]) -> int:
    """Record the scenes named, or all, into the directory given."""
    missing = [tool for tool in ("ip", "ping", "curl", "openssl", "dnsmasq", "getent") if not shutil.which(tool)]
    if missing or os.geteuid():
        print(
            "record_captures: needs root" if os.geteuid() else f"record_captures: needs {', '.join(missing)}",
            file=sys.stderr,
        )
        return 2
    directory = Path(argv[0]) if argv else Path(__file__).parent.parent / "examples" / "captures"
    directory.mkdir(parents=True, exist_ok=True)
    for scene in SCENES:
        if argv[1:] and scene.__name__ not in argv[1:]:
            continue
        path = directory / f"{scene.__name__}.pcapng"
        scene(path)
        print(f"{path}: {path.stat().st_size} bytes: {scene.__doc__}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
