"""Who may import whom, and what no file may contain; the checker is checked on planted faults."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("controller", "sim", "policies")
ALLOWED = {
    "controller": {"controller", "google", "hdrh", "mcap", "mcap_protobuf", "msgspec", "numpy"}
    | {"rich", "yaml"},
    "sim": {"controller", "sim", "dm_control", "gymnasium", "gymnasium_robotics", "h5py"}
    | {"msgspec", "mujoco", "numpy", "PIL"},
    "policies": {"controller", "policies", "h5py", "msgspec", "numpy", "prometheus_client"}
    | {"safetensors", "torch"},
}
"""Beside the standard library."""
LAZY = {"foxglove", "imageio_ffmpeg", "matplotlib", "onnx", "onnxruntime", "ray"}
"""Optional and slow: any package, but only inside a function."""
ONLY_IN = {"zmq": "controller/transport.py"}
ROOT_OF_COMPOSITION = "controller/cli/"
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "torch.save", "torch.load"}
MAX_FILE = 400
MAX_FUNCTION = 60


@dataclass(frozen=True)
class Import:
    """One imported name. ``lazy``: inside a function. ``typing``: for the type checker only."""

    line: int
    name: str
    lazy: bool
    typing: bool


def imports(tree: ast.Module, module: str) -> list[Import]:
    """Return everything a module imports, relative names resolved, ``import_module`` included."""
    return list(_imports(tree, module, lazy=False, typing=False))


def _imports(node: ast.AST, module: str, *, lazy: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        types = typing or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for name in _imported(child, module):
            yield Import(child.lineno, name, inside, types)  # type: ignore[attr-defined]
        yield from _imports(child, module, lazy=inside, typing=types)


def _imported(node: ast.AST, module: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parents = module.split(".")[: -node.level] if node.level else []
        base = ".".join([*parents, *([node.module] if node.module else [])])
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = ast.unparse(node.func)
        if called in ("import_module", "importlib.import_module", "__import__"):
            return [str(node.args[0].value)]
    return []


def check(path: str, source: str) -> list[str]:
    """Return ``path:line: fault`` for every broken rule in one file of a package."""
    tree = ast.parse(source)
    module = path.removesuffix(".py").replace("/", ".")
    faults = [f"{path}:{line}: {text}" for line, text in _import_faults(path, tree, module)]
    faults += [f"{path}:{line}: {text}" for line, text in _content_faults(tree)]
    if not ast.get_docstring(tree):
        faults.append(f"{path}:1: no module docstring")
    length = len(source.splitlines())
    if length > MAX_FILE:
        faults.append(f"{path}:{length}: {length} lines (at most {MAX_FILE})")
    return faults


def _import_faults(path: str, tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    package = path.split("/")[0]
    for entry in imports(tree, module):
        top = entry.name.split(".")[0]
        if top in UNSAFE_MODULES:
            yield entry.line, f"imports {top} (no code in data)"
        elif top in sys.stdlib_module_names or top in ALLOWED[package]:
            continue
        elif top in ONLY_IN:
            if path != ONLY_IN[top]:
                yield entry.line, f"imports {top} (only {ONLY_IN[top]} does)"
        elif top in LAZY:
            if not entry.lazy and not entry.typing:
                yield entry.line, f"imports {top} (only inside a function)"
        elif top in PACKAGES and path.startswith(ROOT_OF_COMPOSITION):
            if not entry.lazy and not entry.typing:
                yield entry.line, f"imports {top} (the command line does so inside a function)"
        else:
            allowed = ", ".join(sorted(ALLOWED[package]))
            yield entry.line, f"imports {top} ({package} imports only {allowed})"


def _content_faults(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in UNSAFE_CALLS:
                yield node.lineno, f"calls {called} (no code in data)"
            if called == "print":
                yield node.lineno, "calls print (log, or return it to the command line)"
            if any(k.arg == "allow_pickle" and _true(k.value) for k in node.keywords):
                yield node.lineno, "passes allow_pickle (no code in data)"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                yield node.lineno, f"{node.name} has {length} lines (at most {MAX_FUNCTION})"


def _true(node: ast.expr) -> bool:
    return not (isinstance(node, ast.Constant) and not node.value)


def cycles(sources: dict[str, str]) -> list[list[str]]:
    """Return the import cycles among modules, given their sources by dotted name.

    Imports inside functions and for the type checker do not count.
    """
    edges: dict[str, set[str]] = {}
    for module, source in sources.items():
        names = [
            entry.name
            for entry in imports(ast.parse(source), module)
            if not entry.lazy and not entry.typing
        ]
        found = {n if n in sources else n.rpartition(".")[0] for n in names}
        edges[module] = {name for name in found if name in sources and name != module}
    return _loops(edges)


def _loops(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the cycles that remain when modules without imports are taken away repeatedly."""
    left = {module: set(targets) for module, targets in edges.items()}
    while True:
        free = {module for module, targets in left.items() if not targets}
        if not free:
            break
        left = {m: targets - free for m, targets in left.items() if m not in free}
    loops: list[list[str]] = []
    while left:
        trail = [min(left)]
        while (following := min(left[trail[-1]])) not in trail:
            trail.append(following)
        loops.append([*trail[trail.index(following) :], following])
        gone = set(trail)
        left = {m: targets - gone for m, targets in left.items() if m not in gone}
        left = {m: targets for m, targets in left.items() if targets}
    return loops


FILES = sorted(
    path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py")
)


def dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.mark.parametrize("path", FILES)
def test_file_keeps_the_rules(path):
    assert check(path, (ROOT / path).read_text()) == []


def test_no_import_cycles():
    assert cycles({dotted(path): (ROOT / path).read_text() for path in FILES}) == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("controller/loop.py", "import torch", "1: imports torch (controller imports only"),
        ("controller/loop.py", "import sim.registry", "1: imports sim (controller imports only"),
        ("controller/loop.py", "def f():\n from policies import x", "2: imports policies (contr"),
        ("controller/loop.py", "import_module('mujoco')", "1: imports mujoco (controller"),
        ("controller/loop.py", "if TYPE_CHECKING:\n import sim", "2: imports sim (controller"),
        (
            "controller/remote_plant.py",
            "import zmq",
            "1: imports zmq (only controller/transport.py",
        ),
        ("sim/server.py", "from zmq import Context", "1: imports zmq (only controller/transport"),
        ("sim/server.py", "import policies.engine", "1: imports policies (sim imports only"),
        ("sim/a/b.py", "import torch as t", "1: imports torch (sim imports only"),
        ("policies/train.py", "import gymnasium", "1: imports gymnasium (policies imports only"),
        ("policies/train.py", "from dm_control import suite", "1: imports dm_control (policies"),
        ("policies/train.py", "from sim import registry", "1: imports sim (policies imports"),
        ("policies/train.py", "import zmq", "1: imports zmq (only controller/transport.py"),
        ("controller/report.py", "import matplotlib.pyplot", "1: imports matplotlib (only insi"),
        ("controller/cli/data.py", "import sim", "1: imports sim (the command line does so inside"),
        ("controller/cli/data.py", "import torch", "1: imports torch (controller imports only"),
        ("sim/x.py", "import pickle", "1: imports pickle (no code in data)"),
        ("policies/x.py", "torch.save(a, b)", "1: calls torch.save (no code in data)"),
        ("policies/x.py", "x = 1\ntorch.load(b)", "2: calls torch.load (no code in data)"),
        ("policies/x.py", "eval('1')", "1: calls eval (no code in data)"),
        ("policies/x.py", "exec('1')", "1: calls exec (no code in data)"),
        ("policies/x.py", "np.load(f, allow_pickle=True)", "1: passes allow_pickle (no code"),
        ("sim/x.py", "print('x')", "1: calls print (log, or return it to the command line)"),
        ("sim/x.py", "x = 1\n" * 401, "401: 401 lines (at most 400)"),
        ("sim/x.py", "def f():\n" + " x = 1\n" * 60, "1: f has 61 lines (at most 60)"),
        ("sim/x.py", "x = 1", "1: no module docstring"),
    ],
)
def test_checker_finds_planted_faults(path, source, fault):
    text = source if fault.endswith("docstring") else f"'''Text.''';{source}"
    if source.startswith(("def", "if")):
        text = f"{source}\n"
        assert any(found.startswith(f"{path}:{fault}") for found in check(path, text))
        return
    found = check(path, text)
    assert len(found) == 1
    assert found[0].startswith(f"{path}:{fault}")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("controller/transport.py", "import zmq"),
        ("controller/x.py", "import os, numpy as np; from controller.spec import Spec"),
        ("controller/cli/x.py", "f = lambda: import_module('sim.server')"),
        ("sim/x.py", "from . import registry; import controller.errors, mujoco"),
        ("policies/algos/x.py", "from ..nets import Mlp; import torch; net.eval()"),
        ("policies/x.py", "console.print(1); re.compile('x'); np.load(f, allow_pickle=False)"),
        ("sim/x.py", "\ndef f():\n import matplotlib.pyplot"),
        ("controller/x.py", "x = 'import torch; print(1); eval(2)'  # torch.load("),
    ],
)
def test_checker_accepts_the_allowed(path, source):
    assert check(path, f"'''Text.''';{source}") == []


def test_relative_imports_are_resolved():
    source = "from . import a\nfrom ..b import c\nimport d"
    names = [entry.name for entry in imports(ast.parse(source), "sim.d4rl.kitchen")]
    assert names == ["sim.d4rl.a", "sim.b.c", "d"]


def test_cycles_are_found_and_named():
    sources = {
        "p.a": "from p.b import x",
        "p.b": "import p.c",
        "p.c": "from p import a",
        "p.d": "import p.a",
        "p.e": "def f():\n import p.f",
        "p.f": "import p.e",
        "p.g": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n import p.h",
        "p.h": "import p.g",
    }
    assert cycles(sources) == [["p.a", "p.b", "p.c", "p.a"]]


def loaded_after(*modules: str) -> set[str]:
    code = f"import sys\nfor name in {modules!r}: __import__(name)\nsys.stdout.write("
    code += "' '.join({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


HEAVY = {"torch", "mujoco", "gymnasium", "gymnasium_robotics", "dm_control", "matplotlib", "PIL"}


def test_the_whole_controller_loads_nothing_heavy():
    files = [path for path in FILES if path.startswith("controller/")]
    modules = [dotted(path) for path in files if not path.endswith("__main__.py")]
    assert loaded_after(*modules) & (HEAVY | {"sim", "policies", "h5py"}) == set()


@pytest.mark.parametrize(
    ("modules", "never"),
    [
        (("sim", "sim.settings"), HEAVY | {"zmq", "policies", "h5py"}),
        (("policies", "policies.settings"), HEAVY | {"zmq", "sim", "h5py"}),
        (("sim.server",), {"torch", "policies", "matplotlib"}),
        (("policies.serving.server",), HEAVY | {"sim", "prometheus_client"}),
        (("policies.engine_numpy",), HEAVY | {"sim"}),
        (("controller.cli",), HEAVY | {"sim", "policies", "zmq", "mcap", "rich"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_light_modules_stay_light(modules, never):
    if any(importlib.util.find_spec(module) is None for module in modules):
        pytest.skip("not there")
    assert loaded_after(*modules) & never == set()
