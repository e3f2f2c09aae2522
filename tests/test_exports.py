"""What the packages offer is documented, and their errors form trees that callers can catch."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from controller.errors import ControllerError

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    path.relative_to(ROOT)
    .as_posix()
    .removesuffix(".py")
    .removesuffix("/__init__")
    .replace("/", ".")
    for package in ("controller", "sim", "policies")
    for path in (ROOT / package).rglob("*.py")
)


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def own(module: ModuleType) -> dict[str, object]:
    """Return the public classes and functions that a module defines."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


def undocumented(value: type, name: str) -> list[str]:
    """Return a class and its public methods and properties that have no docstring of their own."""
    text = value.__dict__.get("__doc__") or ""
    generated = text.startswith(f"{value.__name__}(")
    faults = [] if text and not generated else [name]
    for member, entry in vars(value).items():
        inner = entry.fget if isinstance(entry, property) else entry
        inner = getattr(inner, "__func__", inner)
        if not member.startswith("_") and inspect.isfunction(inner) and not inspect.getdoc(inner):
            faults.append(f"{name}.{member}")
    return faults


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_documented_and_exports_exist(name):
    module = load(name)
    assert module.__doc__
    faults = []
    for label, value in own(module).items():
        if inspect.isclass(value):
            faults += undocumented(value, label)
        elif not inspect.getdoc(value):
            faults.append(label)
    assert faults == []
    missing = [entry for entry in getattr(module, "__all__", []) if not hasattr(module, entry)]
    assert missing == []


@pytest.fixture(scope="module")
def errors() -> list[type[BaseException]]:
    return [
        value
        for name in MODULES
        for value in own(load(name)).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    ]


def test_every_error_is_one_of_ours(errors):
    assert len(errors) >= 10
    assert [e.__qualname__ for e in errors if not issubclass(e, ControllerError)] == []


def test_every_leaf_is_also_the_builtin_it_resembles(errors):
    leaves = [e for e in errors if not any(o is not e and issubclass(o, e) for o in errors)]
    assert [leaf.__qualname__ for leaf in leaves if not builtin_kinds(leaf)] == []


def builtin_kinds(error: type[BaseException]) -> list[type]:
    general = (Exception, BaseException, object)
    return [b for b in error.__mro__ if b.__module__ == "builtins" and b not in general]


def test_checker_finds_a_leaf_without_a_builtin():
    class Bare(ControllerError): ...

    class Fine(ControllerError, ValueError): ...

    assert (builtin_kinds(Bare), builtin_kinds(Fine)) == ([], [ValueError])


def test_the_tree_in_the_docstring_is_the_tree():
    text = inspect.getdoc(importlib.import_module("controller.errors")) or ""
    drawn = {line.split()[1]: line.split()[2].strip("()") for line in text.splitlines()[3:]}
    real = {
        name: next(base.__name__ for base in value.__bases__ if base is not ControllerError)
        for name, value in own(load("controller.errors")).items()
        if inspect.isclass(value) and value is not ControllerError
    }
    assert drawn == real


class Half:
    """Documented."""

    def told(self) -> None:
        """Return nothing."""

    def untold(self) -> None: ...

    @property
    def hidden(self) -> int:
        return 1

    @classmethod
    def made(cls) -> None: ...


@dataclass
class Bare:
    x: int


def test_checker_finds_what_is_not_documented():
    assert undocumented(Bare, "Bare") == ["Bare"]
    assert undocumented(Half, "Half") == ["Half.untold", "Half.hidden", "Half.made"]
