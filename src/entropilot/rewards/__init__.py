"""Rewards as callables in the form that TRL calls them."""
