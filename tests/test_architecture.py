"""The layout that ``ftbench`` promises: who imports whom, how large things are, what loads without torch."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import ftbench

PACKAGE = Path(ftbench.__file__).parent
ROOT = PACKAGE.parent
HEAVY = ("torch", "transformers", "datasets", "pandas", "sklearn", "scipy", "pyarrow", "huggingface_hub")

#: a part of ftbench -> the parts it may import from; a longer name is a single module
MAY = {
    "cli": {"runs", "reporting", "tasks", "models.locate", "methods", "types", "lookup", "errors", "__init__"},
    "runs": {
        "training",
        "analysis",
        "tasks",
        "models.locate",
        "methods",
        "types",
        "lookup",
        "errors",
        "__init__",
        # a race decides by the intervals that reports print
        "reporting.crossed",
        "reporting.predictions",
        "reporting.resample",
    },
    "training": {"methods", "analysis", "tasks", "metrics", "models", "types", "lookup", "errors"},
    "analysis": {"models", "metrics", "types", "lookup", "errors"},
    "methods": {
        "models.adapters",
        "models.backbone",
        "models.modes",
        "models.pooling",
        "models.trainable",
        "models.words",
        "metrics",
        "types",
        "lookup",
        "errors",
    },
    "models": {"types", "lookup", "errors"},
    "tasks": {"metrics", "types", "lookup", "errors"},
    "metrics": {"types", "lookup", "errors"},
    "reporting": {"metrics", "types", "lookup", "runs.store", "errors"},
    "types": {"errors"},
    "lookup": {"errors"},
    "errors": set(),
    "__init__": set(),
    "__main__": {"cli"},
}
#: inside the table folders a file imports only these of its neighbours
#: ``method`` and ``divergence`` know no other file; the others are shared by methods of one kind
BASES = {"methods": {"method", "divergence", "noise", "adversary", "features", "frozen"}}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in files()}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(node: ast.AST, *, inside_functions: bool) -> Iterator[ast.AST]:
    """Every node that runs; the bodies of ``if TYPE_CHECKING`` never do."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        if not inside_functions and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from statements(child, inside_functions=inside_functions)


def imports(path: Path, *, inside_functions: bool = True, typing_too: bool = False) -> set[str]:
    """Modules that a file imports, each as precise as it is said: ``from a.b import c`` is ``a.b.c`` if that is one."""
    nodes = ast.walk(tree(path)) if typing_too else statements(tree(path), inside_functions=inside_functions)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            base = node.module or ""
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                found.add(deeper if deeper in MODULES else base)
    return found


def part(module: str) -> str:
    """``ftbench.runs.store`` belongs to ``runs``, ``ftbench`` to ``__init__``."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else "__init__"


def is_allowed(source: str, target: str) -> bool:
    own, inner = part(source), target.removeprefix("ftbench.")
    other = part(target)
    return other == own or other in MAY[own] or inner in MAY[own]


def test_every_part_has_its_rule() -> None:
    assert {part(name) for name in MODULES} <= set(MAY)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_downwards(name: str) -> None:
    ours = {target for target in imports(MODULES[name], typing_too=True) if target.split(".")[0] == "ftbench"}
    wrong = sorted(target for target in ours if not is_allowed(name, target))
    assert not wrong, f"{name} may not import {wrong}"


def test_the_rule_would_notice() -> None:
    assert not is_allowed("ftbench.methods.r3f", "ftbench.tasks")
    assert not is_allowed("ftbench.methods.r3f", "ftbench.runs.store")
    assert not is_allowed("ftbench.cli.app", "ftbench.models.backbone")
    assert not is_allowed("ftbench.cli.app", "ftbench.training.run")
    assert not is_allowed("ftbench.reporting.tables", "ftbench.runs.grid")
    assert not is_allowed("ftbench.runs.grid", "ftbench.models.backbone")
    assert is_allowed("ftbench.reporting.tables", "ftbench.runs.store")


@pytest.mark.parametrize("folder", sorted(BASES))
def test_files_of_a_table_never_import_each_other(folder: str) -> None:
    allowed = {f"ftbench.{folder}.{base}" for base in BASES[folder]}
    for path in sorted((PACKAGE / folder).glob("*.py")):
        if path.stem in {"__init__", *BASES[folder]}:
            continue
        near = {target for target in imports(path, typing_too=True) if target.startswith(f"ftbench.{folder}")}
        assert near <= allowed, f"{path.name} imports {sorted(near - allowed)}"


@pytest.mark.parametrize("base", ["method", "divergence"])
def test_the_base_of_methods_knows_no_method(base: str) -> None:
    path = PACKAGE / "methods" / f"{base}.py"
    assert not {target for target in imports(path, typing_too=True) if target.startswith("ftbench.methods")}


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring, or nothing."""
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            if ring := visit(target, [*trail, node]):
                return ring
        done.add(node)
        return []

    for start in sorted(graph):
        if ring := visit(start, []):
            return ring
    return []


def with_parents(targets: set[str]) -> set[str]:
    """Importing ``a.b.c`` runs ``a`` and ``a.b`` too."""
    return {".".join(t.split(".")[: i + 1]) for t in targets for i in range(t.count(".") + 1)}


@pytest.mark.parametrize("inside_functions", [False, True], ids=["module level", "functions too"])
def test_no_import_cycles(inside_functions: bool) -> None:
    graph = {
        name: {t for t in imports(path, inside_functions=inside_functions) if t in MODULES} - {name}
        for name, path in MODULES.items()
    }
    assert find_cycle(graph) == []


def test_no_cycle_through_a_package_either() -> None:
    graph = {}
    for name, path in MODULES.items():
        own = {name, *(".".join(name.split(".")[:i]) for i in range(1, name.count(".") + 1))}
        graph[name] = {t for t in with_parents(imports(path, inside_functions=False)) if t in MODULES} - own
    assert find_cycle(graph) == []


def test_find_cycle_finds_one() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def light_modules() -> list[str]:
    light = [name for name in MODULES if part(name) in ("types", "lookup", "errors", "cli", "reporting", "tasks")]
    return sorted([*light, "ftbench.runs.store", "ftbench.runs.stages", "ftbench.runs.claim", "ftbench.models.locate"])


@pytest.mark.parametrize("name", light_modules())
def test_light_modules_say_no_heavy_import_at_the_top(name: str) -> None:
    top = {target.split(".")[0] for target in imports(MODULES[name], inside_functions=False)}
    assert not top & set(HEAVY)


def loaded_by(code: str) -> set[str]:
    """Which heavy packages are loaded after ``code`` ran in a new Python."""
    program = f"import sys\n{code}\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_command_line_store_and_tables_load_without_torch() -> None:
    assert loaded_by("import ftbench.cli.app") == set()
    assert loaded_by("import ftbench.cli.app, ftbench.runs.store, ftbench.reporting.tables") == set()


def test_planning_a_study_and_listing_load_without_torch() -> None:
    assert "torch" not in loaded_by("import ftbench.runs.stages, ftbench.runs.grid, ftbench.tasks, ftbench.cli.study")


# ------------------------------------------------------------------------------------------------ sizes


def test_files_are_small() -> None:
    lengths = sorted(len(path.read_text().splitlines()) for path in files())
    assert statistics.median(lengths) <= 120
    assert statistics.quantiles(lengths, n=10)[8] <= 250
    long = [path.name for path in files() if len(path.read_text().splitlines()) > 400]
    assert not long


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef))


def has_docstring(node: ast.FunctionDef | ast.ClassDef | ast.Module) -> bool:
    return bool((ast.get_docstring(node) or "").strip())


def function_length(path: Path, node: ast.FunctionDef) -> int:
    """Lines from ``def`` to the end. A command's length is its list of options: there only the body
    after the docstring counts."""
    first = node.lineno
    if path.parent.name == "cli" and any("typer" in ast.dump(a) for a in ast.walk(node.args) if a is not node.args):
        first = node.body[1 if has_docstring(node) and len(node.body) > 1 else 0].lineno
    return (node.end_lineno or node.lineno) - first + 1


def test_functions_are_small() -> None:
    lengths = {f"{path.name}:{node.name}": function_length(path, node) for path in files() for node in functions(path)}
    assert {name: length for name, length in lengths.items() if length > 60} == {}


# ------------------------------------------------------------------------------------- names and words

#: what a method overrides is described once, in methods/method.py; a display follows StudyProgress
HOOKS = {node.name for node in functions(PACKAGE / "methods" / "method.py")}
DISPLAYS = {"Lines", "Display", "Silent"}
PROTOCOLS = {"StudyProgress", "Progress"}


def definitions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Public functions, classes and methods of a file, by their dotted name."""

    def below(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
                yield f"{prefix}{child.name}", child
                if isinstance(child, ast.ClassDef):
                    yield from below(child, f"{prefix}{child.name}.")

    yield from below(tree(path), "")


def may_go_without(path: Path, name: str) -> bool:
    owner, _, attribute = name.rpartition(".")
    if owner in DISPLAYS | PROTOCOLS:
        return True
    return path.parent.name == "methods" and path.stem != "method" and attribute in HOOKS


def is_property(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """A noun with a type: may go without words."""
    return any(isinstance(d, ast.Name) and d.id in ("property", "cached_property") for d in node.decorator_list)


#: one-liners whose name and type say it all; nothing new goes in here
BARE = {"cost.py:Meter.start"}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_things_have_docstrings(path: Path) -> None:
    assert has_docstring(tree(path)), f"{path}: no module docstring"
    bare = {
        f"{path.name}:{name}"
        for name, node in definitions(path)
        if not has_docstring(node) and not is_property(node) and not may_go_without(path, name)
    }
    assert bare - BARE == set()


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_are_annotated(path: Path) -> None:
    bare = []
    for node in functions(path):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        missing = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        if missing or node.returns is None:
            bare.append(f"{node.name}({', '.join(missing)})")
    assert not bare


def test_all_is_sorted_and_true() -> None:
    for path in files():
        for node in tree(path).body:
            if isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets
            ):
                names = ast.literal_eval(node.value)
                assert names == sorted(names), path
                module = __import__(module_name(path), fromlist=names)
                assert all(hasattr(module, name) for name in names), path


def test_tables_are_complete() -> None:
    """Every file in methods/ is named in METHODS, each under its own name."""
    from ftbench.methods import METHODS, method_class

    in_table = {path.split(":")[0].rsplit(".")[-1] for path in METHODS.values()}
    in_folder = {path.stem for path in (PACKAGE / "methods").glob("*.py")} - {"__init__", *BASES["methods"]}
    assert in_table == in_folder
    assert all(method_class(name).name == name for name in METHODS)


def test_the_version_is_in_the_changelog() -> None:
    changelog = ROOT / "CHANGELOG.md"
    if not changelog.exists():
        pytest.skip("there is no CHANGELOG.md yet")
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+[^\]\s]*)\]?", changelog.read_text(), re.MULTILINE)
    assert newest is not None, "CHANGELOG.md has no heading like ## [0.1.0]"
    assert newest.group(1) == ftbench.__version__


PLACES = re.compile(r"""(?<![\w.~/-])/(?:home|root|work|tmp|Users|mnt)/\w|[A-Z]:\\\\?Users""")


def test_no_path_of_somebodys_machine() -> None:
    every = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    held = {str(path): found.group() for path in every if (found := PLACES.search(path.read_text(errors="replace")))}
    assert held == {}
    assert PLACES.search('open("/home/someone/x")') and PLACES.search("'/work/main'") and PLACES.search("/tmp/x")
