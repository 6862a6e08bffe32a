"""Maps handed to another process over a Unix socket, each with its id.

Source:  lib/bpf_legacy.c of iproute2: the message is its struct bpf_map_aux.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

from tcbpf.control.args import LOCAL, USAGE, Quit

if TYPE_CHECKING:
    from tcbpf.datapath.base import Prog
    from tcbpf.datapath.loader import Loaded

UDS_VERSION, MAX_FDS = 1, 64
_AUX = struct.Struct("=HH64s4xQQ")  # bpf_map_aux up to its entries: version, entries, object, dev, inode
_ENTRY = struct.Struct("=9I")  # struct bpf_elf_map


def send_maps(path: str, object_path: str, loaded: Loaded[Prog]) -> None:
    """Send a loaded object's maps to the importer that listens at `path`.

    Raises:  Quit.
    """
    maps = list(loaded.maps.values())[:MAX_FDS]
    where = os.stat(object_path)
    name = os.path.basename(object_path).encode()[:63]
    body = _AUX.pack(UDS_VERSION, len(maps), name, where.st_dev, where.st_ino)
    for index, live in enumerate(maps):
        spec = live.spec
        body += _ENTRY.pack(
            _type_number(spec.type),
            spec.key_size,
            spec.value_size,
            spec.max_entries,
            spec.flags,
            spec.id or index,
            spec.pinning,
            0,
            0,
        )
    fds = array.array("i", [live.raw.fileno() for live in maps])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        try:
            out.connect(path)
            out.sendmsg([body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        except OSError as error:
            raise Quit(LOCAL, f"Cannot connect to {path}: {error.strerror}", "Unable to load program") from None


def receive_fds(path: str) -> tuple[list[int], list[int]]:
    """Wait at a socket for one message; return the descriptors of its maps, and their ids.

    Raises:  Quit.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        try:
            listening.bind(path)
        except OSError as error:
            raise Quit(USAGE, f"Cannot bind to socket: {error.strerror}", "bpf: Could not receive fds!") from None
        try:
            body, fds, _, _ = socket.recv_fds(listening, 1 << 16, MAX_FDS)
        finally:
            os.unlink(path)
    return fds, read_maps(body, len(fds))


def read_maps(body: bytes, fds: int) -> list[int]:
    """Return the ids of the maps that a message describes.

    Raises:  Quit for a message of another version, or one that does not fit its descriptors.
    """
    if len(body) < _AUX.size or struct.unpack_from("=H", body)[0] != UDS_VERSION:
        raise Quit(256 - errno.ENOSYS, f"the message is not of version {UDS_VERSION}")
    entries = struct.unpack_from("=H", body, 2)[0]
    if entries != fds or len(body) < _AUX.size + entries * _ENTRY.size:
        raise Quit(256 - errno.EINVAL, f"the message names {entries} maps and brings {fds}")
    return [_ENTRY.unpack_from(body, _AUX.size + i * _ENTRY.size)[5] for i in range(entries)]


def _type_number(name: str) -> int:
    from tcbpf.tables.maps import MAP_TYPES

    row = MAP_TYPES.get(name)
    return row.number if row else 0
