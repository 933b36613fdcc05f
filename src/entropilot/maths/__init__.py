"""Tensors in, tensors out: no I/O, no global random state, no engine."""
