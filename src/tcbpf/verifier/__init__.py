"""The verifier: proves a program safe before any engine may run it, in the kernel's way and with its words."""

from tcbpf.verifier.check import verify
from tcbpf.verifier.verified import Aux, Region, Subprog, Verified

__all__ = ["Aux", "Region", "Subprog", "Verified", "verify"]
