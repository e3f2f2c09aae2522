"""YAML settings, read strictly: one document, one mapping, no key twice, faults in one line.

Plain words mean what YAML 1.2 says: ``off`` and ``2024-01-01`` are text, ``1e-3`` is a number.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from controller.errors import ConfigError
from controller.spelling import nearest

SUFFIXES = (".yaml", ".yml")


class StrictLoader(yaml.SafeLoader):
    """YAML's plain data only, and a key given twice in one mapping is a fault."""

    yaml_implicit_resolvers = {}  # noqa: RUF012

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """Return the mapping as written, before merge keys bring in others."""
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            identity = (key.tag, key.value)
            if identity in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} is given twice, first in line {seen[identity]}",
                    problem_mark=key.start_mark,
                )
            seen[identity] = key.start_mark.line + 1
        return node


class StrictDumper(yaml.SafeDumper):
    """Quotes text that :class:`StrictLoader` would take for something else."""


_PLAIN = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "merge": (r"<<", "<"),
}
for _name, (_pattern, _first) in _PLAIN.items():
    for _class in (StrictLoader, StrictDumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}",
            re.compile(rf"^(?:{_pattern})$"),
            [letter.strip("\0") for letter in _first],
        )


def dump(value: object) -> str:
    """Return plain data as YAML that :func:`parse` turns back into an equal value."""
    return yaml.dump(
        value, Dumper=StrictDumper, sort_keys=False, default_flow_style=None, width=1 << 20
    )


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ConfigError: no such file, not readable, not UTF-8, not YAML, a key given twice, or
            not one mapping; in one line with the file and, where there is one, the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error.reason}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {_unreadable(path, error)}") from None
    value = parse(text, str(path))
    if value is None:
        raise ConfigError(f"{path}: the file is empty, expected a mapping of key: value")
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of key: value, got {shown(value)}")
    return value


def parse(text: str, source: str) -> object:
    """Return the one YAML document in ``text``.

    Raises:
        ConfigError: not one YAML document of plain data; ``source`` is named.
    """
    try:
        return yaml.load(text, Loader=StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark else ""
        problem = error.problem or error.context or "no reason given"
        raise ConfigError(one_line(f"{source}{where}: not valid YAML: {problem}")) from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(one_line(f"{source}: not valid YAML: {error}")) from None


def shown(value: object, limit: int = 60) -> str:
    """Return ``value`` as it would stand in YAML, on one line and not much over ``limit``."""
    try:
        text = _flow(value)
    except RecursionError:
        text = f"a recursive {type(value).__name__}"
    return one_line(text, limit)


def one_line(text: str, limit: int = 2000) -> str:
    """Return ``text`` with every run of white space as one blank, cut at ``limit``."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _unreadable(path: Path, error: OSError) -> str:
    if isinstance(error, IsADirectoryError):
        return f"is a directory, expected a YAML file{_listing(path, '')}"
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return f"cannot be read: {error.strerror}"
    if path.parent.is_dir():
        return f"no such file{_listing(path.parent, path.name)}"
    near = nearest(path.parent.name, _names(path.parent.parent, folders=True))
    hint = f"; did you mean {path.parent.parent / near / path.name}?" if near else ""
    return f"no such folder {path.parent}{hint}"


def _listing(folder: Path, name: str) -> str:
    names = _names(folder, folders=False)
    near = nearest(name, names)
    hint = f"; did you mean {folder / near}?" if near else ""
    return f"{hint} (in {folder}: {', '.join(names) or 'no YAML file'})"


def _names(folder: Path, *, folders: bool) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if (entry.is_dir() if folders else entry.suffix in SUFFIXES)
    )


def _flow(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_flow(k)}: {_flow(v)}' for k, v in value.items())}}}"
    if isinstance(value, (list, tuple, set)):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, (str, int, float)):
        return repr(value)
    return f"{value} ({type(value).__name__})"
