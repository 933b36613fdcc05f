"""Run entropilot's methods inside verl: `plugin` is what verl loads, the rest is what it registers."""
