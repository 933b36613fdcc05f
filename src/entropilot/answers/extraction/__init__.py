"""Find the answer in a completion."""
