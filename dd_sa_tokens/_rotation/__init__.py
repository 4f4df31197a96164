"""The rotation: a saga of create, store and revoke, each step of which is run to its end or undone."""

from .saga import rotate

__all__ = ["rotate"]
