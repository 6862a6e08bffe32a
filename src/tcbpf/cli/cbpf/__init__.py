"""`tcbpf cbpf`: classic BPF."""
