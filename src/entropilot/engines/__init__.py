"""Hold one folder per training engine; only these import an engine."""
