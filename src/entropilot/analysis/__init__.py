"""Statistics of runs: numpy and scipy, never an engine."""
