"""Commands in forked processes, as in ``tests/runs``."""

from tests.runs.conftest import _loaded, command

__all__ = ["_loaded", "command"]
