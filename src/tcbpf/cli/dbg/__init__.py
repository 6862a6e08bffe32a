"""`tcbpf dbg`: the debugger of eBPF programs."""
