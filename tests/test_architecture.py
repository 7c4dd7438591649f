"""What the design promises about the source: the order of imports, small files, nothing unpickled or executed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "jaxrl_suite"
# From the top down: a room may import from rooms beside it and below it. The facade `jaxrl_suite/__init__.py` hands on
# names to users, and to experiments and figures.
LAYERS = (
    ("experiments", "paper_figs"),
    (PACKAGE,),
    ("sweep",),
    ("train",),
    ("report",),
    ("algorithms",),
    ("models", "values"),
    ("nets", "distributions", "buffer", "frames", "mesh", "envs", "data"),
    ("types", "errors"),
)
DEPTH = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}
EXECUTING = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
SHIPPED = [path for folder in (PACKAGE, "experiments", "paper_figs") for path in sorted((ROOT / folder).rglob("*.py"))]
SOURCES = [*SHIPPED, *sorted((ROOT / "tests").rglob("*.py"))]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("results/*/README.md")]
TEXTS = [*SOURCES, *sorted(DOCUMENTS), ROOT / "pyproject.toml", *sorted((ROOT / ".ci").iterdir())]


# --- readers of source text ---
def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Every module a file may import, as absolute dotted names; `from a import b` yields `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def room_of(name: str, rooms: set[str]) -> str | None:
    """The room a dotted name belongs to; None for other people's packages."""
    top, *rest = name.split(".")
    if top in LAYERS[0]:
        return top
    if top != PACKAGE:
        return None
    return rest[0] if rest and rest[0] in rooms else PACKAGE


def rooms_of_tree() -> set[str]:
    entries = (ROOT / PACKAGE).iterdir()
    return {path.stem for path in entries if (path.suffix == ".py" or any(path.rglob("*.py")))} - {"__init__"}


def upward(importer: str, imported: set[str]) -> list[str]:
    """The rooms that `importer` must not know."""
    return sorted(room for room in imported if DEPTH[room] < DEPTH[importer])


def cycles(graph: dict[str, set[str]]) -> set[str]:
    """Nodes that reach themselves."""
    reach = {node: set(others) for node, others in graph.items()}
    for _ in graph:
        reach = {node: others.union(*(reach[other] for other in others)) for node, others in reach.items()}
    return {node for node, others in reach.items() if node in others}


def flax_modules(tree: ast.AST) -> set[str]:
    """Which of flax's two network interfaces a file names, by import or by attribute."""
    named = {name for name in imports(tree, "") if name.startswith("flax.")}
    named |= {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {found.group(1) for name in named if (found := re.match(r"flax\.(linen|nnx)\b", name))}


def unsafe(tree: ast.AST) -> list[str]:
    """Ways to execute what a file says: pickle and its kin, eval, exec, yaml.load, allow_pickle."""
    found = [name for name in imports(tree, "") if EXECUTING & set(name.split("."))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in ("eval", "exec", "__import__"):
            found.append(node.id)
        if isinstance(node, ast.Attribute) and node.attr in ("read_pickle", "to_pickle", "unsafe_load"):
            found.append(node.attr)
        if isinstance(node, ast.Call):
            found += unsafe_call(node)
    return found


def unsafe_call(node: ast.Call) -> list[str]:
    called = ast.unparse(node.func)
    allowed = [k for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"]
    return [f"{called}(allow_pickle)"] * len(allowed) + [called] * (called in ("yaml.load", "torch.load"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def room_graph() -> dict[str, set[str]]:
    """Which rooms every room imports, itself aside."""
    rooms = rooms_of_tree()
    graph: dict[str, set[str]] = {room: set() for room in rooms | {PACKAGE, *LAYERS[0]}}
    for path in SHIPPED:
        module = module_of(path)
        importer = room_of(module, rooms)
        assert importer is not None
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        used = {room_of(name, rooms) for name in imports(parsed(path), package)}
        graph[importer] |= {room for room in used if room is not None} - {importer}
    return graph


# --- the promises ---
def test_every_room_has_its_place():
    assert sorted(rooms_of_tree() - set(DEPTH)) == [], "give the new room a place in LAYERS"


def test_imports_run_downwards_only():
    offences = {room: bad for room, used in room_graph().items() if (bad := upward(room, used))}
    assert offences == {}


def test_rooms_do_not_import_each_other_in_circles():
    assert sorted(cycles(room_graph())) == []


def test_networks_are_written_in_nets_alone():
    users = {path.relative_to(ROOT).as_posix() for path in SHIPPED if flax_modules(parsed(path))}
    assert users == {f"{PACKAGE}/nets.py"}


def test_nothing_is_unpickled_or_executed():
    offences = {path.relative_to(ROOT).as_posix(): bad for path in SHIPPED if (bad := unsafe(parsed(path)))}
    assert offences == {}


def test_files_are_small():
    limits = {path: 200 if path.parent.name == "algorithms" else 450 for path in SHIPPED}
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SHIPPED}
    assert {path.name: lines[path] for path in SHIPPED if lines[path] > limits[path]} == {}


def test_subpackages_only_hand_names_on():
    """A module's own `__getattr__` is allowed: it hands names on late."""
    kinds = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
    files = [path for path in SHIPPED if path.name == "__init__.py"]
    defined = {
        module_of(path): node.name
        for path in files
        for node in parsed(path).body
        if isinstance(node, kinds) and node.name not in ("__getattr__", "__dir__")
    }
    assert defined == {}


def test_nothing_is_left_undone_and_no_machine_is_named():
    # Put together here, so that this file does not find itself.
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b|(?<![\w.])/(ho" + r"me|ro" + r"ot|wo" + r"rk)/\w")
    found = {
        f"{path.relative_to(ROOT)}:{number}": line.strip()
        for path in TEXTS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    }
    assert found == {}


# --- the readers themselves can say no ---
@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "np.load('x', allow_pickle=flag)",
        "eval('1')",
        "run = exec",
        "yaml.load(text)",
        "pandas.read_pickle('x')",
        "from multiprocessing.reduction import pickle",
    ],
)
def test_unsafe_source_is_recognised(source):
    assert unsafe(ast.parse(source))


@pytest.mark.parametrize(
    "source", ["jax.eval_shape(f)", "np.load(p, allow_pickle=False)", "yaml.safe_load(t)", "evaluate()"]
)
def test_safe_source_is_let_through(source):
    assert unsafe(ast.parse(source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import flax.linen as nn",
        "from flax import linen",
        "from flax.nnx import Module",
        "import flax\nflax.linen.Dense(3)",
    ],
)
def test_flax_modules_are_recognised(source):
    assert flax_modules(ast.parse(source))


def test_flax_struct_may_serve_anywhere():
    assert not flax_modules(ast.parse("from flax import struct\nimport flax.serialization"))


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("from jaxrl_suite.train.loop import run", {"train"}),
        ("import jaxrl_suite.report.stats", {"report"}),
        ("from jaxrl_suite import data, load", {"data", PACKAGE}),
        ("from ..models import fit", {"models"}),
        ("from . import heads", {"values"}),
        ("import jax\nfrom experiments import cli", {None, "experiments"}),
        ("def late():\n    from jaxrl_suite.sweep import grid", {"sweep"}),
    ],
)
def test_imports_are_read_in_every_form(source, rooms):
    known = {"train", "report", "data", "models", "values", "sweep"}
    names = imports(ast.parse(source), "jaxrl_suite.values")
    assert {room_of(name, known) for name in names} == rooms


def test_upward_imports_and_cycles_are_recognised():
    assert upward("models", {"train", "types", "values", "algorithms"}) == ["algorithms", "train"]
    assert upward("train", {PACKAGE, "report"}) == [PACKAGE]
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {"a", "b", "c"}
    assert cycles({"a": {"b"}, "b": set()}) == set()
