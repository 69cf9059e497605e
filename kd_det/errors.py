"""Errors that are meant for users; standard library alone.

The command lines show them as one message. Any other exception is a fault and keeps its traceback.
"""


class UserError(Exception):
    """Base of all errors that say what is wrong, what was expected and what to do."""


class InvalidInputError(UserError, ValueError):
    """An argument, an entry of a config or a value in a file that is not valid."""


class UnsupportedTypeError(UserError, TypeError):
    """An object of a kind that is not supported."""


class MissingPackageError(UserError, ImportError):
    """A package that an optional feature needs is not installed."""
