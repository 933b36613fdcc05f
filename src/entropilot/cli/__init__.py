"""The command line: commands parse and print; the work is done elsewhere."""
