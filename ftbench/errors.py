"""Errors that a user can act on.

FtbenchError             something went wrong and the message says what to do; the command exits with 1
├── UsageError           the request itself is wrong (names, numbers, files); exits with 2
├── StoreError           the output folder cannot be read or written; exits with 1
└── Interrupted          stopped on request, a checkpoint is on disk; exits with 130

Anything else that escapes is a bug. Messages name the thing, say what was expected and, for names,
the nearest valid one.
"""

from __future__ import annotations


class FtbenchError(Exception):
    """A failure with a message for the user, not a traceback."""

    exit_code = 1


class UsageError(FtbenchError):
    """The request is wrong: an unknown name, a value out of range, a file that is not what it should be."""

    exit_code = 2


class StoreError(FtbenchError):
    """The output folder cannot be read or written (permissions, a full disk)."""


class Interrupted(FtbenchError):
    """SIGINT or SIGTERM: the run stopped after a step and left a checkpoint."""

    exit_code = 130
