"""Sample from models, grade, and report avg@k, pass@k and maj@k."""
