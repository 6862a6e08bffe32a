"""The walk over paths: which are pending, which need not be followed, which numbers must be exact."""
