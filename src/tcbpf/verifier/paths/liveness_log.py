"""Stack liveness as a level 2 log shows it: the kernel's own passes over a function, each change a line.

The result is the one that liveness.py finds with fewer steps; this way is slow, and taken only for the log.

Source:  update_insn(), update_instance(), bpf_update_live_stack(), kernel/bpf/liveness.c; compute_postorder(),
         kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from tcbpf.verifier.paths.liveness import Instance, Masks, StackLiveness
from tcbpf.verifier.state.env import Env
from tcbpf.verifier.words.format import ALL, format_mask


class LoggedLiveness(StackLiveness):
    """The stack's liveness, brought up to date where the kernel does, with a line for every change."""

    __slots__ = ("orders", "updated")

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.updated: set[Instance] = set()
        self.orders: dict[int, list[int]] = {}

    def refresh(self) -> None:
        """Nothing: the end of a path did it."""

    def update_chain(self) -> None:
        """Bring up to date what changed under the calls that are open now, the innermost first."""
        self.forget_chain()
        state = self.env.cur
        for number in range(len(state.frames) - 1, -1, -1):
            instance = self._instance(state, number)
            if instance in self.updated:
                self._pass(instance)
                self.updated.discard(instance)
                instance.fresh = False

    def _note_read(self, instance: Instance, frame: int, pc: int, mask: int) -> None:
        masks = instance.frames[frame]
        at = pc - instance.start
        known, live = (masks.read[at], masks.live[at]) if masks is not None else (0, 0)
        super()._note_read(instance, frame, pc, mask)
        if mask & ~known and (known | mask) & ~live:
            self.updated.add(instance)

    def _note_writes(self, instance: Instance, pc: int, writes: list[int]) -> None:
        at = pc - instance.start
        before = [masks.write[at] if masks is not None else 0 for masks in instance.frames]
        super()._note_writes(instance, pc, writes)
        if before != [masks.write[at] if masks is not None else 0 for masks in instance.frames]:
            self.updated.add(instance)

    def _pass(self, instance: Instance) -> None:
        frames = [(number, masks) for number, masks in enumerate(instance.frames) if masks is not None]
        if instance.fresh:
            for _, masks in frames:
                masks.write_acc = [0] * len(masks.write_acc)
        order = self.orders.get(instance.start)
        if order is None:
            order = self.orders[instance.start] = self._postorder(instance.start)
        chain = f"({','.join(map(str, (*instance.chain, instance.start)))})"
        rounds, changed = 0, True
        while changed:
            rounds += 1
            changed = False
            for number, masks in frames:
                for pc in order:
                    changed |= self._step(instance, number, masks, pc, chain)
        self.env.log.line(f"{chain} live stack update done in {rounds} iterations")
        if instance.chain:
            self._carry_out(instance)

    def _step(self, instance: Instance, frame: int, masks: Masks, pc: int, chain: str) -> bool:
        """Compute one instruction's masks anew from its successors', and tell whether they changed."""
        env, start = self.env, instance.start
        successors, at = env.ins[pc].successors, pc - start
        if not successors:
            return False
        after, written = 0, ALL
        for to in successors:
            after |= masks.live[to - start]
            written &= masks.write_acc[to - start]
        before = (after & ~masks.write[at]) | masks.read[at]
        written |= masks.write[at]
        was_live, was_written = masks.live[at], masks.write_acc[at]
        if masks.read[at] or masks.write[at] or pc == start or env.prune_point[pc]:
            place = f"{chain} frame {frame} insn {pc} "
            self._say(place, "live", was_live, before)
            self._say(place, "written", was_written, written)
        masks.live[at], masks.write_acc[at] = before, written
        return before != was_live or written != was_written

    def _say(self, place: str, word: str, old: int, new: int) -> None:
        if old == new:
            return
        gained, lost = new & ~old, old & ~new
        text = f"+{word} {format_mask(gained, '')} " if gained else ""
        self.env.log.line(place + text + (f"-{word} {format_mask(lost, '')}" if lost else ""))

    def _postorder(self, start: int) -> list[int]:
        """Return a function's instructions, each after those that follow it, in the kernel's order."""
        order: list[int] = []
        stack, found, done = [start], {start}, set()
        while stack:
            top = stack[-1]
            if top in done:
                order.append(top)
                stack.pop()
                continue
            for to in self.env.ins[top].successors:
                if to not in found:
                    found.add(to)
                    stack.append(to)
            done.add(top)
        return order
