"""The one runtime, in C: maps, packets, helpers, the packet loop. Built here, reached through ctypes and by the JIT.

library()   the shared library, built when it is missing or its sources changed
bitcode()   the same as LLVM bitcode
struct(n)   the ctypes structure of `struct tcbpf_...`, laid out as the library says
helper(n)   the address of a helper, by its name in tables.helpers
"""

from __future__ import annotations

from tcbpf.native.library import bitcode, function, helper, helpers, library, struct

__all__ = ["bitcode", "function", "helper", "helpers", "library", "struct"]
