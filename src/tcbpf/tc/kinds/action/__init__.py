"""Every kind of action, one row each, in its own file."""

from __future__ import annotations

from tcbpf.tc.kinds.action import bpf, gact, mirred, skbedit, vlan

ACTIONS = {kind.name: kind for kind in (gact.GACT, mirred.MIRRED, bpf.BPF, vlan.VLAN, skbedit.SKBEDIT)}
