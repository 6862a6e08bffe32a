"""`tcbpf verify`: the verifier's answer as text, JSON and a page."""
