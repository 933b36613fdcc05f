"""Figures and one self-contained page, from records."""
