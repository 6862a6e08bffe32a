"""The JIT: a verified program as LLVM IR, linked with the runtime, compiled, hardened and mapped."""
