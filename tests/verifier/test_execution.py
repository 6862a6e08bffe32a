"""What the interpreter sees lies in what the verifier said: vectors, classic filters and generated programs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from generator import generate
from generator.execute import packets as packets_of
from tcbpf.cbpf import Classic, as_program
from tcbpf.datapath.user import User
from tcbpf.errors import NotSupported, VerifierError
from tcbpf.isa.insn import Insn, decode
from tcbpf.obj.program import MapSpec, Program
from tcbpf.tables.opcodes import PSEUDO_CALL
from tcbpf.verifier.rules import alu, jump
from tcbpf.verifier.values import scalar, transfer
from tcbpf.vm.executable import Options
from verifier.watch import Enough, Outside, States, states, watching

VECTORS = Path(__file__).parent.parent / "vectors"
CASES = json.loads((VECTORS / "bpf_conformance.json").read_text())
FILTERS = json.loads(gzip.decompress((VECTORS / "libpcap_apply.json.gz").read_bytes()))
MAP_VALUE = 6  # src of an LD_IMM64 that names a place in a map by its index
EXIT = Insn(0x95)
both = pytest.mark.parametrize("whole", [True, False], ids=["whole", "as verified"])


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    with User(str(tmp_path), options=Options(engine="interp", cache=False)) as datapath:
        yield datapath


def watch(user: User, found: States, packets: Iterable[bytes]) -> int:
    """Run a program under watch; return how many instructions were looked at.

    Raises:  Outside; NotSupported where the user datapath cannot run it.
    """
    with watching(found) as watched:
        prog = user.prog_load(found.program)
        try:
            for packet in packets:
                try:
                    prog.run(packet)
                except Enough:
                    continue
        finally:
            for used in prog.maps:
                used.raw.close()
            prog.close()
    return watched.steps


# --- vectors ---------------------------------------------------------------------------------------------------------


def wrapped(case: dict[str, str]) -> Program:
    """Return a classifier that calls the vector with its memory, the packet, and keeps r0 in a map."""
    length = len(bytes.fromhex(case["mem"]))
    enter = [
        Insn(0x61, 2, 1, 80),
        Insn(0x61, 1, 1, 76),
        Insn(0xBF, 3, 1),
        Insn(0x07, 3, imm=length),
        Insn(0xB7, 0),
        Insn(0x2D, 3, 2, 5),
        Insn(0xB7, 2, imm=length),
    ]
    leave = [Insn(0x18, 1, MAP_VALUE), Insn(0), Insn(0x7B, 1), EXIT]
    if not length:
        enter = [Insn(0xB7, 1), Insn(0xB7, 2)]
    insns = (*enter, Insn(0x85, 0, PSEUDO_CALL, 0, len(leave)), *leave, *decode(bytes.fromhex(case["bytecode"])))
    return Program("vector", "sched_cls", insns, (MapSpec("r0", "array", 4, 8, 1),), license="GPL")


@both
def test_conformance_vectors(user: User, whole: bool) -> None:
    ran = 0
    for case in CASES:
        if case["live_kernel"] != "PASS":
            continue
        try:
            found = states(wrapped(case), whole=whole)
        except VerifierError:
            continue  # takes what only XDP has, or too long when nothing is cut off
        ran += watch(user, found, [bytes.fromhex(case["mem"]).ljust(64, b"\0")]) > 0
    assert ran > 280


@both
def test_libpcaps_filters(user: User, whole: bool) -> None:
    steps = 0
    for case in FILTERS["tests"][::4]:
        if case["kernel"] == "accept":
            program = as_program([Classic(*fields) for fields in case["insns"]])
            packets = [bytes.fromhex(data) for data, _ in FILTERS["savefiles"][case["savefile"]]["packets"][:6]]
            steps += watch(user, states(program, whole=whole), packets)
    assert steps > 3000


# --- generated programs ----------------------------------------------------------------------------------------------


def generated(user: User, whole: bool, seeds: range) -> int:
    """Watch the accepted programs of these seeds; return how many ran."""
    ran = 0
    for seed in seeds:
        program = generate(seed)
        if program.type == "xdp":  # not run here
            continue
        try:
            ran += watch(user, states(program, whole=whole), packets_of(seed)) > 0
        except (VerifierError, NotSupported):
            continue
        except Outside as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    return ran


@both
def test_generated_programs(user: User, whole: bool) -> None:
    assert generated(user, whole, range(500)) > 100


@both
@pytest.mark.slow
def test_thousands_of_generated_programs(user: User, whole: bool) -> None:
    assert generated(user, whole, range(1_000_000, 1_030_000)) > 6000


# --- a fault is seen -------------------------------------------------------------------------------------------------


def classifier(*insns: Insn) -> Program:
    return Program("fault", "sched_cls", insns, license="GPL")


def test_a_sum_that_is_too_narrow_is_seen(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    program = classifier(Insn(0x61, 0, 1, 0), Insn(0x57, 0, imm=255), Insn(0x07, 0, imm=100), Insn(0x57, 0, imm=0xFFFF), EXIT)
    assert watch(user, states(program, whole=True), [bytes(200)]) == 5
    add = transfer.ScalarAlgebra.add

    def narrow(self: transfer.ScalarAlgebra, d: scalar.Scalar, s: scalar.Scalar) -> scalar.Scalar:
        return scalar.bounded(add(self, d, s), umax=200)

    monkeypatch.setattr(transfer.ScalarAlgebra, "add", narrow)
    monkeypatch.setattr(alu, "_MEMO", {})
    with pytest.raises(Outside, match=r"(?s)pc 3, .* r0=0x12c\n.*umax32=200"):
        watch(user, states(program, whole=True), [bytes(200)])


def test_a_number_not_marked_is_seen(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ways meet with different numbers; a jump that only one of them takes leads to code that was cut off."""
    program = classifier(
        Insn(0x61, 2, 1, 0),
        Insn(0xB7, 3, imm=1),
        Insn(0x25, 2, 0, 1, 100),
        Insn(0xB7, 3, imm=2),
        *[Insn(0x07, 2, imm=1)] * 8,
        Insn(0x05),
        Insn(0xB7, 0),
        Insn(0x15, 3, 0, 1, 2),
        EXIT,
        Insn(0xB7, 0, imm=1),
        EXIT,
    )
    for whole in (True, False):
        assert watch(user, states(program, whole=whole), [bytes(64), bytes(200)]) > 20
    for module in (alu, jump):
        monkeypatch.setattr(module, "mark_precise", lambda env, reg: None)
    with pytest.raises(Outside, match="never visited"):
        watch(user, states(program, whole=False), [bytes(64), bytes(200)])
