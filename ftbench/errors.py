"""Errors that a user can act on.

FtbenchError             something went wrong and the message says what to do; the command exits with 1
├── UsageError           the request itself is wrong (names, numbers, files); exits with 2
├── StoreError           the output folder cannot be read or written; exits with 1
└── Interrupted          stopped on request, a checkpoint is on disk; exits with 130

Anything else that escapes is a bug. Messages name the thing, say what was expected and, for names,
the nearest valid one.
"""

from __future__ import annotations

import errno
import re

_DISK = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again, nothing is lost",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again, nothing is lost",
    errno.EFBIG: "the file would be larger than allowed here; nothing is lost",
    errno.EACCES: "permission denied: choose another place with -o",
    errno.EPERM: "permission denied: choose another place with -o",
    errno.EROFS: "the file system is read-only: choose another place with -o",
}


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


def explain(error: Exception) -> str:
    """The system's reason for a file that could not be written, and what to do about the common ones.

    safetensors and tokenizers wrap the system's error in a text of their own, ``... (os error 28)``.
    """
    found = re.search(r"os error (\d+)", str(error))
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    system = error.strerror if isinstance(error, OSError) else None
    return _DISK.get(number or 0) or system or str(error)


class OneRowTooMuch(RuntimeError):
    """One row is more than the memory holds while nothing is trained: smaller micro-batches do not help."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or the GPU had no memory left, however that was said."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(
        sign in text for sign in ("out of memory", "outofmemory", "can't allocate memory", "cublas_status_alloc_failed")
    )
