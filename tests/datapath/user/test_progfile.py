"""A program's file gives back what was written, and says so when it is damaged."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tcbpf.datapath.user import User, progfile
from tcbpf.datapath.user.progfile import ProgRecord
from tcbpf.errors import InputError, SysError
from tcbpf.isa import assemble, encode
from tcbpf.lang import compile_c
from tcbpf.obj import link, load
from tcbpf.obj.program import Program

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
static __attribute__((noinline)) int half(int n) { return n / 2; }
SEC("tc") int first(struct __sk_buff *skb) { return half(skb->len); }
char _license[] SEC("license") = "GPL";
"""


def test_what_is_written_is_read(tmp_path: Path) -> None:
    program = link(load(compile_c(SOURCE)))
    record = ProgRecord(7, program, (), progfile.tag_of(program), 1 << 40, 1000, 12)
    fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    progfile.write(fd, record)
    found = progfile.read((), progfile.read_head(fd))
    os.close(fd)
    assert found == record and program.btf and found.program.btf
    assert found.program.btf.raw == program.btf.raw
    for name in ("lines", "funcs", "raw_func_info", "raw_line_info"):
        assert getattr(program, name) and getattr(found.program, name) == getattr(program, name)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with User(home=str(tmp_path)) as dp:
        dp.obj_pin("/sys/fs/bpf/p", dp.prog_load(Program.from_bytes(encode(assemble("r0 = 0\nexit")), name="zero")))
    return tmp_path


def change(home: Path, **fields: Any) -> None:
    path = home / "bpf/p"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


WRONG: dict[str, Any] = {"number": 1, "text": "text", "list": [1, "x"], "nothing": None, "object": {}, "true": True}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("field", [*progfile._OF_RECORD, *progfile._OF_PROGRAM])
def test_a_field_of_another_type_is_damage(home: Path, field: str, wrong: str) -> None:
    """Or it is a value that the field may have: then it is used, and nothing else happens."""
    change(home, **{field: WRONG[wrong]})
    with User(home=str(home)) as dp:
        try:
            found = dp.obj_get("/sys/fs/bpf/p")
        except SysError as error:
            assert error.errno == errno.EINVAL and "program file" in error.detail
        else:
            assert getattr(found, "type", "") == "sched_cls"
        dp.progs()


@pytest.mark.parametrize("raw", [b"{", b"{}", b'{"format": "tcbpf program 2"}', b"{" * 100_000, b'{"format": 2}', b"\xff"])
def test_other_files_are_not_programs(home: Path, raw: bytes) -> None:
    (home / "bpf/p").write_bytes(raw)
    with User(home=str(home)) as dp, pytest.raises(SysError):
        dp.obj_get("/sys/fs/bpf/p")


def test_a_field_that_is_missing_is_named(home: Path) -> None:
    path = home / "bpf/p"
    fields = json.loads(path.read_text())
    del fields["license"]
    path.write_text(json.dumps(fields))
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(InputError, match="a damaged program file: license"):
        progfile.read_head(fd)
    os.close(fd)
