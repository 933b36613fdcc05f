"""Models, problems and completions, and how a prompt becomes text."""
