"""The nouns of ftbench: frozen, validated, without torch."""

from ftbench.types.choice import Choice, CurvePoint, Standing
from ftbench.types.features import Features
from ftbench.types.run import Cost, MethodSpec, Record, Result, RunSpec
from ftbench.types.search import Search, Trial
from ftbench.types.table import Column, Table
from ftbench.types.task import Data, Rows, Task

__all__ = [
    "Choice", "Column", "Cost", "CurvePoint", "Data", "Features", "MethodSpec", "Record", "Result", "Rows", "RunSpec",
    "Search", "Standing", "Table", "Task", "Trial",
]  # fmt: skip
