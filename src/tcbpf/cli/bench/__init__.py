"""`tcbpf bench`: ratios, measured side by side."""
