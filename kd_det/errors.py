"""Errors that are meant for users; standard library alone.

The command lines show them as one message. Any other exception is a fault and keeps its traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """Base of all errors that say what is wrong, what was expected and what to do."""


class InvalidInputError(UserError, ValueError):
    """An argument, an entry of a config or a value in a file that is not valid."""


class UnsupportedTypeError(UserError, TypeError):
    """An object of a kind that is not supported."""


class MissingPackageError(UserError, ImportError):
    """A package that an optional feature needs is not installed."""


def add_note(error: BaseException, note: str) -> None:
    """Add a line to an error, as `BaseException.add_note` does since Python 3.11.

    The command lines print it in any Python; tracebacks show it since 3.11.
    """
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        notes = [*getattr(error, "__notes__", ()), note]
        error.__notes__ = notes  # type: ignore[attr-defined]
