"""Where in a picture a unit, a text or an adapter finds what it finds."""
