"""C to objects: both compilers, our own headers, the compiler's own words, and a cache that is never wrong."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tcbpf.cli import main
from tcbpf.errors import CompileError, InputError
from tcbpf.lang import c, compile, compile_c, find_compiler
from tcbpf.obj import load

PROGRAM = '#include <bpf_helpers.h>\nSEC("tc") int prog(struct __sk_buff *skb) { return skb->len; }\n'
COMPILERS = [name for name in ("clang", "ziglang") if name == "ziglang" or shutil.which(name)]
INCLUDE = Path(c.__file__).parent / "include"


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tcbpf" / "objects"


@pytest.fixture
def runs(monkeypatch) -> list[list[str]]:
    """The commands that are started."""
    started: list[list[str]] = []
    real = subprocess.run

    def spy(command, **rest):
        started.append(command)
        return real(command, **rest)

    monkeypatch.setattr(subprocess, "run", spy)
    return started


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("header", sorted(str(p.relative_to(INCLUDE)) for p in INCLUDE.rglob("*.h")))
def test_every_header_stands_on_its_own(compiler, header, monkeypatch):
    monkeypatch.setenv("TCBPF_CC", compiler)
    compile_c(f"#include <{header}>\nint x;\n", extra=["-Wall", "-Werror", "-Wno-unused-variable"])


@pytest.mark.parametrize("compiler", COMPILERS)
def test_all_headers_at_once_and_without_the_system_s(compiler, monkeypatch):
    monkeypatch.setenv("TCBPF_CC", compiler)
    monkeypatch.setattr(c.os.path, "isdir", lambda path: False)  # as on a machine without kernel headers
    everything = "".join(f"#include <{p.relative_to(INCLUDE)}>\n" for p in sorted(INCLUDE.rglob("*.h")))
    standard = "#include <stdint.h>\n#include <stdbool.h>\n#include <stddef.h>\n"
    assert load(compile_c(standard + everything + PROGRAM)).entries == ("prog",)


def test_the_system_s_own_headers_are_still_found():
    if not os.path.exists("/usr/include/linux/seg6.h"):
        return  # a machine without kernel headers
    compile_c("#include <linux/seg6.h>\n#include <linux/if_tunnel.h>\n#include <linux/mpls.h>\n" + PROGRAM)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_names_of_bpf_api(compiler, monkeypatch):
    monkeypatch.setenv("TCBPF_CC", compiler)
    obj = load(
        compile_c("""
        #include <bpf_api.h>
        struct bpf_elf_map __section_maps stats = {
            .type = BPF_MAP_TYPE_ARRAY, .size_key = 4, .size_value = 4, .pinning = PIN_GLOBAL_NS, .max_elem = 4 };
        __section_cls_entry int cls(struct __sk_buff *skb) {
            __u32 key = skb->mark, *value = map_lookup_elem(&stats, &key);
            if (value) lock_xadd(value, 1);
            printt("proto %d len %u\\n", ntohs(skb->protocol), skb->len);
            return load_byte(skb, 0) + load_half(skb, 12) + load_word(skb, 14) ? BPF_H_DEFAULT : TC_H_MAKE(1 << 16, 2);
        }
        __section_act_entry int act(struct __sk_buff *skb) { return TC_ACT_OK; }
        __section_tail(42, 0) int tail(struct __sk_buff *skb) { return 0; }
        BPF_LICENSE("GPL");
    """)
    )
    assert [obj.functions[name].section for name in obj.entries] == ["classifier", "action", "42/0"]
    assert obj.license == "GPL" and obj.maps["stats"].pinning == 2
    codes = {insn.code for insn in obj.functions["cls"].insns}
    assert {0x30, 0x28, 0x20} <= codes  # LD_ABS of 1, 2 and 4 bytes


def test_printing_takes_any_number_of_values():
    body = "".join(f'bpf_printk("x{" %d" * n}"{"".join(f", skb->len + {i}" for i in range(n))});' for n in range(8))
    obj = load(compile_c('#include <bpf_helpers.h>\nSEC("tc") int p(struct __sk_buff *skb) { ' + body + " return 0; }\n"))
    calls = [insn.imm for insn in obj.functions["p"].insns if insn.code == 0x85]
    assert calls == [6] * 4 + [177] * 4


@pytest.mark.parametrize("mcpu", ["v1", "v2", "v3"])
def test_the_instruction_set_can_be_said(mcpu):
    body = "{ __u32 x = s->len; return x < s->mark ? x * 3 : 1; }\n"
    source = '#include <bpf_helpers.h>\nSEC("tc") int p(struct __sk_buff *s) ' + body
    classes = {insn.code & 7 for insn in load(compile_c(source, mcpu=mcpu)).functions["p"].insns}
    assert (4 in classes or 6 in classes) == (mcpu == "v3")


def test_definitions_and_include_directories(tmp_path):
    (tmp_path / "mine.h").write_text("#define ANSWER BASE + 2\n")
    text = '#include "mine.h"\nint f(void) { return ANSWER; }\n'
    for defines in ({"BASE": 40}, ["BASE=40"]):
        insns = load(compile_c(text, include_dirs=[tmp_path], defines=defines)).functions["f"].insns
        assert insns[0].imm == 42


# --- the compiler called by hand: clang -O2 -target bpf -I"$(tcbpf --include-dir)" -o foo.o -c foo.c -----------------------


@pytest.fixture
def by_hand(tmp_path, capsys):
    """Run the compiler as a user does who knows none of our flags, and return what it made."""
    assert main(["--include-dir"]) == 0
    ours = f"-I{capsys.readouterr().out.strip()}"

    def run(text: str, *words: str) -> bytes:
        (tmp_path / "foo.c").write_text(text)
        compiler = find_compiler()
        argv = [*compiler.argv, "-O2", "-target", "bpf", *(words or [ours]), *(f"-isystem{d}" for d in compiler.includes)]
        done = subprocess.run([*argv, "-o", "foo.o", "-c", "foo.c"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return (tmp_path / "foo.o").read_bytes()

    return run


@pytest.mark.parametrize("compiler", COMPILERS)
def test_our_headers_are_enough_for_a_compiler_called_by_hand(compiler, by_hand, monkeypatch):
    monkeypatch.setenv("TCBPF_CC", compiler)
    for headers in (sorted(str(p.relative_to(INCLUDE)) for p in INCLUDE.rglob("*.h")), ["bpf_api.h"], ["bpf/bpf_helpers.h"]):
        obj = load(by_hand("".join(f"#include <{name}>\n" for name in headers) + PROGRAM))
        assert obj.entries == ("prog",)


def test_our_integers_are_the_compiler_s(by_hand):
    bits = (8, 16, 32, 64)
    kinds = [f"int{kind}{n}_t" for kind in ("", "_least", "_fast") for n in bits] + ["intptr_t", "intmax_t"]
    limits = [f"{u}INT{n}_MAX" for u in ("", "U") for n in (*bits, "PTR", "MAX")] + [f"INT{n}_MIN" for n in bits] + ["SIZE_MAX"]
    values = limits + [f"{u}INT{n}_C(7)" for u in ("", "U") for n in (*bits, "MAX")]
    text = "#include <stdint.h>\n" + "".join(
        [
            f"{u}{kind} {u}{kind}_0 = -1; int {u}{kind}_s = (({u}{kind})-1 < 0) + sizeof({u}{kind});\n"
            for u in ("", "u")
            for kind in kinds
        ]
        + [f"unsigned long v{i}[] = {{ {v}, sizeof({v}) }};\n" for i, v in enumerate(values)]
    )
    assert by_hand(text) == by_hand(text, "-ffreestanding")


def test_our_error_numbers_are_the_machine_s():
    numbers = dict(re.findall(r"^#define (E\w+) (\d+)$", (INCLUDE / "asm/errno.h").read_text(), re.M))
    assert len(numbers) > 120
    theirs = {name: str(number) for name, number in vars(errno).items() if name.startswith("E")}
    assert {name: theirs.get(name, value) for name, value in numbers.items()} == numbers


# --- what goes wrong -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", COMPILERS)
def test_an_error_is_the_compiler_s(compiler, tmp_path, monkeypatch):
    monkeypatch.setenv("TCBPF_CC", compiler)
    path = tmp_path / "bad.c"
    path.write_text("int f(void)\n{\n\treturn nothing;\n}\n")
    with pytest.raises(CompileError) as caught:
        compile(path)
    assert "use of undeclared identifier 'nothing'" in str(caught.value)
    assert f"{path}:3:9: error:" in caught.value.diagnostics and "return nothing;" in caught.value.diagnostics


def test_a_warning_is_a_note_each_time(own_cache, tmp_path):
    path = tmp_path / "odd.c"
    path.write_text("int f(void)\n{\n\treturn 5 / 0;\n}\n")
    for _ in range(2):
        (note,) = compile(path).notes
        assert "odd.c:3:11: warning: division by zero is undefined" in note


def test_a_source_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"none\.c: No such file"):
        compile(tmp_path / "none.c")


def test_a_compiler_without_bpf_is_refused(own_cache, monkeypatch):
    monkeypatch.setenv("TCBPF_CC", "true")
    with pytest.raises(InputError, match="TCBPF_CC: 'true' cannot compile for BPF"):
        find_compiler()


# --- the cache -------------------------------------------------------------------------------------------------------------


def test_a_second_time_starts_no_process(own_cache, runs, tmp_path):
    path = tmp_path / "x.c"
    path.write_text(PROGRAM)
    first = compile_c(path)
    started = len(runs)
    assert started and compile_c(path) == first and len(runs) == started


def test_whatever_changes_is_compiled_again(own_cache, tmp_path):
    path, header = tmp_path / "x.c", tmp_path / "x.h"
    header.write_text("#define VALUE 1\n")
    path.write_text('#include "x.h"\nint f(void) { return VALUE; }\n')

    def value(**options) -> int:
        return load(compile_c(path, **options)).functions["f"].insns[0].imm

    assert value() == 1
    header.write_text("#define VALUE 2\n")
    assert value() == 2
    path.write_text('#include "x.h"\nint f(void) { return VALUE + EXTRA; }\n')
    assert value(defines=["EXTRA=5"]) == 7 and value(defines=["EXTRA=6"]) == 8
    header.unlink()
    with pytest.raises(CompileError, match=r"x\.h"):
        value(defines=["EXTRA=5"])


def test_what_changes_under_the_compiler_is_not_kept(own_cache, tmp_path, monkeypatch):
    path, header = tmp_path / "x.c", tmp_path / "x.h"
    header.write_text("#define VALUE 1\n")
    path.write_text('#include "x.h"\nint f(void) { return VALUE; }\n')
    real = c._run

    def disturbed(job, scratch):
        made = real(job, scratch)
        time.sleep(0.01)  # a file's time is that of the last tick
        header.write_text("#define VALUE 2\n")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(c, "_run", disturbed)
        assert load(compile_c(path)).functions["f"].insns[0].imm == 1
    assert load(compile_c(path)).functions["f"].insns[0].imm == 2


def test_a_header_that_comes_before_another_is_noticed(own_cache, tmp_path):
    path, places = tmp_path / "x.c", [tmp_path / "first", tmp_path / "second"]
    for place in places:
        place.mkdir()
    path.write_text('#include <part/x.h>\n#include "y.h"\nint f(void) { return X + Y; }\n')
    (places[1] / "part").mkdir()
    (places[1] / "part" / "x.h").write_text("#define X 1\n")
    (places[1] / "y.h").write_text("#define Y 10\n")

    def value() -> int:
        return load(compile_c(path, include_dirs=places)).functions["f"].insns[0].imm

    assert value() == value() == 11
    (places[0] / "part").mkdir()
    (places[0] / "part" / "x.h").write_text("#define X 2\n")
    assert value() == 12
    (tmp_path / "y.h").write_text("#define Y 20\n")
    assert value() == 22


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b"{"),
        lambda path: path.unlink(),
    ],
)
def test_a_damaged_cache_is_no_cache(own_cache, damage):
    first = compile_c(PROGRAM)
    (path,) = own_cache.iterdir()
    damage(path)
    assert compile_c(PROGRAM) == first


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compile_c(PROGRAM)
