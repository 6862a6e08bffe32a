"""A one-shot run is a run on a datapath, and a cached program serves only the inputs that it was made from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tcbpf import cache
from tcbpf.cbpf.expression import bytecode
from tcbpf.cli import main, run
from tcbpf.cli.arguments import Source
from tcbpf.datapath.capture import build, one_shot
from tcbpf.datapath.capture.prepared import Prepared
from tcbpf.datapath.user import User
from tcbpf.errors import NotSupported
from tcbpf.lang import compile
from tcbpf.lang.compiler import Compiler
from tcbpf.native.mapmemory import MapTemplate
from tcbpf.native.runtime import MapFile
from tcbpf.net.generate import generate
from tcbpf.net.pcap import read
from tcbpf.obj.program import MapSpec, Program

EXAMPLES = Path(__file__).parents[3] / "examples"

COUNTING = """
#include <bpf_helpers.h>
#include "verdict.h"
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, __u32); __type(value, __u64); }
    seen SEC(".maps");
__u32 limit = 3;
const volatile __u32 other = 7;
SEC("tc") int few(struct __sk_buff *skb)
{
    __u32 key = 1;
    __u64 one = 1, *count = bpf_map_lookup_elem(&seen, &key);
    if (!count) { bpf_map_update_elem(&seen, &key, &one, 0); return VERDICT; }
    return __sync_fetch_and_add(count, 1) < limit ? VERDICT : other;
}
SEC("tc/egress") int all(struct __sk_buff *skb) { return 5; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a program, a capture and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "verdict.h").write_text("#define VERDICT 0\n")
    (tmp_path / "x.c").write_text(COUNTING)
    generate(tmp_path / "x.pcap", 10)
    return tmp_path


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Program]:
    """The programs that were built, not found in the cache."""
    programs: list[Program] = []
    real = build.build

    def spy(program: Program, notes: tuple[str, ...] = ()) -> Prepared | None:
        programs.append(program)
        return real(program, notes)

    monkeypatch.setattr(build, "build", spy)
    return programs


def verdicts(place: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, int]:
    capsys.readouterr()
    assert main(["run", str(place / "x.c"), str(place / "x.pcap"), "--json", *(words or ("--section", "tc"))]) == 0
    found: dict[str, int] = json.loads(capsys.readouterr().out)["verdicts"]
    return found


def test_a_second_time_makes_nothing_and_begins_with_new_maps(place, made, capsys) -> None:
    for _ in range(3):
        assert verdicts(place, capsys) == {"0": 3, "7": 7}
    assert len(made) == 1


def dotted(path: str) -> str:
    return f"tcbpf.{path.replace('/', '.')}."


def test_a_warm_start_imports_nothing_that_makes(place) -> None:
    words = ["run", str(place / "x.c"), str(place / "x.pcap"), "--section", "tc"]
    program = f"import sys; from tcbpf.cli import main; main({words}); print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-S", "-c", program]
    cold, warm = (
        subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
        )
        for _ in range(2)
    )
    assert {"llvmlite", "tcbpf.verifier"} <= set(cold.stderr.split())
    assert not [name for name in cold.stderr.split() for path in cache.APART if f"{name}.".startswith(dotted(path))]
    heavy = {
        "argparse",
        "dataclasses",
        "elftools",
        "enum",
        "hashlib",
        "inspect",
        "llvmlite",
        "pathlib",
        "pyroute2",
        "queue",
        "re",
        "rich",
        "sqlite3",
        "subprocess",
        "tempfile",
        "threading",
        "typing",
        "tcbpf.isa",
        "tcbpf.uapi",
        "tcbpf.obj",
        "tcbpf.verifier",
        "tcbpf.maps",
        "tcbpf.datapath.user",
        "tcbpf.datapath.base",
    }
    assert "tcbpf.datapath.capture.one_shot" in warm.stderr.split() and not heavy & set(warm.stderr.split())
    assert "10 packets" in warm.stdout


def change_source(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "x.c").write_text(COUNTING.replace("limit = 3", "limit = 9"))


def change_header(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "verdict.h").write_text("#define VERDICT 2\n")


def change_package(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "identity", lambda: b"another")


def change_cpu(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_shot, "cpu", lambda: b"another")


def change_number_of_cpus(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_shot, "possible_cpus", lambda: 99)


def change_kernel(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((now.sysname, now.nodename, "7.0", now.version, now.machine)))


def test_a_filter_is_kept_by_its_bytecode(place, made, capsys) -> None:
    try:
        bytecode("ip")
    except NotSupported as why:
        pytest.skip(str(why))

    def matches(*words: str) -> int:
        assert main(["cbpf", "run", *words, str(place / "x.pcap"), "--json"]) == 0
        return int(json.loads(capsys.readouterr().out)["matches"])

    asked = {"udp": matches("udp"), "tcp": matches("tcp"), "not udp": matches("(not udp)")}
    assert len(made) == 3 and asked["udp"] + asked["not udp"] == 10 and 0 < asked["udp"] < 10
    (place / "filter").write_text("ldh [12]\njne #0x800, no\nldb [23]\njne #17, no\nret #-1\nno: ret #0\n")
    assert {text: matches(text) for text in asked} == asked and len(made) == 3
    found = matches(str(place / "filter"))
    assert found == matches(str(place / "filter")) <= asked["udp"] and len(made) == 4
    assert matches("tcp", "--datapath", "user", "-O0") == asked["tcp"]


def damage(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = (place / "cache/tcbpf/programs").iterdir()
    entry.write_bytes(entry.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("change", "then"),
    [
        (change_source, {"0": 9, "7": 1}),
        (change_header, {"2": 3, "7": 7}),
        *((change, {"0": 3, "7": 7}) for change in (change_package, change_cpu, change_number_of_cpus, change_kernel, damage)),
    ],
)
def test_whatever_changes_is_made_again(change, then, place, made, capsys, monkeypatch) -> None:
    verdicts(place, capsys)
    change(place, monkeypatch)
    assert verdicts(place, capsys) == verdicts(place, capsys) == then
    assert len(made) == 2


def test_another_compiler_compiles_again(place, capsys, monkeypatch) -> None:
    from tcbpf.lang import c

    runs: list[object] = []
    real = c._run
    monkeypatch.setattr(c, "_run", lambda job, scratch: (runs.append(job), real(job, scratch))[1])
    verdicts(place, capsys)
    monkeypatch.setattr(Compiler, "identity", lambda self: b"another")
    assert verdicts(place, capsys) == verdicts(place, capsys) == {"0": 3, "7": 7}
    assert len(runs) == 2


def test_each_program_of_a_file_is_its_own(place, made, capsys) -> None:
    for _ in range(2):
        assert verdicts(place, capsys, "--name", "all") == {"5": 10}
        assert verdicts(place, capsys, "--name", "few") == {"0": 3, "7": 7}
    assert len(made) == 2


def test_without_a_cache_it_is_made_each_time(place, made, capsys, monkeypatch) -> None:
    (place / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "file"))
    assert verdicts(place, capsys) == verdicts(place, capsys) == {"0": 3, "7": 7}
    assert len(made) == 2


def test_remarks_are_made_once_a_run(place, capsys) -> None:
    (place / "x.c").write_text(COUNTING.replace("return 5;", "return 5 / 0;"))
    for _ in range(3):
        assert main(["run", str(place / "x.c"), str(place / "x.pcap"), "--section", "tc"]) == 0
        assert capsys.readouterr().err.count("division by zero") == 1


def test_a_refused_program_is_refused_each_time(place, capsys) -> None:
    (place / "x.c").write_text(COUNTING.replace("return 5;", "return *(int *)(long)skb->data;"))
    said = set()
    for _ in range(2):
        assert main(["run", str(place / "x.c"), str(place / "x.pcap"), "--name", "all"]) == 2
        said.add(capsys.readouterr().err)
    (line,) = said
    assert "invalid access to packet" in line and line.count("\n") == 1
    assert not (place / "cache/tcbpf/programs").exists()


def test_a_program_that_prints_takes_the_long_way(place, capsys, monkeypatch) -> None:
    (place / "x.c").write_text(COUNTING.replace("return 5;", 'bpf_printk("seen"); return 5;'))
    monkeypatch.setenv("TCBPF_HOME", str(place / "home"))
    for _ in range(2):
        assert verdicts(place, capsys, "--name", "all") == {"5": 10}
    assert (place / "home/trace").read_text().count("bpf_trace_printk: seen") == 20
    assert run.one_shot(Source(str(place / "x.c")), "", "all") is None


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.c")), ids=lambda path: path.stem)
def test_an_example_run_once_is_the_example(path: Path, tmp_path: Path) -> None:
    obj = compile(path)
    for entry in obj.entries:
        for capture in sorted((EXAMPLES / "captures").glob("*.pcap*"))[:3]:
            with User(home=str(tmp_path / "home")) as dp:
                expected = dp.load(run.unpinned(obj), program=entry).run_pcap(str(capture), out=str(tmp_path / "long.pcapng"))
            found = run.one_shot(Source(str(path)), "", entry)
            if found is None:
                continue
            with found:
                stats = found.run_pcap(str(capture), out=str(tmp_path / "once.pcapng"))
            assert replaced(stats) == replaced(expected)
            assert (tmp_path / "once.pcapng").read_bytes() == (tmp_path / "long.pcapng").read_bytes()


def replaced(stats: object) -> dict[str, object]:
    return {**vars(stats), "duration_ns": 0}


SPECS: list[tuple[str, int, int, int]] = [
    ("array", 4, 100, 0),
    ("percpu_array", 4, 8, 0),
    ("hash", 4, 8, 0),
    ("percpu_hash", 4, 8, 0),
    ("lru_hash", 4, 8, 0),
    ("lpm_trie", 8, 8, 1),
    ("queue", 0, 8, 0),
    ("stack", 0, 8, 0),
]


@pytest.mark.parametrize("row", SPECS, ids=lambda row: row[0])
def test_a_picture_of_a_map_is_the_map(row: tuple[str, int, int, int]) -> None:
    type, key, value, flags = row
    spec = MapSpec("m", type, key, value, 5000, flags)
    if type == "array":
        spec = replace(spec, max_entries=1, contents=b"x" * 100, frozen=True)
    one = MapFile.create(spec)
    two = MapTemplate.of(one, "m").instantiate()
    differs = ("seed", "load_time")
    assert one.struct.seed != two.struct.seed
    for name in differs:
        setattr(two.struct, name, getattr(one.struct, name))
    assert bytes(one._memory) == bytes(two._memory) and len(two._memory) > 4096
    one.close()
    two.close()


def test_a_map_that_memory_does_not_hold_is_an_error_each_time(place, capsys) -> None:
    (place / "x.c").write_text(COUNTING.replace("max_entries, 64", "max_entries, 4000000000"))
    for _ in range(2):
        assert main(["run", str(place / "x.c"), str(place / "x.pcap"), "--section", "tc"]) == 2
        assert "create seen" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["kept.pcap", "kept.pcapng"])
def test_what_passes_is_written_in_the_format_of_its_name(name: str, place: Path, capsys) -> None:
    assert verdicts(place, capsys, "--section", "tc", "--out", str(place / name)) == {"0": 3, "7": 7}
    kept, whole = list(read(place / name)), list(read(place / "x.pcap"))
    assert [(p.data, p.ts_ns) for p in kept] == [(p.data, p.ts_ns) for p in whole[:3]], "a redirected packet is not kept"
