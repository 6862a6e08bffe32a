"""What is known of one number: bits, ranges, how operations and branches change them, and the types of values."""
