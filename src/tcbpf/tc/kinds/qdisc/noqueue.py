"""noqueue: what a device without a queue has at its root."""

from __future__ import annotations

from tcbpf.tc.kinds.qdisc.kind import QdiscKind

NOQUEUE = QdiscKind("noqueue")
