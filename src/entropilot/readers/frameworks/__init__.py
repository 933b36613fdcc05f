"""Training frameworks: one file each, with its READER entry."""
