"""Settings from YAML files and ``key=value`` words, checked against the type that holds them.

Every fault is one line: the file or the override, the dotted key, what was got, what was
expected, and the nearest valid name.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from controller.errors import ConfigError
from controller.setting_types import (
    Row,
    choices,
    default_of,
    describe,
    expected,
    group_of,
    parts_of,
)
from controller.spelling import distance, nearest
from controller.yaml_source import dump, one_line, parse, read_mapping, shown

__all__ = ["Row", "describe", "load", "to_yaml"]

T = TypeVar("T", bound=msgspec.Struct)


def load(kind: type[T], path: Path | None, overrides: Sequence[str] = ()) -> T:
    """Return the settings of ``kind`` in ``path``, with ``overrides`` laid over them.

    A group given in part keeps the defaults that its parent declares for it. A type with a
    static method ``beneath`` chooses defaults by what was written: it is given that, and what
    it returns lies under it.

    Args:
        kind: a msgspec Struct; groups are Structs within it.
        path: a YAML file, or None for defaults only.
        overrides: words like ``loop.rate_hz=50``. The value is YAML; where text is expected
            and the YAML is a number or a boolean, it is taken as it was written.

    Raises:
        ConfigError: see the module.
    """
    source = "settings" if path is None else str(path)
    tree: dict[str, Any] = {}
    if path is not None:
        tree = read_mapping(path)
        _check(tree, kind, _Place(source, kind))
    for word in overrides:
        tree = _merged(tree, _override(word, kind))
    beneath = getattr(kind, "beneath", None)
    if beneath is not None:
        tree = _merged(beneath(tree), tree)
    complete = _complete(tree, kind, None, _Place(source, kind))
    try:
        return msgspec.convert(complete, kind, strict=False)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$.")
        key = f"{where.rstrip('`')}: " if where else ""
        raise ConfigError(one_line(f"{source}: {key}{message}")) from None


def to_yaml(settings: msgspec.Struct) -> str:
    """Return ``settings`` as YAML that :func:`load` turns back into an equal value."""
    return dump(msgspec.to_builtins(settings))


@dataclass(frozen=True)
class _Place:
    """Where a value stands: its source, the root type, its dotted key."""

    source: str
    root: type[msgspec.Struct]
    key: str = ""
    quiet: str | None = None
    """A key the source shows already."""

    def under(self, name: object) -> _Place:
        text = str(name) if str(name).isprintable() else repr(name)
        return _Place(self.source, self.root, f"{self.key}.{text}".lstrip("."), self.quiet)

    def item(self, index: int) -> _Place:
        return _Place(self.source, self.root, f"{self.key}[{index}]", self.quiet)

    def fault(self, text: str) -> ConfigError:
        key = f"{self.key}: " if self.key and self.key != self.quiet else ""
        return ConfigError(one_line(f"{self.source}: {key}{text}"))


def _override(word: str, kind: type[msgspec.Struct]) -> dict[str, Any]:
    key, equals, text = word.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise ConfigError(
            f"override {shown(word)}: expected key=value, as in {_first_key(kind)}=..."
        )
    place = _Place(f"override {key}={one_line(text, 60)}", kind, quiet=key)
    broken: ConfigError | None = None
    try:
        value = parse(text, place.source)
    except ConfigError as error:
        value, broken = text, error
    try:
        return _checked(key, value, kind, place)
    except ConfigError:
        if broken is not None and text.lstrip().startswith(("[", "{")):
            quote = 'a name with brackets wants quotes, as in "array[0]"'
            raise ConfigError(f"{broken}; {quote}") from None
        # A number may be meant as text: `out=7` names a folder.
        if value is not None and not isinstance(value, (str, list, dict)):
            with suppress(ConfigError):
                return _checked(key, text, kind, place)
        raise


def _checked(key: str, value: object, kind: type[msgspec.Struct], place: _Place) -> dict[str, Any]:
    tree = _nested(key, value)
    _check(tree, kind, place)
    return tree


def _nested(key: str, value: object) -> dict[str, Any]:
    for name in reversed(key.split(".")):
        value = {name: value}
    return typing.cast("dict[str, Any]", value)


def _merged(base: object, over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base) if isinstance(base, Mapping) else {}
    for key, value in over.items():
        merged[key] = _merged(merged.get(key), value) if isinstance(value, Mapping) else value
    return merged


def _check(value: object, kind: object, place: _Place) -> None:
    """Raise at the first fault; missing keys are no fault here."""
    group = group_of(kind)
    if group is not None and isinstance(value, dict):
        fields = {field.encode_name: field for field in msgspec.structs.fields(group)}
        for name, entry in value.items():
            if name not in fields:
                raise place.under(name).fault(_unknown(name, list(fields), place.root))
            _check(entry, fields[name].type, place.under(name))
        return
    for item, item_kind, item_place in _items(value, kind, place):
        _check(item, item_kind, item_place)
        inner = group_of(item_kind)
        if inner is not None and isinstance(item, dict):
            _complete(item, inner, None, item_place)
    try:
        converted = msgspec.convert(value, typing.cast("Any", kind), strict=False)
    except (msgspec.ValidationError, RecursionError):
        raise place.fault(
            f"expected {expected(kind)}, got {shown(value)}{_hint(value, kind)}"
        ) from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise place.fault(f"expected {expected(kind)}, got {shown(value)}, which is not finite")


def _complete(
    tree: Mapping[str, Any],
    kind: type[msgspec.Struct],
    base: msgspec.Struct | None,
    place: _Place,
) -> dict[str, Any]:
    """Return ``tree`` with what ``base``, or else the declared default of a group, has more."""
    out: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        name, group = field.encode_name, group_of(field.type)
        default = default_of(field) if base is None else getattr(base, field.name)
        if name not in tree:
            if default is msgspec.NODEFAULT:
                raise place.under(name).fault(f"missing, expected {expected(field.type)}")
            if base is not None:
                out[name] = msgspec.to_builtins(default)
        elif group is not None and isinstance(tree[name], Mapping):
            inner = default if isinstance(default, group) else None
            out[name] = _complete(tree[name], group, inner, place.under(name))
        else:
            out[name] = tree[name]
    return out


def _items(value: object, kind: object, place: _Place) -> Iterator[tuple[object, Any, _Place]]:
    """Give the entries of a list or mapping with the type each should have."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict and isinstance(value, dict):
        for name, entry in value.items():
            yield entry, arguments[1], place.under(name)
    elif origin in (list, tuple, set, frozenset) and isinstance(value, list):
        same = origin is not tuple or arguments[-1] is Ellipsis
        if same or len(arguments) == len(value):
            for index, entry in enumerate(value):
                yield entry, arguments[0 if same else index], place.item(index)
    else:
        suitable = [p for p in parts_of(kind) if next(_items(value, p, place), None) is not None]
        if len(suitable) == 1:
            yield from _items(value, suitable[0], place)


def _unknown(name: object, valid: list[str], root: type[msgspec.Struct]) -> str:
    if not isinstance(name, str):
        return f"expected a name as the key, got {shown(name)} (quote it if it is a name)"
    near = nearest(name, valid)
    others = [row.key for row in describe(root)]
    same = [key for key in others if key.rpartition(".")[2] == name]
    if same and (near is None or distance(name, near) > 1):
        near = same[0]
    near = near or _near_key(name, others)
    if name in others:
        group, _, last = name.rpartition(".")
        near = f"a group, {group}: {{{last}: ...}}"
    hint = f"; did you mean {near}?" if near else ""
    return f"unknown key{hint} (valid: {', '.join(valid)})"


def _near_key(name: str, keys: Sequence[str]) -> str | None:
    by_name = {key.rpartition(".")[2]: key for key in reversed(keys)}
    near = nearest(name, by_name)
    return by_name[near] if near else None


def _hint(value: object, kind: object) -> str:
    near = nearest(value, choices(kind)) if isinstance(value, str) else None
    return f"; did you mean {near}?" if near else ""


def _first_key(kind: type[msgspec.Struct]) -> str:
    rows = describe(kind)
    return rows[0].key if rows else "key"
