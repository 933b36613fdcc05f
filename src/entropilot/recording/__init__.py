"""Record what happens in a run, on any engine."""
