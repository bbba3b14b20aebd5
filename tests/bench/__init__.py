"""Measures how fast the program is, as ratios to a baseline of the same run: ``make bench``."""
