"""Objects through `tcbpf tc`: legacy maps, pinning scopes, tail calls, grafts, maps handed over, reasons for a refusal."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.tc_transcript import ours, theirs
from cli.test_tc import Place, make_devices
from netns import netns
from tcbpf.control.handles import HOOKS
from tcbpf.control.objects import Filter
from tcbpf.control.request import Op, Request
from tcbpf.datapath.base import Datapath, Prog
from tcbpf.datapath.choose import open_datapath
from tcbpf.lang import compile_c
from tcbpf.maps.map import Map
from tcbpf.obj import load

FRAME = bytes.fromhex("020000000002020000000001 0800") + bytes(86)

LEGACY = """
#include "bpf_api.h"
struct bpf_elf_map __section("maps") JMP = {
    .type = BPF_MAP_TYPE_PROG_ARRAY, .id = 42, .size_key = 4, .size_value = 4, .pinning = PIN_OBJECT_NS, .max_elem = 4 };
struct bpf_elf_map __section("maps") SHARED = {
    .type = BPF_MAP_TYPE_ARRAY, .size_key = 4, .size_value = 4, .pinning = PIN_GLOBAL_NS, .max_elem = 2 };
static __inline__ void count(int slot, int by)
{
    int *value = map_lookup_elem(&SHARED, &slot);
    if (value)
        lock_xadd(value, by);
}
__section_tail(42, 0) int first(struct __sk_buff *skb) { count(0, 10); tail_call(skb, &JMP, 1); return 1; }
__section_tail(42, 0x1) int second(struct __sk_buff *skb) { count(1, 5); return 7; }
__section_cls_entry int entry(struct __sk_buff *skb) { tail_call(skb, &JMP, 0); return 3; }
BPF_LICENSE("GPL");
"""
GRAFT = '#include "bpf_api.h"\n__section_tail(42, 1) int other(struct __sk_buff *skb) { return 77; }\nBPF_LICENSE("GPL");\n'
BAD = (
    '#include "bpf_api.h"\n__section_cls_entry int bad(struct __sk_buff *skb) { return *(char *)(long)skb->data; }\n'
    'BPF_LICENSE("GPL");\n'
)


class Bench(Place):
    """A place with a clsact qdisc on em1, and a legacy object whose map names are the test's own."""

    name: str

    def objects(self) -> tuple[Path, str, str]:
        """Write the legacy object; return its path, its shared map's pin and its program array's."""
        unique = uuid.uuid4().hex[:8]
        path = self.directory / f"legacy_{unique}.o"
        raw = compile_c(LEGACY.replace("SHARED", f"s_{unique}").replace("JMP", f"j_{unique}"))
        path.write_bytes(raw)
        return path, f"/sys/fs/bpf/tc/globals/s_{unique}", f"/sys/fs/bpf/tc/{load(raw).sha1}/j_{unique}"

    def source(self, name: str, text: str) -> str:
        (self.directory / name).write_text(text)
        return name


@pytest.fixture(params=["user", pytest.param("kernel", marks=pytest.mark.kernel)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Bench, Datapath]]:
    directory = tmp_path / "objects"
    directory.mkdir()
    home = str(tmp_path / "home")
    if request.param == "kernel":
        with netns() as path:
            make_devices("kernel", path, tmp_path / "home")
            made = Bench(["--datapath", "kernel", "-n", path], directory, path)
            with open_datapath("kernel", netns=path) as dp:
                assert made.tc("qdisc", "add", "dev", "em1", "clsact").status == 0
                yield made, dp
        return
    make_devices("user", "", tmp_path / "home")
    made = Bench(["--datapath", "user", "--home", home], directory)
    assert made.tc("qdisc", "add", "dev", "em1", "clsact").status == 0
    with open_datapath("user", home=home) as dp:
        yield made, dp


@pytest.fixture
def legacy(bench: tuple[Bench, Datapath]) -> Iterator[tuple[Bench, Datapath, Path, str, str]]:
    made, dp = bench
    path, shared, jumps = made.objects()
    yield made, dp, path, shared, jumps
    if dp.name == "kernel":
        for pin in (shared, jumps):
            Path(pin).unlink(missing_ok=True)
        Path(jumps).parent.rmdir()


def attached(dp: Datapath, hook: str = "ingress") -> Prog:
    """Return the program of the first filter at a hook of em1."""
    rows = dp.apply(Request(Op.SHOW, Filter("em1", HOOKS[hook], protocol=0)))
    id = next(row.options.id for row in rows if isinstance(row, Filter) and row.handle)  # type: ignore[union-attr]
    return next(prog for prog in dp.progs() if prog.id == id)


def shared_map(dp: Datapath, path: str) -> list[int]:
    found = dp.obj_get(path)
    assert isinstance(found, Map)
    return [int.from_bytes(found.lookup(slot.to_bytes(4, "little")) or b"", "little") for slot in range(2)]


def test_legacy_maps_tail_calls_and_scopes(legacy: tuple[Bench, Datapath, Path, str, str]) -> None:
    bench, dp, path, shared, jumps = legacy
    for hook in ("ingress", "egress"):
        said = bench.tc("filter", "add", "dev", "em1", hook, "bpf", "da", "obj", path.name)
        assert (said.status, said.err) == (0, "")
    assert attached(dp).run(FRAME).verdict == 7 and attached(dp, "egress").run(FRAME).verdict == 7
    assert shared_map(dp, shared) == [20, 10]  # one map for both hooks
    assert dp.obj_get(jumps).spec.type == "prog_array"  # type: ignore[union-attr]


@pytest.mark.kernel
@pytest.mark.parametrize("bench", ["kernel"], indirect=True)
def test_the_installed_tc_refuses_what_is_loaded_here(legacy: tuple[Bench, Datapath, Path, str, str]) -> None:
    bench, _, path, _, _ = legacy
    if not shutil.which("tc"):
        pytest.skip("no tc is installed")
    said = theirs(["filter", "add", "dev", "em1", "egress", "bpf", "da", "obj", path.name], bench.netns, bench.directory)
    if said.status == 0:
        pytest.skip("this tc has the legacy loader")
    assert "legacy map definitions" in said.err
    assert bench.tc("filter", "add", "dev", "em1", "egress", "bpf", "da", "obj", path.name).status == 0


@pytest.mark.kernel
@pytest.mark.parametrize("bench", ["kernel"], indirect=True)
def test_the_kernels_remarks_beside_a_success_are_printed(bench: tuple[Bench, Datapath]) -> None:
    made, _ = bench
    assert made.tc("qdisc", "add", "dev", "em1", "root", "handle", "1:", "htb").status == 0
    said = made.tc("class", "add", "dev", "em1", "parent", "1:", "classid", "1:1", "htb", "rate", "10gbit")
    assert (said.status, said.err) == (0, "Warning: sch_htb: quantum of class 10001 is big. Consider r2q change.\n")


def test_a_graft_replaces_a_slot(legacy: tuple[Bench, Datapath, Path, str, str]) -> None:
    bench, dp, path, _, jumps = legacy
    assert bench.tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", path.name).status == 0
    work = "m:" + jumps.removeprefix("/sys/fs/bpf/tc/")
    graft = bench.source("graft.c", GRAFT)
    said = bench.tc("exec", "bpf", "graft", work, "obj", graft, "sec", "42/1")
    assert (said.status, said.err) == (0, "")
    assert attached(dp).run(FRAME).verdict == 77
    assert bench.tc("exec", "bpf", "graft", jumps, "key", "0", "obj", graft, "sec", "42/1").status == 0
    assert attached(dp).run(FRAME).verdict == 77
    plain = bench.source("plain.c", GRAFT.replace("__section_tail(42, 1)", "__section_cls_entry"))
    said = bench.tc("exec", "bpf", "graft", work, "obj", plain)
    assert said.status == 234
    assert said.err == "Couldn't infer map key from section name! Please provide 'key' argument!\n"
    said = bench.tc("exec", "bpf", "graft", "m:globals/nothing", "key", "0", "obj", plain)
    assert said.status == 255 and said.err == "Couldn't retrieve pinned map 'm:globals/nothing': No such file or directory\n"


def test_a_pinned_map_of_another_shape_is_not_adopted(legacy: tuple[Bench, Datapath, Path, str, str]) -> None:
    bench, _, path, shared, _ = legacy
    assert bench.tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", path.name).status == 0
    name = shared.rsplit("/", 1)[1]
    text = LEGACY.replace("SHARED", name).replace("JMP", "other").replace("max_elem = 2", "max_elem = 3")
    said = bench.tc("filter", "add", "dev", "em1", "egress", "bpf", "da", "obj", bench.source("other.c", text))
    assert (said.status, said.err.splitlines()) == (
        1,
        [
            "Map specification differs from pinned file!",
            " - Max elems:    3 (obj) != 2 (pin)",
            "",
            f"Map '{name}' self-check failed!",
            "Unable to load program",
        ],
    )
    assert bench.tc("filter", "show", "dev", "em1", "egress").out == ""


def test_a_refused_program_leaves_no_pin(legacy: tuple[Bench, Datapath, Path, str, str]) -> None:
    bench, dp, _, shared, jumps = legacy
    name = shared.rsplit("/", 1)[1]
    bad = LEGACY.replace("SHARED", name).replace("JMP", "other").replace("return 3;", "return *(char *)(long)skb->data;")
    said = bench.tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", bench.source("bad.c", bad))
    assert said.status == 1
    with pytest.raises(OSError):
        dp.obj_get(shared)
    Path(jumps).parent.mkdir(parents=True, exist_ok=True) if dp.name == "kernel" else None


def test_a_refusal_gives_the_verifiers_reason(bench: tuple[Bench, Datapath]) -> None:
    said = bench[0].tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", bench[0].source("bad.c", BAD))
    lines = said.err.splitlines()
    assert said.status == 1 and lines[-1] == "Unable to load program"
    assert "Prog section 'classifier' rejected: Permission denied (13)!" in lines and " - Type:         3" in lines
    assert any(line.startswith("invalid access to packet, off=0 size=1") for line in lines)


def test_a_program_array_that_will_be_emptied_is_warned_of(bench: tuple[Bench, Datapath]) -> None:
    text = LEGACY.replace("SHARED", "s").replace("JMP", "j")
    text = text.replace("PIN_OBJECT_NS", "PIN_NONE").replace("PIN_GLOBAL_NS", "PIN_NONE")
    said = bench[0].tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", bench[0].source("unpinned.c", text))
    assert said.status == 0 and said.err.startswith("Warning: program array j is not pinned")
    assert attached(bench[1]).run(FRAME).verdict == 3  # as its last user was the command


def test_a_refused_tail_call_is_named(bench: tuple[Bench, Datapath]) -> None:
    text = LEGACY.replace("SHARED", "s").replace("JMP", "j")
    text = text.replace("PIN_OBJECT_NS", "PIN_NONE").replace("PIN_GLOBAL_NS", "PIN_NONE")
    bad = bench[0].source("tail.c", text.replace("return 7;", "return *(char *)(long)skb->data;"))
    said = bench[0].tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", bad)
    assert said.status == 1 and "Prog section '42/0x1' rejected: Permission denied (13)!" in said.err.splitlines()


def test_verbose_prints_the_log_of_what_is_loaded(bench: tuple[Bench, Datapath]) -> None:
    text = GRAFT.replace("__section_tail(42, 1)", "__section_cls_entry")
    said = bench[0].tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", bench[0].source("ok.c", text), "verb")
    assert said.status == 0 and "Prog section 'classifier' loaded" in said.err and "0 = 77" in said.err


@pytest.mark.parametrize(
    ("words", "status", "err"),
    [
        (
            "ARRAY key 1 obj g.c type act",
            255,
            "Program array map owner types differ: 4 (obj) != 3 (pin)\nMap update failed: Invalid argument",
        ),
        ("ARRAY key 9 obj g.c", 255, "Map update failed: Argument list too long"),
        ("ARRAY key 1 object-pinned g.c", 255, "Couldn't retrieve pinned program 'g.c': Permission denied\n"),
        ("ARRAY obj g.c sec nosuch", 255, "object file doesn't contain sec nosuch\n"),
        ("ARRAY key x obj g.c", 255, 'Illegal "key"\n'),
        ("ARRAY key 1 obj g.c type foo", 255, 'What type is "foo"?\n'),
        ("ARRAY key 1 foo g.c", 255, 'What mode is "foo"?\n'),
        ("ARRAY key 1 bytecode '1,6 0 0 1'", 255, 'What mode is "bytecode"?\n'),
        (
            "SHARED key 1 obj g.c",
            234,
            "Map specification differs from pinned file!\n - Type:         3 (obj) != 2 (pin)\n\n"
            "Map 'SHARED' self-check failed!\n",
        ),
        ("g.c key 1 obj g.c", 255, "Couldn't retrieve pinned map 'g.c': Permission denied\n"),
    ],
    ids=lambda value: value if isinstance(value, str) and "key" in value else "",
)
def test_what_is_said_of_a_graft_that_fails(
    legacy: tuple[Bench, Datapath, Path, str, str], words: str, status: int, err: str
) -> None:
    bench, dp, path, shared, jumps = legacy
    assert bench.tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", path.name).status == 0
    bench.source("g.c", GRAFT.replace("__section_tail(42, 1)", "__section_cls_entry"))
    said = bench.tc("exec", "bpf", "graft", *shlex.split(words.replace("ARRAY", jumps).replace("SHARED", shared)))
    assert (said.status, said.out) == (status, "") and said.err.startswith(err.replace("SHARED", shared))
    assert attached(dp).run(FRAME).verdict == 7


@pytest.mark.parametrize("calls", [True, False])
def test_an_object_for_a_program_array_of_another_type_is_told_so(bench: tuple[Bench, Datapath], calls: bool) -> None:
    """A program that calls through a pinned array of another type's programs, and one that would only fill it."""
    made, dp = bench
    name = f"j_{uuid.uuid4().hex[:8]}"
    pin = f"/sys/fs/bpf/tc/globals/{name}"
    text = LEGACY.replace("PIN_GLOBAL_NS", "PIN_NONE").replace("PIN_OBJECT_NS", "PIN_GLOBAL_NS").replace("JMP", name)
    words = ("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", made.source("cls.c", text))
    assert made.tc(*words).status == 0
    try:
        text = text.replace("__section_cls_entry", "__section_act_entry")
        other = made.source("act.c", text if calls else text.replace(f"tail_call(skb, &{name}, ", "(void)("))
        said = made.tc("exec", "bpf", "graft", pin, "key", "1", "obj", other, "type", "act")
        first = (
            "Program array map owner types differ: 4 (obj) != 3 (pin)"
            if calls
            else "Tail call map owned by prog type 3, but prog type is 4!"
        )
        assert said.status == 255 and said.err.splitlines()[0] == first and "Invalid argument" in said.err.splitlines()[1]
        assert attached(dp).run(FRAME).verdict == 7
    finally:
        dp.obj_unpin(pin)


def test_a_map_whose_scope_nothing_names_is_not_pinned(bench: tuple[Bench, Datapath]) -> None:
    text = LEGACY.replace("SHARED", "s").replace("JMP", "j").replace("PIN_OBJECT_NS", "77").replace("PIN_GLOBAL_NS", "PIN_NONE")
    said = bench[0].tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", bench[0].source("scope.c", text))
    assert said.status == 0
    assert said.err.startswith("Warning: map j is not pinned: no line of /etc/iproute2/bpf_pinning names scope 77\n")


def test_a_short_map_struct_is_told_of_when_asked(bench: tuple[Bench, Datapath]) -> None:
    short = (
        '#include "bpf_api.h"\nstruct s { unsigned a, b, c, d; };\nstruct s __section("maps") M = { 2, 4, 4, 3 };\n'
        "__section_cls_entry int cls(struct __sk_buff *skb) { int k = 0; return map_lookup_elem(&M, &k) ? 5 : 6; }\n"
        'BPF_LICENSE("GPL");\n'
    )
    words = ("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", bench[0].source("short.c", short))
    assert bench[0].tc(*words).out == ""
    assert attached(bench[1]).run(FRAME).verdict == 5
    assert bench[0].tc(*words, "verbose").out == "20 bytes struct bpf_elf_map fixup performed due to size mismatch!\n"


def test_a_tail_call_section_of_a_map_of_another_type_is_refused(bench: tuple[Bench, Datapath]) -> None:
    text = LEGACY.replace("SHARED", "s").replace("JMP", "j").replace("PIN_OBJECT_NS", "PIN_NONE")
    text = text.replace("PIN_GLOBAL_NS", "PIN_NONE").replace(".id = 42,", "")
    text = text.replace("ARRAY, .size_key", "ARRAY, .id = 42, .size_key")
    said = bench[0].tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", bench[0].source("other.c", text))
    assert said.status == 1 and "42/0: no program array has id #" in said.err


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("nothing.o", None, "nothing.o: no such file"),
        ("text.o", "hello", "not an ELF file"),
        ("broken.c", "int f( {", "error:"),
    ],
)
def test_files_that_are_no_objects(bench: tuple[Bench, Datapath], name: str, text: str | None, words: str) -> None:
    if text is not None:
        bench[0].source(name, text)
    said = bench[0].tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", name)
    assert said.status == 1 and words in said.err and said.err.endswith("Unable to load program\n")
    assert bench[0].tc("filter", "show", "dev", "em1", "ingress").out == ""


def test_a_pinned_program_is_attached_by_its_path(bench: tuple[Bench, Datapath]) -> None:
    made, dp = bench
    from tcbpf.datapath import loader

    path = f"/sys/fs/bpf/tc/globals/p_{uuid.uuid4().hex[:8]}"
    text = GRAFT.replace("__section_tail(42, 1)", "__section_cls_entry")
    dp.obj_pin(path, loader.load(dp, load(compile_c(text))).prog)
    try:
        said = made.tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "object-pinned", path)
        assert (said.status, said.err) == (0, "")
        shown = made.tc("filter", "show", "dev", "em1", "ingress").out
        assert f"handle 0x1 {path.rsplit('/', 1)[1]}:[*fsobj] direct-action" in shown
        assert attached(dp).run(FRAME).verdict == 77
    finally:
        if dp.name == "kernel":
            os.unlink(path)


def test_maps_are_handed_to_another_process(legacy: tuple[Bench, Datapath, Path, str, str], tmp_path: Path) -> None:
    bench, _, path, _, _ = legacy
    uds, seen = str(tmp_path / "uds"), tmp_path / "seen"
    script = f"env | grep ^BPF_ > {seen}; ls -l /proc/self/fd > {seen}.fds"
    importer = subprocess.Popen(
        [sys.executable, "-m", "tcbpf", "tc", *bench.options, "exec", "bpf", "import", uds, "run", "sh", "-c", script],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
    )
    for _ in range(200):
        if os.path.exists(uds):
            break
        time.sleep(0.02)
    said = bench.tc("filter", "add", "dev", "em1", "ingress", "bpf", "da", "obj", path.name, "export", uds)
    assert (said.status, said.err) == (0, "")
    assert importer.wait(20) == 0
    environment = dict(line.split("=", 1) for line in seen.read_text().splitlines())
    assert environment["BPF_NUM_MAPS"] == "2" and "BPF_MAP42" in environment
    fds = Path(f"{seen}.fds").read_text()
    assert f" {environment['BPF_MAP42']} -> " in fds
    assert not os.path.exists(uds)


def test_the_trace_is_read_until_the_end(bench: tuple[Bench, Datapath], monkeypatch: pytest.MonkeyPatch) -> None:
    made, dp = bench
    monkeypatch.setattr(type(dp), "trace_pipe", lambda self: iter(["one", "two"]))
    said = ours(["exec", "bpf", "dbg"], made.options, made.directory)
    assert (said.status, said.err) == (0, "Running! Hang up with ^C!\n\none\ntwo\n")


@pytest.mark.kernel
@pytest.mark.parametrize("bench", ["kernel"], indirect=True)
def test_trace_printk_reaches_the_pipe(bench: tuple[Bench, Datapath]) -> None:
    _, dp = bench
    from tcbpf.datapath import loader

    text = (
        '#include "bpf_api.h"\n__section_cls_entry int say(struct __sk_buff *skb)\n{ char f[] = "tcbpf %d\\n";'
        ' trace_printk(f, sizeof(f), skb->mark); return 0; }\nBPF_LICENSE("GPL");\n'
    )
    prog = loader.load(dp, load(compile_c(text))).prog
    number = int.from_bytes(os.urandom(3), "big")
    found = threading.Event()

    def listen() -> None:
        for line in dp.trace_pipe():
            if f"tcbpf {number}" in line:
                found.set()
                return

    threading.Thread(target=listen, daemon=True).start()
    for _ in range(50):
        prog.run(FRAME, {"mark": number})
        if found.wait(0.1):
            break
    assert found.is_set()


def test_an_importer_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    uds = str(tmp_path / "uds")
    importer = subprocess.Popen(
        [sys.executable, "-m", "tcbpf", "tc", "exec", "bpf", "import", uds, "run", "true"],
        stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        for _ in range(200):
            try:
                out.connect(uds)
                break
            except OSError:
                time.sleep(0.02)
        out.send(b"\x63\x00" + bytes(100))
    assert importer.wait(20) == 256 - 38 and b"version 1" in importer.communicate()[1]
