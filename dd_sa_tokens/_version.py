"""The package's version: its own room, so that the client can name it without importing the face."""

__version__ = "0.1.0"
