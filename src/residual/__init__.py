"""ResiDual."""
