"""The rules of the verifier that a kernel release brought or dropped: one row each, asked by name.

Instructions, helpers, kernel functions, map types and fields of the context have a `since` in their own rows; here are the
changes that belong to no such row.

Source:  kernel/bpf/verifier.c of each release, as the rows say.
"""

from __future__ import annotations

from dataclasses import dataclass

from tcbpf.tables.row import Release, Table


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: `since` is the first release that has it, `until` the first without it. Without a release it never holds."""

    name: str
    text: str                                  # the rule, as a sentence
    since: Release = (99, 0)
    until: Release = (99, 0)
    source: str = ""

    def holds(self, kernel: Release) -> bool:
        """Tell whether kernels of that release have the rule."""
        return self.since <= kernel < self.until


RULES: Table[Rule] = Table(
    Rule("array_key_in_bounds", "a look-up in an array with a constant key inside it does not return NULL",
         since=(6, 14), source="get_constant_map_key()"),
    name=lambda row: row.name,
    number=lambda row: row.name,
)


def rules_of(kernel: Release) -> frozenset[str]:
    """Return the names of the rules that kernels of that release have."""
    return frozenset(row.name for row in RULES if row.holds(kernel))
