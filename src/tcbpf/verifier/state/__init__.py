"""What is known at one point of a program: registers, stack, locks and references, for each frame."""
