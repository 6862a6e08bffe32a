"""The runtime's objects in Python: maps, packets and environments, each with the address that machine code takes."""

from __future__ import annotations

from tcbpf.native.env import Env, Trace
from tcbpf.native.mapfile import MapFile
from tcbpf.native.mapmemory import possible_cpus
from tcbpf.native.skb import Skb

__all__ = ["Env", "MapFile", "Skb", "Trace", "possible_cpus"]
