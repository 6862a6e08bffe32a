"""Both engines on programs made by hand: context fields, packets, maps, calls; what one gives the other gives."""

import ctypes

import pytest

from tcbpf.errors import InternalError, NotSupported
from tcbpf.isa.insn import Insn
from tcbpf.native.library import struct
from tcbpf.obj.program import MapSpec
from tcbpf.tables.skb import SKB
from tcbpf.verifier.verified import Region, Subprog
from tcbpf.vm.executable import Options, compile
from vm.by_hand import Packet, a_map, an_env, verified

EXIT = Insn(0x95)
HASH = MapSpec("flows", "hash", 4, 8, 16)
ARRAY = MapSpec("counts", "array", 4, 8, 4)
JUMPS = MapSpec("jumps", "prog_array", 4, 4, 4)


@pytest.fixture(params=["jit", "interp"])
def engine(request):
    return Options(engine=request.param, cache=False)


def mov(dst, imm):
    return Insn(0xB7, dst, 0, 0, imm)


def copy(dst, src):
    return Insn(0xBF, dst, src)


def the_map(dst, index=0, value=False):
    return Insn(0x18, dst, 6 if value else 5, 0, index), Insn(0)


def call(number):
    return Insn(0x85, 0, 0, 0, number)


def run(program, engine, packet=None, maps=(), env=None):
    executable = compile(program, maps, engine)
    try:
        return executable.run(packet or Packet(bytes(64)), env or an_env())
    finally:
        executable.close()


@pytest.mark.parametrize("field", [f for f in SKB if f.read and not f.pointer and f.native == (0, 0)], ids=lambda f: f.name)
def test_a_field_is_where_the_header_says(engine, field):
    packet = Packet(bytes(64))
    pattern = bytes(range(1, 1 + field.size))
    ctypes.memmove(packet.address + field.off, pattern, field.size)
    code = {1: 0x71, 4: 0x61, 8: 0x79}[field.size]
    assert run(verified(Insn(code, 0, 1, field.off), EXIT), engine, packet) == int.from_bytes(pattern, "little")


def test_part_of_a_field(engine):
    packet = Packet(bytes(64))
    packet.raw.u.mark = 0x11223344
    assert run(verified(Insn(0x69, 0, 1, 10), EXIT), engine, packet) == 0x1122
    assert run(verified(Insn(0x91, 0, 1, 8), EXIT), engine, packet) == 0x44


def test_narrow_fields_keep_what_lies_beside_them(engine):
    """tc_classid and tc_index hold 16 bits; a queue_mapping of 0xffff or more is not stored."""
    packet = Packet(bytes(64))
    packet.raw.u.queue_mapping = 7
    value = mov(2, 0x12345)
    assert (
        run(
            verified(value, Insn(0x63, 1, 2, 72), Insn(0x63, 1, 2, 44), Insn(0x63, 1, 2, 12), Insn(0x61, 0, 1, 72), EXIT),
            engine,
            packet,
        )
        == 0x2345
    )
    assert (packet.raw.u.tc_classid, packet.raw.u.tc_index, packet.raw.u.queue_mapping) == (0x2345, 0x2345, 7)
    run(verified(mov(2, 9), Insn(0x63, 1, 2, 12), mov(0, 0), EXIT), engine, packet)
    assert packet.raw.u.queue_mapping == 9


def test_the_packet_is_read_and_written_in_place(engine):
    packet = Packet(bytes(range(64)))
    program = verified(
        Insn(0x61, 2, 1, 76),
        Insn(0x61, 3, 1, 80),
        copy(4, 2),
        Insn(0x07, 4, 0, 0, 14),
        mov(0, -1),
        Insn(0x2D, 4, 3, 2),
        Insn(0x69, 0, 2, 12),
        Insn(0x72, 2, 0, 1, 0xAB),
        EXIT,
        regions={6: Region.PACKET, 7: Region.PACKET},
    )
    assert run(program, engine, packet) == 0x0D0C
    assert packet.bytes[:3] == b"\x00\xab\x02"
    assert run(program, engine, Packet(bytes(10))) == (1 << 64) - 1


def test_the_stack(engine):
    assert (
        run(
            verified(
                Insn(0x7A, 10, 0, -8, 5),
                mov(2, 3),
                Insn(0x73, 10, 2, -7),
                copy(3, 10),
                Insn(0x07, 3, 0, 0, -8),
                Insn(0x69, 0, 3, 0),
                EXIT,
            ),
            engine,
        )
        == 0x0305
    )


def test_dead_code_is_left_out(engine):
    program = verified(mov(0, 1), Insn(0x15, 0, 0, 1, 1), Insn(0x79, 0, 0, 0), EXIT, dead=(2,))
    assert run(program, engine) == 1


LOOKUP = (
    Insn(0x62, 10, 0, -4, 3),
    copy(2, 10),
    Insn(0x07, 2, 0, 0, -4),
    *the_map(1),
    call(1),
    Insn(0x15, 0, 0, 4, 0),
    mov(1, 5),
    Insn(0xDB, 0, 1, 0, 0),
    Insn(0x79, 0, 0, 0),
    EXIT,
    mov(0, -1),
    EXIT,
)


def test_an_array(engine):
    counts = a_map(ARRAY)
    program = verified(*LOOKUP, maps=(ARRAY,))
    assert [run(program, engine, maps=[counts]) for _ in range(2)] == [5, 10]
    program = verified(*(i._replace(imm=4) if i.code == 0x62 else i for i in LOOKUP), maps=(ARRAY,))
    assert run(program, engine, maps=[counts]) == (1 << 64) - 1


def test_a_hash(engine):
    flows = a_map(HASH)
    update = (
        Insn(0x62, 10, 0, -4, 3),
        Insn(0x7A, 10, 0, -16, 100),
        copy(2, 10),
        Insn(0x07, 2, 0, 0, -4),
        copy(3, 10),
        Insn(0x07, 3, 0, 0, -16),
        mov(4, 0),
        *the_map(1),
        call(2),
        EXIT,
    )
    assert run(verified(*LOOKUP, maps=(HASH,)), engine, maps=[flows]) == (1 << 64) - 1
    assert run(verified(*update, maps=(HASH,)), engine, maps=[flows]) == 0
    assert run(verified(*LOOKUP, maps=(HASH,)), engine, maps=[flows]) == 105
    delete = (Insn(0x62, 10, 0, -4, 3), copy(2, 10), Insn(0x07, 2, 0, 0, -4), *the_map(1), call(3), EXIT)
    assert run(verified(*delete, maps=(HASH,)), engine, maps=[flows]) == 0
    assert ctypes.c_int64(run(verified(*delete, maps=(HASH,)), engine, maps=[flows])).value == -2


def test_a_map_that_is_not_constant(engine):
    program = verified(*LOOKUP, maps=(ARRAY,))
    for aux in program.aux:
        aux.map = -1
    assert run(program, engine, maps=[a_map(ARRAY)]) == 5


def test_global_data(engine):
    data = a_map(MapSpec(".data", "array", 4, 64, 1))
    program = verified(
        Insn(0x18, 2, 6, 0, 0),
        Insn(0, imm=16),
        Insn(0x79, 3, 2, 0),
        Insn(0x07, 3, 0, 0, 1),
        Insn(0x7B, 2, 3, 0),
        copy(0, 3),
        EXIT,
        maps=(data.spec,),
        regions={2: Region.MAP_VALUE, 4: Region.MAP_VALUE},
    )
    assert [run(program, engine, maps=[data]) for _ in range(2)] == [1, 2]


def test_helpers_get_the_env(engine):
    assert run(verified(call(5), EXIT), engine) == 1000


def test_an_unknown_helper_is_refused(engine):
    with pytest.raises(NotSupported):
        compile(verified(call(9999), EXIT), [], engine)
    with pytest.raises(NotSupported):
        compile(verified(mov(1, 0), mov(2, 0), call(111), EXIT), [], engine)


def test_subprograms_have_frames_of_their_own(engine):
    program = verified(
        Insn(0x7A, 10, 0, -8, 1),
        mov(6, 7),
        copy(1, 10),
        Insn(0x07, 1, 0, 0, -8),
        Insn(0x85, 0, 1, 0, 4),
        Insn(0x79, 1, 10, -8),
        Insn(0x0F, 0, 1),
        Insn(0x0F, 0, 6),
        EXIT,
        mov(6, 99),
        Insn(0x7A, 10, 0, -8, 50),
        Insn(0x79, 2, 1, 0),
        Insn(0x07, 2, 0, 0, 20),
        Insn(0x7B, 1, 2, 0),
        Insn(0x79, 0, 10, -8),
        EXIT,
        subprogs=(Subprog(0, 9, "main", 8), Subprog(9, 16, "sub", 8)),
        regions={11: Region.STACK, 13: Region.STACK, 5: Region.STACK},
    )
    assert run(program, engine) == 50 + 21 + 7


def test_bpf_loop_calls_back(engine):
    program = verified(
        Insn(0x7A, 10, 0, -8, 0),
        mov(1, 10),
        Insn(0x18, 2, 4, 0, 6),
        Insn(0),
        copy(3, 10),
        Insn(0x07, 3, 0, 0, -8),
        mov(4, 0),
        call(181),
        Insn(0x79, 1, 10, -8),
        Insn(0x27, 0, 0, 0, 1000),
        Insn(0x0F, 0, 1),
        EXIT,
        Insn(0x79, 3, 2, 0),
        Insn(0x0F, 3, 1),
        Insn(0x7B, 2, 3, 0),
        mov(0, 0),
        Insn(0x55, 1, 0, 1, 4),
        mov(0, 1),
        EXIT,
        subprogs=(Subprog(0, 12, "main", 8), Subprog(12, 19, "each", 0, callback=True)),
        regions={8: Region.STACK, 12: Region.STACK, 14: Region.STACK},
    )
    program = program.__class__(
        **{**{f: getattr(program, f) for f in program.__dataclass_fields__}, "program": program.program}
    )
    insns = list(program.program.insns)
    assert insns[2].src == 4 and 2 + 1 + insns[2].imm + 3 == 12
    insns[2] = insns[2]._replace(imm=9)
    object.__setattr__(program.program, "insns", tuple(insns))
    assert run(program, engine) == 5000 + 10


class TailCalls:
    """Programs by id, and an env that finds them."""

    def __init__(self, *executables):
        self.keep = executables
        self.table = (ctypes.c_void_p * (len(executables) + 1))(0, *(e.address for e in executables))
        self.env = an_env()
        raw = struct("tcbpf_env").from_address(self.env.address)
        raw.progs, raw.n_progs = ctypes.addressof(self.table), len(self.table)


def jump_to(table, index, prog_id):
    shape = struct("tcbpf_map").from_address(table.address).s
    ctypes.c_uint32.from_address(table.address + shape.slots + index * shape.value_stride).value = prog_id


def tail_call(index):
    return copy(6, 1), *the_map(2), mov(3, index), call(12)


def test_a_program_that_calls_itself_runs_34_times(engine):
    jumps, counts = a_map(JUMPS), a_map(ARRAY)
    count = (Insn(0x18, 7, 6, 0, 1), Insn(0), mov(8, 1), Insn(0xDB, 7, 8, 0, 0))
    program = verified(*count, *tail_call(0), mov(0, 77), EXIT, maps=(JUMPS, ARRAY), regions={3: Region.MAP_VALUE})
    executable = compile(program, [jumps, counts], engine)
    tails = TailCalls(executable)
    jump_to(jumps, 0, 1)
    for runs in (34, 68):
        assert executable.run(Packet(bytes(64)), tails.env) == 77
        shape = struct("tcbpf_map").from_address(counts.address).s
        assert ctypes.c_uint64.from_address(counts.address + shape.slots).value == runs


def test_a_miss_falls_through_and_is_not_counted(engine):
    jumps = a_map(JUMPS)
    misses = sum(((copy(1, 6), *the_map(2), mov(3, 1), call(12)) for _ in range(40)), ())
    program = verified(copy(6, 1), *misses, copy(1, 6), *the_map(2), mov(3, 0), call(12), mov(0, 1), EXIT, maps=(JUMPS,))
    target = compile(verified(mov(0, 42), EXIT), [], engine)
    executable = compile(program, [jumps], engine)
    tails = TailCalls(target)
    assert executable.run(Packet(bytes(64)), tails.env) == 1
    jump_to(jumps, 0, 1)
    assert executable.run(Packet(bytes(64)), tails.env) == 42


def test_a_tail_call_in_a_subprogram_returns_to_its_caller(engine):
    jumps = a_map(JUMPS)
    jump_to(jumps, 2, 1)
    program = verified(
        Insn(0x85, 0, 1, 0, 2),
        Insn(0x07, 0, 0, 0, 1),
        EXIT,
        *tail_call(2),
        mov(0, 0),
        EXIT,
        maps=(JUMPS,),
        subprogs=(Subprog(0, 3, "main", 0), Subprog(3, 10, "sub", 0)),
    )
    tails = TailCalls(compile(verified(mov(0, 42), EXIT), [], engine))
    assert run(program, engine, maps=[jumps], env=tails.env) == 43


@pytest.mark.parametrize(
    "size, code, offset, want",
    [(1, 0x30, 1, 0x01), (2, 0x28, 2, 0x0203), (4, 0x20, 4, 0x04050607), (4, 0x20, 62, 0), (2, 0x48, 1, 0x0405)],
)
def test_legacy_packet_loads(engine, size, code, offset, want):
    start = (copy(6, 1), mov(7, 3))
    load = Insn(code, 0, 7 if code & 0x40 else 0, 0, offset)
    assert run(verified(*start, load, EXIT), engine, Packet(bytes(range(64)))) == want
    ended = run(verified(*start, load, mov(0, 9), EXIT), engine, Packet(bytes(range(64))))
    assert ended == (0 if offset == 62 else 9)


def test_may_goto_gives_up_at_last():
    """On machine code only: these are eight million steps."""
    program = verified(mov(0, 0), Insn(0x07, 0, 0, 0, 1), Insn(0xE5, 0, 0, 1), Insn(0x05, 0, 0, -3), EXIT)
    assert run(program, Options(cache=False)) == 8 * 1024 * 1024 + 1


def test_counting(engine):
    counting = Options(engine=engine.engine, cache=False, count=True)
    env = an_env()
    run(verified(mov(0, 3), Insn(0x17, 0, 0, 0, 1), Insn(0x55, 0, 0, -2, 0), EXIT), counting, env=env)
    assert struct("tcbpf_env").from_address(env.address).insns == 8


def test_the_interpreter_notices_a_wrong_proof():
    for wrong in (Insn(0x79, 0, 10, 8), Insn(0x79, 0, 10, -520)):
        with pytest.raises(InternalError, match="outside every region"):
            run(verified(wrong, EXIT), Options(engine="interp"))
    with pytest.raises(InternalError, match="does not point to a map"):
        run(verified(mov(1, 0), mov(2, 0), call(1), EXIT), Options(engine="interp"))


def test_stepping_shows_registers_and_memory():
    program = verified(Insn(0x61, 2, 1, 8), Insn(0x7B, 10, 2, -8), Insn(0x79, 0, 10, -8), EXIT)
    executable, packet = compile(program, [], Options(engine="interp")), Packet(bytes(64))
    packet.raw.u.mark = 6
    steps = list(executable.machine(packet, an_env()).steps())
    assert [step.pc for step in steps] == [0, 1, 2, 3]
    assert steps[0].after[2] == 6 and steps[0].touches[0].region == "ctx"
    assert (steps[1].touches[0].region, steps[1].touches[0].offset, steps[1].touches[0].write) == ("stack", -8, True)
    assert steps[3].before[0] == 6
