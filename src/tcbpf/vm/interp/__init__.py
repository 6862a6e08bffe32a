"""The interpreter: one instruction at a time, every access checked, every step remembered on request."""
