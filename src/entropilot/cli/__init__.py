"""Define the command line: commands parse and print; the work is done elsewhere."""
