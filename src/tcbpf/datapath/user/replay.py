"""A capture through a device: its hooks, and whatever they send packets on to, at the packet loop's speed."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tcbpf.control.objects import Bpf
from tcbpf.datapath.base import Datapath, Replayed
from tcbpf.datapath.capture.loop import Loop, Sink
from tcbpf.datapath.capture.reader import open_reader
from tcbpf.datapath.result import whole_or_not
from tcbpf.errors import NotSupported
from tcbpf.native.library import constant, function
from tcbpf.net.pcap import LINKTYPE_ETHERNET, Writer, foreign_link_type
from tcbpf.tc.plan import Plan, add_counters, build

if TYPE_CHECKING:
    from tcbpf.datapath.user.prog import UserProg
    from tcbpf.datapath.user.runtime import Runtime
    from tcbpf.datapath.user.store import Store
    from tcbpf.obj.program import Program

CLONES = 32  # buffers for packets in transit
COUNTERS = ("rx_packets", "rx_bytes", "rx_dropped", "tx_packets", "tx_bytes", "tx_dropped")


class Programs:
    """The programs of a Plan's filters, each opened and compiled once."""

    def __init__(self, open: Callable[[int], UserProg], load: Callable[[Program], UserProg]) -> None:
        self.open, self.load = open, load
        self.by_id: dict[int, UserProg] = {}
        self.by_bytecode: dict[tuple[tuple[int, int, int, int], ...], UserProg] = {}

    def __call__(self, options: Bpf) -> int:
        """Return the address of a program's struct tcbpf_prog."""
        if options.bytecode:
            found = self.by_bytecode.get(options.bytecode) or self.by_bytecode.setdefault(
                options.bytecode, self.load(classic(options.bytecode))
            )
        else:
            found = self.by_id.get(options.id) or self.by_id.setdefault(options.id, self.open(options.id))
        if not found.executable.address:
            raise NotSupported("a replay needs machine code: use the jit engine")
        return found.executable.address

    def write(self) -> bool:
        """Tell whether any of them may store to a packet directly, which must then lie in memory of its own."""
        return any(found.verified.writes_packet for found in (*self.by_id.values(), *self.by_bytecode.values()))

    def close(self) -> None:
        """Let go of them."""
        for found in (*self.by_id.values(), *self.by_bytecode.values()):
            found.close()


def classic(bytecode: tuple[tuple[int, int, int, int], ...]) -> Program:
    """Return classic bytecode as a program."""
    from tcbpf.cbpf.conversion import as_program
    from tcbpf.cbpf.insn import Classic

    return as_program([Classic(*insn) for insn in bytecode], type="sched_cls", name="classic")


def replay(dp: Datapath, path: str, dev: str, *, ingress: bool, out: str | None = None, limit: int = 0) -> Replayed:
    """Send a capture through a device of a datapath: see Datapath.replay."""
    return dp.replay(path, dev, ingress=ingress, out=out, limit=limit)


def send_capture(
    store: Store,
    runtime: Runtime,
    programs: Programs,
    path: str,
    dev: str,
    *,
    ingress: bool,
    out: str | None = None,
    limit: int = 0,
) -> Replayed:
    """Send a capture through a device, and count what its packets did: see Datapath.replay."""
    state = store.read()
    link = state.link(dev, "replay")
    state = state.with_link(replace(link, up=True))
    with contextlib.ExitStack() as stack:
        stack.enter_context(runtime.using())
        reader = stack.enter_context(open_reader(path))
        stack.callback(programs.close)
        plan = build(state, programs)
        buffers = ctypes.create_string_buffer(CLONES * constant("BUFFER"))
        plan.net.buffers, plan.net.n_buffers = ctypes.addressof(buffers), CLONES
        names = {index: one.name for index, one in state.links.items()}
        own = link.name, "ingress" if ingress else "egress"
        sinks = attach_sinks(stack, plan, names, Path(out), own) if out else []
        env = runtime.env()
        env.struct.net = ctypes.addressof(plan.net)
        stack.callback(lambda: setattr(env.struct, "net", 0))
        skb = runtime.skb().clear()
        call = function(
            "tcbpf_loop_device", ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32
        )
        device = ctypes.addressof(plan.devices[link.index])
        writes = programs.write()

        def choose(link: int) -> tuple[Callable[[int], int], bool]:
            if link != LINKTYPE_ETHERNET:
                raise foreign_link_type(path, link)
            return lambda at: call(at, env.address, device, ingress), writes

        loop = Loop(reader, skb.address, choose, sinks)
        counts, fault = whole_or_not(lambda: loop.run(limit, lambda: runtime.flush(env)))
        missed = sum(int(sink.struct.lost) for sink in sinks)
    with store.change() as change:
        change.state = add_counters(plan, change.state)
    done = Replayed(
        counts.packets, counts.bytes, counts.verdicts, counts.duration_ns, device_counters(plan, names), lost(plan, missed)
    )
    if fault is not None:
        fault.stats = done
        raise fault
    return done


def attach_sinks(
    stack: contextlib.ExitStack, plan: Plan, names: Mapping[int, str], directory: Path, own: tuple[str, str]
) -> list[Sink]:
    """Give every device a capture for each direction, which begins with its first packet; `own` is begun at once."""
    directory.mkdir(parents=True, exist_ok=True)

    def begin(name: str, word: str) -> Writer:
        return stack.enter_context(Writer(directory / f"{name}-{word}.pcapng", interfaces=(name,)))

    sinks: list[Sink] = []
    for index, device in plan.devices.items():
        for word, place in ("ingress", "rx"), ("egress", "tx"):
            sinks.append(Sink(partial(begin, names[index], word)))
            setattr(device, place, ctypes.addressof(sinks[-1].struct))
            if (names[index], word) == own:
                sinks[-1].writer()
    return sinks


def device_counters(plan: Plan, names: Mapping[int, str]) -> dict[str, dict[str, int]]:
    """Return the counters of the devices that packets reached."""
    found = {names[index]: {name: int(getattr(device, name)) for name in COUNTERS} for index, device in plan.devices.items()}
    return {name: row for name, row in found.items() if any(row.values())}


def lost(plan: Plan, missed: int) -> dict[str, int]:
    """Return why packets were lost between devices, and how often."""
    causes = {
        "recursion": plan.net.dropped_recursion,
        "no device": plan.net.dropped_no_dev,
        "no buffer": plan.net.dropped_no_buffer,
        "capture full": missed,
    }
    return {cause: int(count) for cause, count in causes.items() if count}
