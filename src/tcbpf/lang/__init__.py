"""Compilers to Object: C."""

from tcbpf.lang.c import compile, compile_c
from tcbpf.lang.compiler import find_compiler

__all__ = ["compile", "compile_c", "find_compiler"]
