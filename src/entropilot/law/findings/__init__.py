"""Findings: what is wrong with a run, by its own log."""
