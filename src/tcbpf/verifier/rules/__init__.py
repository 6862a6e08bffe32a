"""What each kind of instruction demands and changes, one module a rule."""
