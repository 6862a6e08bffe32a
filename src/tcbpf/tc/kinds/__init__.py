"""Kinds of qdiscs, filters, actions and devices, one file each: grammar, listing, netlink attributes, and what they do here.

Both datapaths and the command line read these rows, so a kind may use only `control`, `tables`, `uapi`, `errors`, the
rules of classic bytecode and other kinds: neither an engine nor the rest of `tc`.
"""
