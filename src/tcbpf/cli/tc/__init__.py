"""`tcbpf tc`: tc(8)'s grammar, words and output."""
