"""The nouns of ftbench: frozen, validated, without torch."""

from ftbench.types.features import Features
from ftbench.types.run import Cost, MethodSpec, Record, Result, RunSpec
from ftbench.types.search import Search, Trial
from ftbench.types.table import Column, Table
from ftbench.types.task import Data, Rows, Task

__all__ = [
    "Column", "Cost", "Data", "Features", "MethodSpec", "Record", "Result", "Rows", "RunSpec", "Search", "Table",
    "Task", "Trial",
]  # fmt: skip
