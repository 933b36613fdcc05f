"""Finite worlds with exact regret, and the learners on them."""
