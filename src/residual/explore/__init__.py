"""The page in the browser: its server, its built files, and the page without a server."""
