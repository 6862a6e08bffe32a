"""Pointers and what they point to: packets, stack, map values, kernel structures."""
