"""Capture a forward pass, split it into units, project units to the output."""
