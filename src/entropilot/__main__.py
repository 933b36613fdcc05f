"""Run the command line: `python -m entropilot`."""

from entropilot.cli.main import main

main()
