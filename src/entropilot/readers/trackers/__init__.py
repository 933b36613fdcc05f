"""Experiment trackers: one file each, with its READER entry."""
