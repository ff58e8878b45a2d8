"""Load a vision (and text) encoder by name; one file a family, each declares its Anatomy."""
