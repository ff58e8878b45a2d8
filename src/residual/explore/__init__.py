"""The page in the browser: its server, its built files, and the page without a server."""

from residual.libraries import lazily

__all__ = ["application", "export_page", "serve"]

__getattr__ = lazily(__name__, ("app", "serving", "export"), __all__)
