"""Train and evaluate policies on preferences."""
