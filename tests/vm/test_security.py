"""Safe by construction: pages, offsets, traps, blinding, and a cache that cannot be tampered with unnoticed."""

import ctypes
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcbpf import cache
from tcbpf.cli import main
from tcbpf.errors import InputError, InternalError
from tcbpf.isa.insn import Insn
from tcbpf.obj.program import MapSpec
from tcbpf.verifier.verified import Region, Subprog
from tcbpf.vm.executable import Options, compile
from tcbpf.vm.jit import blind, jit, llvm
from tcbpf.vm.jit import memfuncs as plain
from tcbpf.vm.jit.elf_image import link
from tcbpf.vm.jit.image import PAGE, Image
from tcbpf.vm.jit.pages import Pages
from vm.by_hand import Packet, a_map, an_env, verified
from vm.test_random import programs

EXIT = Insn(0x95)
SECRET = 0x5EC2E7AB
DATA = MapSpec(".data", "array", 4, 64, 1)


def mappings():
    """Return (start, end, permissions) of this process's memory."""
    with open("/proc/self/maps") as file:
        for line in file:
            span, permissions = line.split()[:2]
            start, end = (int(word, 16) for word in span.split("-"))
            yield start, end, permissions


def test_no_page_is_writable_and_executable():
    def both():
        return {row[0] for row in mappings() if "w" in row[2] and "x" in row[2]}

    compile(verified(EXIT), [], Options(cache=False))
    before = both()  # ctypes' own trampolines, where libffi makes them so
    kept = [compile(verified(Insn(0xB7, 0, 0, 0, i), EXIT), [], Options(cache=False)) for i in range(3)]
    pages = [Pages(Image(b"\xc3" * n, b"x" * m, {"prog": 0})) for n in (1, 4096, 9000) for m in (0, 1, 5000)]
    everything = list(mappings())
    assert both() == before
    assert all(not start <= exe._pages.start < end for exe in kept for start, end, _ in everything if start in before)
    for page in pages:
        assert any(start <= page.start < end and permissions.startswith("r-x") for start, end, permissions in everything)
        if page.size > 2 * PAGE + page.text_size:
            last = page._base + page.size - 1
            assert any(start <= last < end and permissions.startswith("r--") for start, end, permissions in everything)
    assert kept


def test_code_starts_at_a_random_place_and_the_rest_traps():
    image = Image(b"\xc3" * 100, b"", {"prog": 0})
    offsets = set()
    for _ in range(40):
        page = Pages(image)
        offsets.add(page.start % PAGE)
        around = ctypes.string_at(page._base, page.size)
        hole = page.start - page._base
        assert around[:hole] == b"\xcc" * hole and around[hole + 100 :] == b"\xcc" * (page.size - hole - 100)
        page.close()
    assert len(offsets) > 15 and all(offset % 64 == 0 for offset in offsets)


def test_data_is_at_its_distance_and_not_executable():
    image = Image(b"\xc3" * 5000, b"constant", {"prog": 0})
    page = Pages(image)
    assert ctypes.string_at(page.start + image.distance, 8) == b"constant"
    here = [permissions for start, end, permissions in mappings() if start <= page.start + image.distance < end]
    assert here == ["r--p"]


CONSTANTS = {
    "mov": (Insn(0xB7, 0, imm=SECRET - (1 << 32) if SECRET >> 31 else SECRET), EXIT),
    "add": (Insn(0x61, 0, 1, 8), Insn(0x07, 0, imm=SECRET), EXIT),
    "alu32": (Insn(0x61, 0, 1, 8), Insn(0xA4, 0, imm=SECRET), EXIT),
    "jump": (Insn(0x61, 2, 1, 8), Insn(0xB7, 0), Insn(0x15, 2, 0, 1, SECRET), Insn(0xB7, 0, imm=1), EXIT),
    "jump32": (Insn(0x61, 2, 1, 8), Insn(0xB7, 0), Insn(0x16, 2, 0, 1, SECRET), Insn(0xB7, 0, imm=1), EXIT),
    "store": (Insn(0x62, 1, 0, 48, SECRET), Insn(0xB7, 0), EXIT),
    "wide": (Insn(0x18, 0, imm=SECRET), Insn(0, imm=SECRET), EXIT),
    "stack": (Insn(0x62, 10, 0, -8, SECRET), Insn(0x61, 0, 10, -8), EXIT),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_blinding_leaves_no_constant(name):
    insns = tuple(i._replace(imm=i.imm if i.imm < 1 << 31 else i.imm - (1 << 32)) for i in CONSTANTS[name])
    program = verified(*insns)
    plainly, hidden = compile(program, [], Options(cache=False)), compile(program, [], Options(harden=2))
    needle = struct.pack("<I", SECRET)
    assert needle in plainly.code, "the test would see it"
    assert needle not in hidden.code
    packets = [Packet(bytes(64)) for _ in range(2)]
    for packet in packets:
        packet.raw.u.mark = SECRET
    assert plainly.run(packets[0], an_env()) == hidden.run(packets[1], an_env())
    assert packets[0].raw.u.cb[0] == packets[1].raw.u.cb[0]
    assert compile(program, [], Options(harden=2)).code != hidden.code, "the keys are new each time"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({}, Options()),
        ({"ENABLE": "1", "HARDEN": "0"}, Options()),
        ({"ENABLE": "0"}, Options(engine="interp")),
        ({"HARDEN": "1"}, Options(harden=1)),
        ({"HARDEN": "2"}, Options(harden=2)),
    ],
)
def test_the_environment_has_the_sysctl_s_numbers(said, wanted, monkeypatch):
    for name in ("ENABLE", "HARDEN"):
        monkeypatch.delenv(f"TCBPF_JIT_{name}", raising=False)
    for name, number in said.items():
        monkeypatch.setenv(f"TCBPF_JIT_{name}", number)
    assert Options.from_environment() == wanted


@pytest.mark.parametrize(("name", "number"), [("ENABLE", "2"), ("HARDEN", "3"), ("HARDEN", "on")])
def test_another_number_is_refused(name, number, monkeypatch):
    monkeypatch.setenv(f"TCBPF_JIT_{name}", number)
    with pytest.raises(InputError, match=f"TCBPF_JIT_{name}: no number '{number}'"):
        Options.from_environment()


def test_a_command_shows_and_runs_what_the_environment_says(tmp_path, monkeypatch, capsys):
    (tmp_path / "p.s").write_text(f"*(u32 *)(r1 + 8) = {SECRET}\nr0 = 0\nexit\n")
    (tmp_path / "one.pcap").write_bytes(
        struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + struct.pack("<IIII", 0, 0, 60, 60) + bytes(60)
    )
    path, capture = str(tmp_path / "p.s"), str(tmp_path / "one.pcap")

    def said(*words):
        status = main([*words])
        return status, "".join(capsys.readouterr())

    monkeypatch.delenv("TCBPF_JIT_HARDEN", raising=False)
    assert f"${SECRET}" in said("disasm", "--jit", path)[1]
    for enable, harden in (("1", "2"), ("0", "0")):
        monkeypatch.setenv("TCBPF_JIT_ENABLE", enable)
        monkeypatch.setenv("TCBPF_JIT_HARDEN", harden)
        status, text = said("disasm", "--jit", path)
        assert f"${SECRET}" not in text
        assert (status == 0 and "xor" in text) if enable == "1" else (status == 2 and "is interpreted" in text)
        assert said("run", path, capture)[0] == 0
    monkeypatch.setenv("TCBPF_JIT_HARDEN", "3")
    assert said("run", path, capture) == (
        2,
        "tcbpf: TCBPF_JIT_HARDEN: no number '3' (0, 1 to blind constants without CAP_BPF, or 2 to blind them always)\n",
    )


def test_privilege_decides_at_harden_1(monkeypatch):
    program = verified(*CONSTANTS["store"])
    for privileged, seen in ((True, True), (False, False)):
        monkeypatch.setattr(jit, "_privileged", lambda answer=privileged: answer)
        assert (struct.pack("<I", SECRET) in compile(program, [], Options(harden=1, cache=False)).code) is seen


@settings(max_examples=40)
@given(programs())
def test_blinded_programs_mean_the_same(insns):
    program = verified(*insns)
    plainly, hidden = (compile(program, [], Options(cache=False, harden=level)) for level in (0, 2))
    assert plainly.run(Packet(bytes(64)), an_env()) == hidden.run(Packet(bytes(64)), an_env())


def test_blinding_keeps_calls_maps_and_callbacks():
    data = a_map(DATA)
    program = verified(
        Insn(0xB7, 1, imm=10),
        Insn(0x18, 2, 4, 0, 8),
        Insn(0),
        Insn(0xB7, 3),
        Insn(0xB7, 4),
        Insn(0x85, imm=181),
        Insn(0x85, 0, 1, 0, 4),
        Insn(0x18, 1, 6),
        Insn(0, imm=16),
        Insn(0x79, 0, 1, 0),
        EXIT,
        Insn(0x18, 4, 6),
        Insn(0, imm=16),
        Insn(0xB7, 0),
        Insn(0x79, 5, 4, 0),
        Insn(0x07, 5, imm=3),
        Insn(0x7B, 4, 5, 0),
        EXIT,
        maps=(DATA,),
        subprogs=(Subprog(0, 11, "main", 0), Subprog(11, 18, "each", 0, callback=True)),
        regions={9: Region.MAP_VALUE, 14: Region.MAP_VALUE, 16: Region.MAP_VALUE},
    )
    insns = list(program.program.insns)
    insns[1], insns[6] = insns[1]._replace(imm=11 - 2), insns[6]._replace(imm=11 - 7)
    object.__setattr__(program.program, "insns", tuple(insns))
    assert compile(program, [data], Options(harden=2)).run(Packet(bytes(64)), an_env()) == 33
    assert compile(program, [data], Options(cache=False)).run(Packet(bytes(64)), an_env()) == 66


def test_blinded_jumps_go_where_they_went():
    keys = iter(range(1, 100))
    insns = (Insn(0x15, 1, 0, 2, 5), Insn(0xB7, 0, imm=1), EXIT, Insn(0xB7, 0, imm=2), Insn(0x05, 0, 0, -4))
    blinded = blind.blind(insns, lambda: next(keys))
    assert [i.code for i in blinded.insns] == [0xB7, 0xA7, 0x1D, 0xB7, 0xA7, 0xBF, 0x95, 0xB7, 0xA7, 0xBF, 0x05]
    assert blinded.insns[2].off == 4 and blinded.insns[10].off == -8
    assert blinded.origin == (0, 0, 0, 1, 1, 1, 2, 3, 3, 3, 4)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return lambda: [p for p in Path(cache.directory("code")).iterdir() if re.fullmatch("[0-9a-f]{64}", p.name)]


def test_the_cache_is_used_and_by_content(cached, monkeypatch):
    program = verified(Insn(0xB7, 0, imm=5), EXIT)
    compile(program, [], Options())
    assert len(cached()) == 1
    monkeypatch.setattr(llvm, "compile_object", lambda *_: pytest.fail("compiled again"))
    assert compile(program, [], Options()).run(Packet(bytes(64)), an_env()) == 5
    monkeypatch.undo()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:],
        lambda raw: b"",
        lambda raw: b"x" * len(raw),
    ],
)
def test_a_damaged_file_is_made_anew(cached, damage):
    program = verified(Insn(0xB7, 0, imm=5), EXIT)
    compile(program, [], Options())
    (path,) = cached()
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert compile(program, [], Options()).run(Packet(bytes(64)), an_env()) == 5
    assert path.read_bytes() == good


def test_what_the_verifier_learned_is_part_of_the_name(cached):
    insns = (Insn(0xB7, 0, imm=5), Insn(0x15, 0, 0, 1, 5), Insn(0xB7, 0, imm=6), EXIT)
    for dead in ((), (2,)):
        compile(verified(*insns, dead=dead), [], Options())
    for entries in (4, 5):
        spec = MapSpec("m", "array", 4, 8, entries)
        compile(verified(*insns, maps=(spec,)), [a_map(spec)], Options())
    compile(verified(*insns), [], Options(count=True))
    assert len(cached()) == 5


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compile(verified(Insn(0xB7, 0, imm=5), EXIT), [], Options()).run(Packet(bytes(64)), an_env()) == 5


@pytest.mark.parametrize(
    "text, says",
    [
        ("@x = internal global i64 5\ndefine i64 @prog() { %v = atomicrmw add ptr @x, i64 1 seq_cst ret i64 %v }", "writable"),
        ("declare i64 @outside()\ndefine i64 @prog() { %v = call i64 @outside() ret i64 %v }", "outside"),
        (
            "@x = constant [2 x ptr] [ptr @prog, ptr @x]\ndefine ptr @prog(i64 %i) "
            "{ %p = getelementptr ptr, ptr @x, i64 %i %v = load ptr, ptr %p ret ptr %v }",
            "machine code with",
        ),
    ],
)
def test_code_that_needs_more_than_itself_is_refused(text, says):
    with pytest.raises(InternalError, match=says):
        link(llvm.compile_object(text, ["prog"]), ["prog"])


@pytest.fixture(scope="module")
def memory_functions():
    kinds = {
        "memmove": ("ptr", "ptr", "i64"),
        "memset": ("ptr", "i32", "i64"),
        "memcpy": ("ptr", "ptr", "i64"),
        "memcmp": ("ptr", "ptr", "i64"),
    }
    calls = ""
    for name, arguments in kinds.items():
        result = "i32" if name == "memcmp" else "ptr"
        passed = ", ".join(f"{kind} %{i}" for i, kind in enumerate(arguments))
        calls += (
            f"declare {result} @{name}({', '.join(arguments)})\n"
            f"define {result} @call_{name}({', '.join(arguments)}) noinline {{ "
            f"%r = call {result} @{name}({passed}) ret {result} %r }}\n"
        )
    names = [f"call_{name}" for name in plain.NAMES[:4]]
    pages = Pages(link(llvm.compile_object(calls, names), names))
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    yield {name.removeprefix("call_"): kind(pages.entries[name]) for name in names}
    pages.close()


@settings(max_examples=300)
@given(st.binary(min_size=200, max_size=200), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_memory_functions(memory_functions, data, to, from_, n):
    buffer = ctypes.create_string_buffer(data, len(data))
    base = ctypes.addressof(buffer)
    expected = bytearray(data)
    expected[to : to + n] = data[from_ : from_ + n]
    memory_functions["memmove"](base + to, base + from_, n)
    assert buffer.raw == expected
    a, b = expected[to : to + n], expected[from_ : from_ + n]
    said = memory_functions["memcmp"](base + to, base + from_, n)
    assert (said > 0) - (said < 0) == (a > b) - (a < b)
    memory_functions["memset"](base + to, 7, n)
    expected[to : to + n] = bytes([7]) * n
    assert buffer.raw == expected
