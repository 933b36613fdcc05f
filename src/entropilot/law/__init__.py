"""Fit R = -a*exp(H) + b, diagnose the fit, and forecast."""
