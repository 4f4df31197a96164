"""The package's version, in a module of its own: the client names it in each request."""

__version__ = "0.1.0"
