"""Top-k lists from two matrices."""
