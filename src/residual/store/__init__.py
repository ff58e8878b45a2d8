"""Coordinates of a whole dataset: written once, read by everything that follows."""
