"""`tcbpf dbg`: bpf_dbg's commands over eBPF; a step back undoes all that the step did."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcbpf.cli import main
from tcbpf.cli.dbg.command import Debugger
from tcbpf.datapath.user import User
from tcbpf.errors import InputError
from tcbpf.lang import compile
from tcbpf.obj import programs
from tcbpf.obj.link import tail_section
from tcbpf.vm.executable import Options

ROOT = Path(__file__).parents[2]
MIXED = ROOT / "examples/captures/mixed.pcapng"
EXAMPLES = sorted((ROOT / "examples").glob("*.c"))
WALKS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 3); __type(key, __u32);
         __type(value, __u64); } sums SEC(".maps");

static long add(__u32 i, __u64 *sum)
{
	*sum += i;
	return i == 3;
}

static long spread(void *map, __u32 *key, __u64 *value, __u64 *sum)
{
	*value += *sum + *key;
	return 0;
}

static __attribute__((noinline)) __u64 twice(__u64 n)
{
	return n * 2;
}

SEC("tc") int walk(struct __sk_buff *skb)
{
	__u64 sum = 0;

	bpf_loop(10, add, &sum, 0);
	sum = twice(sum);
	bpf_for_each_map_elem(&sums, spread, &sum, 0);
	bpf_printk("sum %d", (int)sum);
	skb->mark = sum;
	bpf_skb_store_bytes(skb, 0, &sum, 6, 0);
	return sum == 12 ? 0 : 2;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture
def debugger() -> Iterator[Debugger]:
    with User(options=Options(engine="interp")) as dp:
        yield Debugger(dp)


@pytest.fixture
def walks(debugger: Debugger, tmp_path: Path) -> Debugger:
    (tmp_path / "walk.c").write_text(WALKS)
    run(debugger, f"load obj {tmp_path}/walk.c tc", f"load pcap {MIXED}")
    return debugger


def run(debugger: Debugger, *commands: str) -> list[str]:
    """Return what the last command printed."""
    shown: list[str] = []
    for command in commands:
        shown = list(debugger.execute(command))
    return shown


def value(shown: list[str], name: str) -> str:
    return next(line.partition("[")[2].partition("]")[0] for line in shown if line.startswith(name))


def memory(debugger: Debugger) -> list[object]:
    """Return all that a program can reach."""
    assert debugger.loaded is not None
    machine = debugger.ready().machine
    skb = machine.skb
    return [
        machine.pc,
        machine.done,
        tuple(machine.regs),
        tuple(machine.frames),
        bytes(skb),
        debugger.view().verdict,
        list(debugger.execute("stack")),
        *(list(m.items()) for m in debugger.loaded.prog.maps if m.spec.type != "prog_array"),
    ]


def test_steps_enter_functions_and_callbacks(walks: Debugger) -> None:
    pcs = [value(run(walks, "step"), "pc:") for _ in range(30)]
    assert len(set(pcs)) < 30  # the callback's are there again
    assert any("add+" in line and "walk+" in line for line in run(walks, "step -6"))
    shown = run(walks, "step 1000")
    assert value(shown, "result:") == "0" and any(line.startswith("trace: sum 12") for line in shown)
    assert [line.partition(": ")[2] for line in run(walks, "map sums")] == ["12", "13", "14"]
    assert "mark: 12" in run(walks, "context")
    shown = run(walks, "step -1")
    assert not any(line.startswith("result") for line in shown)


def test_next_stays_in_the_function(walks: Debugger) -> None:
    for _ in range(200):
        shown = run(walks, "next")
        assert any(line.startswith(("pc:", "result:")) and "add+" not in line and "twice+" not in line for line in shown)
        if any(line.startswith("result:") for line in shown):
            break
    else:
        pytest.fail("the program did not end")


def test_a_step_back_undoes_it(walks: Debugger) -> None:
    before = memory(walks)
    states = [before]
    while not walks.ready().machine.done:
        run(walks, "step")
        states.append(memory(walks))
    for state in reversed(states[:-1]):
        run(walks, "step -1")
        assert memory(walks) == state
    run(walks, "step 10000")
    assert memory(walks) == states[-1]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_both_ways(debugger: Debugger, path: Path) -> None:
    """Forwards as the engine runs it, and back to where it stood, whatever the program calls."""
    chance = random.Random(1)
    for listed in programs(compile(path)):
        if tail_section(listed.section):
            continue
        debugger.take(str(path), name=listed.name)
        debugger.take_capture(str(MIXED))
        for number in sorted(chance.sample(range(len(debugger.packets)), 6)):
            run(debugger, f"select {number + 1}")
            start = memory(debugger)
            run(debugger, "step 100000")
            end = memory(debugger)
            assert debugger.ready().machine.done
            run(debugger, f"step -{chance.randrange(1, 40)}", "step 100000")
            assert memory(debugger) == end
            run(debugger, "step -100000")
            assert memory(debugger) == start
            run(debugger, "step 100000")
            assert memory(debugger) == end


def test_verdicts_are_the_engines(debugger: Debugger) -> None:
    debugger.take(str(ROOT / "examples/dns_guard.c"))
    debugger.take_capture(str(MIXED))
    assert run(debugger, "run") == ["ok:495  shot:25"]


def test_breakpoints(walks: Debugger) -> None:
    source = [line.strip() for line in WALKS.splitlines()]
    line = source.index("skb->mark = sum;") + 1
    assert run(walks, f"breakpoint :{line}")[0].startswith("breakpoint at: l")
    run(walks, f"b walk.c:{line}", "b add")
    assert len(run(walks, "breakpoint")) == 2
    stops = [run(walks, "run") for _ in range(5)]
    assert any(row.startswith("pc:       [0]") for row in run(walks, "select 2", "b walk", "run"))  # before the first
    run(walks, "select 1", *["run"] * 6)
    assert all("(breakpoint)" in stop for stop in stops)
    assert ["add+" in stop[-1] or any("add+0" in line for line in stop) for stop in stops] == [True] * 4 + [False]
    assert any(f"walk.c:{line}:" in row for row in stops[4])
    assert run(walks, "breakpoint reset", "run 2")[-1:] == ["ok:2"]
    assert run(walks, "run")[-1:] == ["ok:518"]
    with pytest.raises(InputError, match="the last packet has run"):
        run(walks, "run")
    for bad in (
        "b 9999",
        "b nosuch",
        "b :1",
        "b other.c:14",
        "select 0",
        "step x",
        "load",
        "foo",
        "map nosuch",
        "run 0",
        "s",
        "map 'x",
        "context x=1",
    ):
        with pytest.raises(InputError):
            run(walks, bad)


def test_a_run_can_be_stepped_back(walks: Debugger) -> None:
    run(walks, "run 1")
    assert walks.ready().machine.done
    end, shown = len(walks.ready()), list(walks.view().all())
    assert run(walks, "step -3")[1].startswith("pc:       [") and not walks.ready().machine.done
    assert len(walks.ready()) == end - 3
    assert run(walks, "step 3") == shown


def test_a_breakpoint_in_a_program_that_is_not_reached_yet(debugger: Debugger) -> None:
    debugger.take(str(ROOT / "examples/tail_calls.c"))
    debugger.take_capture(str(MIXED))
    assert run(debugger, "b cls_count")[0].endswith("; of cls_count")
    assert run(debugger, "b cls_ipv4+1")[0].startswith("breakpoint at: l1:")
    assert len(run(debugger, "b")) == 2
    stops = [run(debugger, "run")[1] for _ in range(2)]
    assert stops == ["pc:       [1] cls_ipv4+1", "pc:       [0] cls_count+0"]
    first = debugger.selected
    run(debugger, "b cls_entry")
    assert run(debugger, "run")[1] == "pc:       [0] cls_entry+0" and debugger.selected == first + 1
    with pytest.raises(InputError, match="no instruction 1000"):
        run(debugger, "b cls_count+1000")


def test_registers_say_what_they_point_to(walks: Debugger) -> None:
    words = set()
    while not walks.ready().machine.done:
        shown = run(walks, "step")
        words |= {line.partition("][")[2][:-1] for line in shown if line[:2] in ("r1", "r2", "r3", "r6")}
    assert {"ctx+0", "map sums", "sums[1]+0", "index+0"} <= words and any(word.startswith("fp-") for word in words)


def test_a_script(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("breakpoint 3\nrun\ncontext\nnonsense\ndisassemble\ndump\nhelp\nquit\nrun\n")
    with open(tmp_path / "script") as script:
        monkeypatch.setattr("sys.stdin", script)
        status = main(["dbg", str(ROOT / "examples/dns_guard.c"), str(MIXED), "--section", "tc", "--ctx", "mark=7"])
    out, err = capsys.readouterr()
    assert status == 2 and "'nonsense' is no command" in err and err.count("\n") == 1
    assert "(breakpoint)" in out and "mark: 7" in out and "=> l3:" in out and "dns_guard.c:" in out


def test_nothing_to_debug(debugger: Debugger, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no program loaded"):
        run(debugger, "step")
    debugger.take(str(ROOT / "examples/dns_guard.c"))
    with pytest.raises(InputError, match="no pcap file loaded"):
        run(debugger, "run")
    assert main(["dbg", str(tmp_path / "none.c")]) == 2
