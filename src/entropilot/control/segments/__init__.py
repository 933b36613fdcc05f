"""Segments of trajectories: collection, labels, checks, files."""
