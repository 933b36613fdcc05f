"""Thin adapters; the only files that import an engine."""
