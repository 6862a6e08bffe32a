"""Stack slots that may still be read: a remembered state forgets the others.

What each instruction, under each chain of open calls, may read of the stack and is certain to write of it is noted while paths
are followed; `refresh` brings the data flow over that up to date.

    live after  = union of live before over the successors
    live before = (live after - certainly written) | possibly read

A callee's needs of its callers' stacks are carried to the call.

Units:   masks have bit i for stack slot i.
Source:  kernel/bpf/liveness.c (v6.18).
"""

from __future__ import annotations

from tcbpf.verifier.state.env import Env
from tcbpf.verifier.state.insns import Ins
from tcbpf.verifier.state.state import State
from tcbpf.verifier.words.format import ALL


class Instance:
    """One function under one chain of calls: for each frame that it can reach, four masks an instruction."""

    __slots__ = ("chain", "dirty", "frames", "fresh", "must_write_known", "start")

    def __init__(self, chain: tuple[int, ...], start: int, size: int) -> None:
        self.chain = chain  # the pcs of the open calls
        self.start = start
        self.frames: list[Masks | None] = [None] * (len(chain) + 1)
        self.must_write_known = bytearray(size)
        self.dirty: set[tuple[int, int]] = set()
        self.fresh = False  # must_write shrank: must_write_acc starts anew


class Masks:
    """The masks of one frame's slots, by instruction relative to the function's start.

    `write_acc`, what is written from there to the function's end, is for its callers, and kept of their frames only.
    """

    __slots__ = ("live", "read", "write", "write_acc")

    def __init__(self, size: int) -> None:
        self.read = [0] * size
        self.write = [0] * size
        self.write_acc = [0] * size
        self.live = [0] * size


def _written(masks: Masks, start: int, ins: Ins) -> int:
    """Return the slots that are certainly written between an instruction and the end of its function."""
    written = ALL if ins.successors and not ins.leaves else 0
    for to in ins.successors:
        written &= masks.write_acc[to - start]
    return written


class StackLiveness:
    """The stack's liveness under every chain of calls seen so far."""

    __slots__ = ("current", "dirty", "env", "instances", "predecessors", "writes")

    def __init__(self, env: Env) -> None:
        self.env = env
        self.instances: dict[tuple[int, ...], Instance] = {}
        self.dirty: dict[Instance, None] = {}
        self.current: Instance | None = None
        self.writes: list[int] = []
        self.predecessors: list[list[int]] = [[] for _ in env.insns]
        for pc, ins in enumerate(env.ins):
            if ins.pc == pc:
                for to in ins.successors:
                    if 0 <= to < len(env.insns):
                        self.predecessors[to].append(pc)

    def forget_chain(self) -> None:
        """The path has entered or left a function, or another path is followed."""
        self.current = None

    def _instance(self, state: State, frame: int) -> Instance:
        chain = tuple(f.callsite for f in state.frames[1 : frame + 1])
        start = self.env.subprogs[state.frames[frame].subprog].start
        key = (*chain, start)
        found = self.instances.get(key)
        if found is None:
            sub = self.env.subprogs[state.frames[frame].subprog]
            found = self.instances[key] = Instance(chain, start, sub.end - sub.start)
        return found

    def _here(self) -> Instance:
        if self.current is None:
            state = self.env.cur
            self.current = self._instance(state, len(state.frames) - 1)
        return self.current

    def read(self, frame: int, mask: int) -> None:
        """The current instruction may read these slots of that frame."""
        self._note_read(self._here(), frame, self.env.pc, mask)

    def _note_read(self, instance: Instance, frame: int, pc: int, mask: int) -> None:
        masks = instance.frames[frame]
        if masks is None:
            masks = instance.frames[frame] = Masks(len(instance.must_write_known))
        at = pc - instance.start
        old = masks.read[at]
        if mask & ~old:
            masks.read[at] = old | mask
            self._soil(instance, frame, pc)

    def write(self, frame: int, mask: int) -> None:
        """The current instruction certainly writes all of these slots of that frame."""
        if not self.writes:
            self.writes = [0] * 8
        self.writes[frame] |= mask

    def commit(self, pc: int) -> None:
        """The instruction at `pc` is done on this path: what it wrote joins what it wrote on other paths."""
        writes = self.writes
        instance = self._here()
        at = pc - instance.start
        if writes or instance.must_write_known[at]:
            self._note_writes(instance, pc, writes or [0] * 8)
        instance.must_write_known[at] = 1
        if writes:
            self.writes = []

    def _note_writes(self, instance: Instance, pc: int, writes: list[int]) -> None:
        at = pc - instance.start
        known = instance.must_write_known[at]
        for frame in range(len(instance.frames)):
            mask = writes[frame]
            masks = instance.frames[frame]
            if masks is None:
                if not mask or known:
                    continue
                masks = instance.frames[frame] = Masks(len(instance.must_write_known))
            old = masks.write[at]
            if known:
                mask &= old
            if mask != old:
                masks.write[at] = mask
                self._soil(instance, frame, pc)
                if old & ~mask and frame < len(instance.chain):
                    instance.fresh = True

    def _soil(self, instance: Instance, frame: int, pc: int) -> None:
        instance.dirty.add((frame, pc))
        self.dirty[instance] = None

    def _update_all(self) -> None:
        """Bring every instance up to date, the innermost calls first."""
        while True:
            if not self.dirty:
                return
            innermost = max(self.dirty, key=lambda i: len(i.chain))
            del self.dirty[innermost]
            self._update(innermost)

    def _update(self, instance: Instance) -> None:
        work = instance.dirty
        instance.dirty = set()
        start, ins, depth = instance.start, self.env.ins, len(instance.chain)
        if instance.fresh:
            instance.fresh = False
            for frame, masks in enumerate(instance.frames[:-1]):
                if masks is not None:
                    masks.write_acc = [0] * len(masks.write_acc)
                    work |= {(frame, start + at) for at in range(len(masks.read)) if ins[start + at].pc == start + at}
        queue = list(work)
        while queue:
            item = queue.pop()
            work.discard(item)
            frame, pc = item
            masks = instance.frames[frame]
            assert masks is not None
            at = pc - start
            after, written = 0, 0
            successors = ins[pc].successors
            for to in successors:
                after |= masks.live[to - start]
            if frame < depth:
                written = masks.write[at] | _written(masks, start, ins[pc])
            before = (after & ~masks.write[at]) | masks.read[at]
            if before != masks.live[at] or written != masks.write_acc[at]:
                masks.live[at] = before
                masks.write_acc[at] = written
                for back in self.predecessors[pc]:
                    follow = (frame, back)
                    if follow not in work:
                        work.add(follow)
                        queue.append(follow)
        if instance.chain:
            self._carry_out(instance)

    def _carry_out(self, instance: Instance) -> None:
        """Hand what a function reads and writes of its callers' stacks to the call."""
        call = instance.chain[-1]
        sub = next(s for s in self.env.subprogs if s.start <= call < s.end)
        chain = instance.chain[:-1]
        key = (*chain, sub.start)
        outer = self.instances.get(key)
        if outer is None:
            outer = self.instances[key] = Instance(chain, sub.start, sub.end - sub.start)
        writes = [0] * 8
        for frame in range(len(instance.chain)):
            masks = instance.frames[frame]
            if masks is not None:
                writes[frame] = masks.write_acc[0]
                self._note_read(outer, frame, call, masks.live[0])
        self._note_writes(outer, call, writes)
        outer.must_write_known[call - outer.start] = 1

    def live_slots(self, state: State, frame: int) -> int:
        """Return the mask of slots of that frame which a continuation of the state may read.

        `refresh` must have been called since the last path was followed.
        """
        last = len(state.frames) - 1
        inner = self._instance(state, last)
        masks = inner.frames[frame] if frame < len(inner.frames) else None
        live = masks.live[state.pc - inner.start] if masks else 0
        for i in range(frame, last):
            call = state.frames[i + 1].callsite
            instance = self._instance(state, i)
            masks = instance.frames[frame]
            if masks is not None:
                at = call if self.env.calls_callback[call] else call + 1
                live |= masks.live[at - instance.start]
        return live

    def update_chain(self) -> None:
        """The path ends, or leaves a function: nothing to do, since whoever asks has all brought up to date."""

    def refresh(self) -> None:
        """Bring the data flow up to date with all that was noted."""
        self._update_all()
