"""Recipe files, checked and resolved."""
