"""Words of a command line: verb, subject, YAML file, overrides, switches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.errors import ConfigError
from controller.spelling import distance
from controller.spelling import nearest as nearest_of

SWITCHES = ("json", "help")
FLAGS = ("resume", "view", "live", "ray")
"""Settings that are on when they are named alone: ``--resume`` means ``resume=true``."""
MANY = 20
"""Choices up to which an error lists them all."""


@dataclass(frozen=True)
class Arguments:
    """The words after a verb.

    Attributes:
        subjects: plain words: what the verb is about, such as a log or a bundle.
        file: the YAML file, if one was named.
        overrides: ``key=value`` words, with ``--key value`` brought into that form.
        json: print one JSON value and nothing else on standard output.
        help: print the verb's help.
    """

    subjects: tuple[str, ...] = ()
    file: Path | None = None
    overrides: tuple[str, ...] = ()
    json: bool = False
    help: bool = False


def parse(words: Sequence[str]) -> Arguments:
    """Sort the words after a verb.

    ``--rate-hz 50`` and ``--rate-hz=50`` mean ``rate_hz=50``; ``-h`` means ``--help``.

    Raises:
        ConfigError: a flag without its value, or two YAML files.
    """
    subjects: list[str] = []
    overrides: list[str] = []
    files: list[str] = []
    switches: set[str] = set()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name = "help" if word == "-h" else word.removeprefix("--")
        if word.startswith("-") and name in SWITCHES:
            switches.add(name)
        elif word.startswith("--") and name in FLAGS:
            overrides.append(f"{name}=true")
        elif word.startswith("--"):
            overrides.append(_flag(name, rest))
        elif word.startswith("-"):
            raise ConfigError(f"{word}: unknown switch; valid: --json, --help, --KEY VALUE")
        elif "=" in word:
            overrides.append(word)
        elif word.endswith((".yaml", ".yml")):
            files.append(word)
        else:
            subjects.append(word)
    if len(files) > 1:
        raise ConfigError(f"expected one YAML file, got {len(files)}: {', '.join(files)}")
    return Arguments(
        subjects=tuple(subjects),
        file=Path(files[0]) if files else None,
        overrides=tuple(overrides),
        json="json" in switches,
        help="help" in switches,
    )


def _flag(name: str, rest: list[str]) -> str:
    key, equals, value = name.partition("=")
    if not equals:
        if not rest or rest[0].startswith("--"):
            near = nearest_of(name, (*SWITCHES, *FLAGS))
            meant = f"; did you mean --{near}?" if near else ""
            raise ConfigError(f"--{name}: expected a value, as in --{name} VALUE{meant}")
        value = rest.pop(0)
    return f"{key.replace('-', '_')}={value}"


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return a clause that names the valid words nearest to ``word``, then all, if they are few."""
    choices = list(valid)
    close = nearest_of(word, choices)
    if len(choices) <= MANY:
        clause = f"valid: {', '.join(choices)}"
        return f"did you mean {close}? {clause}" if close else clause
    if close:
        return f"did you mean {close}?"
    near = sorted(choices, key=lambda choice: distance(word.lower(), choice.lower()))
    return f"nearest of {len(choices)}: {', '.join(near[:5])}"
