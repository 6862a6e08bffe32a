"""Every kind of filter, one row each, in its own file."""

from __future__ import annotations

from tcbpf.tc.kinds.filter import bpf, matchall, u32

FILTERS = {kind.name: kind for kind in (bpf.BPF, matchall.MATCHALL, u32.U32)}
