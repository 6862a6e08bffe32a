"""Kernel functions: none is followed by this verifier yet; each call is refused by name.

Source:  check_kfunc_call(), kernel/bpf/verifier.c (v6.18).
"""

from __future__ import annotations

from tcbpf.verifier.env import Env
from tcbpf.verifier.insns import Ins


def call_kfunc(env: Env, ins: Ins) -> int:
    """call kernel function imm."""
    if not env.gpl:
        env.refuse("kfunc_gpl")
    env.refuse("not_supported", what=f"kernel function #{ins.imm}")
