"""Captures through the user datapath's machine code: the packet loop over a file, and one-shot runs."""
