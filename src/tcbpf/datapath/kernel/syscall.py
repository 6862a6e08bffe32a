"""bpf(2): the one file that calls it, one function for each command that tcbpf needs.

Raises:  OSError subclass SysError everywhere, with the kernel's errno and the command's name.
Source:  include/uapi/linux/bpf.h, union bpf_attr; bpf(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from ctypes import c_char, c_uint8, c_uint32, c_uint64
from dataclasses import dataclass, field

from tcbpf.errors import SysError
from tcbpf.uapi import bpf as uapi

LOG_LEVEL1, LOG_LEVEL2, LOG_STATS = 1, 2, 4
LOG_START, LOG_LIMIT = 1 << 16, 1 << 26

_NUMBERS = {"x86_64": 321, "i686": 357, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}
"""The number of bpf(2) by machine."""

_NUMBER = _NUMBERS.get(os.uname().machine)

_WORDS = {
    uapi.BPF_MAP_CREATE: "create a map",
    uapi.BPF_MAP_LOOKUP_ELEM: "look up an element",
    uapi.BPF_MAP_UPDATE_ELEM: "update an element",
    uapi.BPF_MAP_DELETE_ELEM: "delete an element",
    uapi.BPF_MAP_GET_NEXT_KEY: "get the next key",
    uapi.BPF_PROG_LOAD: "load a program",
    uapi.BPF_OBJ_PIN: "pin",
    uapi.BPF_OBJ_GET: "open a pin",
    uapi.BPF_PROG_TEST_RUN: "run a program",
    uapi.BPF_PROG_GET_NEXT_ID: "list programs",
    uapi.BPF_MAP_GET_NEXT_ID: "list maps",
    uapi.BPF_PROG_GET_FD_BY_ID: "open a program by id",
    uapi.BPF_MAP_GET_FD_BY_ID: "open a map by id",
    uapi.BPF_OBJ_GET_INFO_BY_FD: "read an object's information",
    uapi.BPF_BTF_LOAD: "load BTF",
    uapi.BPF_BTF_GET_FD_BY_ID: "open BTF by id",
    uapi.BPF_MAP_LOOKUP_AND_DELETE_ELEM: "look up and delete an element",
    uapi.BPF_MAP_FREEZE: "freeze a map",
    uapi.BPF_MAP_LOOKUP_BATCH: "look up elements",
}

PRIVILEGE = "run as root or with CAP_BPF and CAP_NET_ADMIN, or use --datapath user"

_libc = ctypes.CDLL(None, use_errno=True)


def _rows(text: str) -> list[tuple[str, type]]:
    """Return a structure's fields from "TYPE NAME NAME ...; TYPE NAME ...": u32, u64, charN, bytesN."""
    found: list[tuple[str, type]] = []
    for group in text.split(";"):
        kind, *names = group.split()
        found += [(name, _TYPES[kind]) for name in names]
    return found


_TYPES: dict[str, type] = {"u32": c_uint32, "u64": c_uint64, "char16": c_char * 16, "bytes8": c_uint8 * 8}


class _MapCreate(ctypes.Structure):
    _fields_ = _rows(
        "u32 map_type key_size value_size max_entries map_flags inner_map_fd numa_node; char16 map_name; u32 "
        "map_ifindex btf_fd btf_key_type_id btf_value_type_id btf_vmlinux_value_type_id; u64 map_extra"
    )


class _Elem(ctypes.Structure):
    _fields_ = _rows("u32 map_fd; u64 key value flags")


class _Batch(ctypes.Structure):
    _fields_ = _rows("u64 in_batch out_batch keys values; u32 count map_fd; u64 elem_flags flags")


class _ProgLoad(ctypes.Structure):
    _fields_ = _rows(
        "u32 prog_type insn_cnt; u64 insns license; u32 log_level log_size; u64 log_buf; u32 kern_version prog_flags; "
        "char16 prog_name; u32 prog_ifindex expected_attach_type prog_btf_fd func_info_rec_size; u64 func_info; u32 "
        "func_info_cnt line_info_rec_size; u64 line_info; u32 line_info_cnt attach_btf_id attach_prog_fd "
        "core_relo_cnt; u64 fd_array core_relos; u32 core_relo_rec_size log_true_size"
    )


class _Obj(ctypes.Structure):
    _fields_ = _rows("u64 pathname; u32 bpf_fd file_flags")


class _TestRun(ctypes.Structure):
    _fields_ = _rows(
        "u32 prog_fd retval data_size_in data_size_out; u64 data_in data_out; u32 repeat duration ctx_size_in "
        "ctx_size_out; u64 ctx_in ctx_out; u32 flags cpu batch_size"
    )


class _Id(ctypes.Structure):
    _fields_ = _rows("u32 id next_id open_flags")


class _Info(ctypes.Structure):
    _fields_ = _rows("u32 bpf_fd info_len; u64 info")


class _Btf(ctypes.Structure):
    _fields_ = _rows("u64 btf btf_log_buf; u32 btf_size btf_log_size btf_log_level btf_log_true_size")


class ProgInfo(ctypes.Structure):
    """struct bpf_prog_info."""

    _fields_ = _rows(
        "u32 type id; bytes8 tag; u32 jited_prog_len xlated_prog_len; u64 jited_prog_insns xlated_prog_insns load_time; "
        "u32 created_by_uid nr_map_ids; u64 map_ids; char16 name; u32 ifindex gpl_compatible; u64 netns_dev "
        "netns_ino; u32 nr_jited_ksyms nr_jited_func_lens; u64 jited_ksyms jited_func_lens; u32 btf_id "
        "func_info_rec_size; u64 func_info; u32 nr_func_info nr_line_info; u64 line_info jited_line_info; u32 "
        "nr_jited_line_info line_info_rec_size jited_line_info_rec_size nr_prog_tags; u64 prog_tags run_time_ns "
        "run_cnt recursion_misses; u32 verified_insns attach_btf_obj_id attach_btf_id"
    )


class MapInfo(ctypes.Structure):
    """struct bpf_map_info."""

    _fields_ = _rows(
        "u32 type id key_size value_size max_entries map_flags; char16 name; u32 ifindex btf_vmlinux_value_type_id; "
        "u64 netns_dev netns_ino; u32 btf_id btf_key_type_id btf_value_type_id btf_vmlinux_id; u64 map_extra"
    )


class BtfInfo(ctypes.Structure):
    """struct bpf_btf_info."""

    _fields_ = _rows("u64 btf; u32 btf_size id; u64 name; u32 name_len kernel_btf")


def _call(command: int, attr: ctypes.Structure) -> int:
    """Make the system call and return its result, or minus errno."""
    if _NUMBER is None:
        return -errno.ENOSYS
    result = _libc.syscall(_NUMBER, command, ctypes.byref(attr), ctypes.sizeof(attr))
    return int(result) if result >= 0 else -ctypes.get_errno()


def _check(command: int, attr: ctypes.Structure, what: str = "") -> int:
    """Make the system call; raise its errno as an error."""
    result = _call(command, attr)
    if result < 0:
        raise failure(-result, command, what)
    return result


def failure(code: int, command: int, what: str = "") -> SysError:
    """Return the error for errno `code` of a command, with the missing privilege where that is the reason."""
    asked = _WORDS[command] + (f" {what}" if what else "")
    if code == errno.EPERM:
        return SysError(code, asked, PRIVILEGE)
    if code == errno.ENOSYS:
        return SysError(code, asked, "this kernel has no bpf(2); use --datapath user")
    return SysError(code, asked)


def _pointer(buffer: ctypes.Array[c_char] | None) -> int:
    """Return a buffer's address, 0 for none."""
    return ctypes.addressof(buffer) if buffer is not None else 0


def _buffer(data: bytes) -> ctypes.Array[c_char]:
    """Return a buffer that holds `data`; the caller keeps it alive over the call."""
    return (c_char * max(len(data), 1)).from_buffer_copy(data or b"\0")


def _key(key: bytes) -> ctypes.Array[c_char] | None:
    """Return a key's buffer; a map without keys must be given none."""
    return _buffer(key) if key else None


# ---------------------------------------------------------------- maps


def map_create(
    type: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    *,
    flags: int = 0,
    name: bytes = b"",
    inner_fd: int = 0,
    map_extra: int = 0,
    btf_fd: int = 0,
    key_type: int = 0,
    value_type: int = 0,
) -> int:
    """Create a map and return its fd. Units: sizes in bytes; `name` has at most 15 of them."""
    attr = _MapCreate(
        map_type=type,
        key_size=key_size,
        value_size=value_size,
        max_entries=max_entries,
        map_flags=flags,
        map_name=name[:15],
        inner_map_fd=inner_fd,
        map_extra=map_extra,
        btf_fd=btf_fd,
        btf_key_type_id=key_type,
        btf_value_type_id=value_type,
    )
    return _check(uapi.BPF_MAP_CREATE, attr, name.decode(errors="replace"))


def map_lookup(fd: int, key: bytes, size: int, flags: int = 0) -> bytes | None:
    """Return the `size` bytes at `key`, or None when there is no such element."""
    keys, value = _key(key), ctypes.create_string_buffer(size)
    result = _call(uapi.BPF_MAP_LOOKUP_ELEM, _Elem(fd, _pointer(keys), _pointer(value), flags))
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise failure(-result, uapi.BPF_MAP_LOOKUP_ELEM)
    return value.raw


def map_pop(fd: int, key: bytes, size: int) -> bytes | None:
    """Take an element out and return its value, or None when there is none."""
    keys, value = _key(key), ctypes.create_string_buffer(size)
    result = _call(uapi.BPF_MAP_LOOKUP_AND_DELETE_ELEM, _Elem(fd, _pointer(keys), _pointer(value), 0))
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise failure(-result, uapi.BPF_MAP_LOOKUP_AND_DELETE_ELEM)
    return value.raw


def map_holds(fd: int, value: bytes) -> bool:
    """Tell whether a bloom filter may hold a value."""
    values = _buffer(value)
    result = _call(uapi.BPF_MAP_LOOKUP_ELEM, _Elem(fd, 0, _pointer(values), 0))
    if result < 0 and result != -errno.ENOENT:
        raise failure(-result, uapi.BPF_MAP_LOOKUP_ELEM)
    return result >= 0


def map_update(fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """Write an element."""
    keys, values = _key(key), _buffer(value)
    _check(uapi.BPF_MAP_UPDATE_ELEM, _Elem(fd, _pointer(keys), _pointer(values), flags))


def map_delete(fd: int, key: bytes) -> bool:
    """Delete an element; return False when there was none."""
    keys = _key(key)
    result = _call(uapi.BPF_MAP_DELETE_ELEM, _Elem(fd, _pointer(keys), 0, 0))
    if result < 0 and result != -errno.ENOENT:
        raise failure(-result, uapi.BPF_MAP_DELETE_ELEM)
    return result == 0


def map_next_key(fd: int, key: bytes | None, size: int) -> bytes | None:
    """Return the key after `key` (None for the first), or None at the end."""
    keys, following = _buffer(key) if key is not None else None, ctypes.create_string_buffer(size)
    result = _call(uapi.BPF_MAP_GET_NEXT_KEY, _Elem(fd, _pointer(keys), _pointer(following), 0))
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise failure(-result, uapi.BPF_MAP_GET_NEXT_KEY)
    return following.raw


def map_lookup_batch(fd: int, key_size: int, value_size: int, entries: int) -> list[tuple[bytes, bytes]]:
    """Return all elements at once, for a map type that has BPF_MAP_LOOKUP_BATCH.

    Units:   sizes in bytes; `entries` is how many there may be.
    """
    found: list[tuple[bytes, bytes]] = []
    token, previous = ctypes.create_string_buffer(max(key_size, 8)), None
    chunk = min(max(entries, 1), 4096)
    while True:
        keys, values = ctypes.create_string_buffer(chunk * key_size), ctypes.create_string_buffer(chunk * value_size)
        attr = _Batch(_pointer(previous), _pointer(token), _pointer(keys), _pointer(values), chunk, fd, 0, 0)
        result = _call(uapi.BPF_MAP_LOOKUP_BATCH, attr)
        if result == -errno.ENOSPC:  # one bucket holds more than the chunk; nothing of it was copied
            chunk *= 2
            continue
        if result < 0 and result != -errno.ENOENT:
            raise failure(-result, uapi.BPF_MAP_LOOKUP_BATCH)
        raw_keys, raw_values = keys.raw, values.raw
        found += [
            (raw_keys[i * key_size : (i + 1) * key_size], raw_values[i * value_size : (i + 1) * value_size])
            for i in range(attr.count)
        ]
        if result == -errno.ENOENT:
            return found
        previous = ctypes.create_string_buffer(token.raw, len(token))


def map_freeze(fd: int) -> None:
    """Make a map read-only for user space, for good."""
    _check(uapi.BPF_MAP_FREEZE, _Elem(fd))


# ---------------------------------------------------------------- programs


@dataclass(frozen=True, slots=True)
class Load:
    """The arguments of BPF_PROG_LOAD. Units: func_info in records of 8 bytes, line_info of 16."""

    type: int
    insns: bytes
    license: bytes = b""
    name: bytes = b""
    attach_type: int = 0
    btf_fd: int = 0
    func_info: bytes = field(default=b"", repr=False)
    line_info: bytes = field(default=b"", repr=False)
    log_level: int = 0
    kernel_version: int = 0
    flags: int = 0


def prog_load(load: Load) -> tuple[int, str]:
    """Load a program; return its fd, or minus errno, and the verifier's log (empty at log level 0).

    The log buffer grows until the log fits; a log over 64 MB keeps its end.
    """
    insns, licence = _buffer(load.insns), _buffer(load.license + b"\0")
    funcs, lines = _buffer(load.func_info), _buffer(load.line_info)
    attr = _ProgLoad(
        prog_type=load.type,
        insn_cnt=len(load.insns) // 8,
        insns=_pointer(insns),
        license=_pointer(licence),
        kern_version=load.kernel_version,
        prog_flags=load.flags,
        prog_name=load.name[:15],
        expected_attach_type=load.attach_type,
        log_level=load.log_level,
    )
    if load.btf_fd:
        attr.prog_btf_fd = load.btf_fd
        if load.func_info:
            attr.func_info_rec_size, attr.func_info, attr.func_info_cnt = 8, _pointer(funcs), len(load.func_info) // 8
        if load.line_info:
            attr.line_info_rec_size, attr.line_info, attr.line_info_cnt = 16, _pointer(lines), len(load.line_info) // 16
    if not load.log_level:
        return _call_again(uapi.BPF_PROG_LOAD, attr), ""
    size = LOG_START
    while True:
        log = ctypes.create_string_buffer(size)
        attr.log_buf, attr.log_size = _pointer(log), size
        result = _call_again(uapi.BPF_PROG_LOAD, attr)
        if result != -errno.ENOSPC or size >= LOG_LIMIT:
            return result, log.value.decode(errors="replace")
        size = min(max(size * 4, attr.log_true_size), LOG_LIMIT)


def _call_again(command: int, attr: ctypes.Structure) -> int:
    """Make a call that a signal or memory pressure may interrupt (EAGAIN), a few times."""
    result = -errno.EAGAIN
    for _ in range(5):
        result = _call(command, attr)
        if result != -errno.EAGAIN:
            break
    return result


def btf_load(raw: bytes) -> int:
    """Load BTF and return its fd."""
    data = _buffer(raw)
    return _check(uapi.BPF_BTF_LOAD, _Btf(btf=_pointer(data), btf_size=len(raw)))


class TestRun:
    """BPF_PROG_TEST_RUN of one program, with buffers that serve any number of runs.

    Units:   `largest` is the longest packet in bytes; a packet may grow by 8 kB.
    """

    __test__ = False

    def __init__(self, fd: int, *, largest: int = 4096, ctx_size: int = 192) -> None:
        self._in, self._out = ctypes.create_string_buffer(largest), ctypes.create_string_buffer(largest + 8192)
        self._ctx_in, self._ctx_out = ctypes.create_string_buffer(ctx_size), ctypes.create_string_buffer(ctx_size)
        self.attr = _TestRun(prog_fd=fd, data_in=_pointer(self._in), data_out=_pointer(self._out))
        self.largest, self.ctx_size = largest, ctx_size

    def run(self, packet: bytes, ctx: bytes | None = None, repeat: int = 1) -> int:
        """Run and return r0 as an unsigned 32-bit number; `packet`, `ctx` and `duration_ns` then hold the outcome.

        Raises:  SysError with EINVAL for a packet shorter than 14 bytes or longer than fits one page.
        """
        if len(packet) > len(self._in):
            raise SysError(errno.EINVAL, _WORDS[uapi.BPF_PROG_TEST_RUN], f"a packet of {len(packet)} bytes")
        attr = self.attr
        ctypes.memmove(self._in, packet, len(packet))
        attr.data_size_in, attr.data_size_out, attr.repeat = len(packet), len(self._out), repeat
        if ctx is not None:
            ctypes.memmove(self._ctx_in, ctx, self.ctx_size)
            attr.ctx_in, attr.ctx_size_in = _pointer(self._ctx_in), self.ctx_size
            attr.ctx_out, attr.ctx_size_out = _pointer(self._ctx_out), self.ctx_size
        result = _call_again(uapi.BPF_PROG_TEST_RUN, attr)
        if result < 0:
            raise failure(-result, uapi.BPF_PROG_TEST_RUN)
        return int(attr.retval)

    @property
    def packet(self) -> bytes:
        """The packet after the last run."""
        return ctypes.string_at(self._out, self.attr.data_size_out)

    @property
    def ctx(self) -> bytes:
        """The context after the last run that was given one."""
        return ctypes.string_at(self._ctx_out, self.attr.ctx_size_out)

    @property
    def duration_ns(self) -> int:
        """The mean of the last run's repeats."""
        return int(self.attr.duration)


# ---------------------------------------------------------------- pins and ids


def obj_pin(fd: int, path: str) -> None:
    """Pin an object to a bpf fs path."""
    name = _buffer(os.fsencode(path) + b"\0")
    _check(uapi.BPF_OBJ_PIN, _Obj(pathname=_pointer(name), bpf_fd=fd), path)


def obj_get(path: str) -> int:
    """Open a pinned object and return its fd."""
    name = _buffer(os.fsencode(path) + b"\0")
    return _check(uapi.BPF_OBJ_GET, _Obj(pathname=_pointer(name)), path)


def ids(next_command: int) -> Iterator[int]:
    """Yield the ids of all programs (uapi.BPF_PROG_GET_NEXT_ID) or maps (uapi.BPF_MAP_GET_NEXT_ID)."""
    attr = _Id()
    while (result := _call(next_command, attr)) == 0:
        yield int(attr.next_id)
        attr.id = attr.next_id
    if result != -errno.ENOENT:
        raise failure(-result, next_command)


def fd_by_id(command: int, number: int) -> int:
    """Return a new fd of the object with that id."""
    return _check(command, _Id(id=number), str(number))


def open_all(next_command: int, open_command: int) -> Iterator[int]:
    """Yield an fd of every object; one that goes on the way is passed over."""
    for number in ids(next_command):
        try:
            yield fd_by_id(open_command, number)
        except SysError as error:
            if error.errno != errno.ENOENT:
                raise


def prog_info(fd: int) -> ProgInfo:
    """Return the kernel's bpf_prog_info of a program."""
    info = ProgInfo()
    _check(uapi.BPF_OBJ_GET_INFO_BY_FD, _Info(fd, ctypes.sizeof(info), ctypes.addressof(info)))
    return info


def prog_maps(fd: int) -> Sequence[int]:
    """Return the ids of the maps that a program uses."""
    count = prog_info(fd).nr_map_ids
    numbers = (c_uint32 * max(count, 1))()
    info = ProgInfo(nr_map_ids=count, map_ids=ctypes.addressof(numbers))
    _check(uapi.BPF_OBJ_GET_INFO_BY_FD, _Info(fd, ctypes.sizeof(info), ctypes.addressof(info)))
    return [int(number) for number in numbers[: min(count, info.nr_map_ids)]]


def map_info(fd: int) -> MapInfo:
    """Return the kernel's bpf_map_info of a map."""
    info = MapInfo()
    _check(uapi.BPF_OBJ_GET_INFO_BY_FD, _Info(fd, ctypes.sizeof(info), ctypes.addressof(info)))
    return info


def btf_by_id(number: int) -> bytes:
    """Return the BTF data with that id."""
    fd = fd_by_id(uapi.BPF_BTF_GET_FD_BY_ID, number)
    try:
        size = BtfInfo()
        _check(uapi.BPF_OBJ_GET_INFO_BY_FD, _Info(fd, ctypes.sizeof(size), ctypes.addressof(size)))
        data = ctypes.create_string_buffer(max(size.btf_size, 1))
        info = BtfInfo(btf=ctypes.addressof(data), btf_size=size.btf_size)
        _check(uapi.BPF_OBJ_GET_INFO_BY_FD, _Info(fd, ctypes.sizeof(info), ctypes.addressof(info)))
        return data.raw[: size.btf_size]
    finally:
        os.close(fd)
