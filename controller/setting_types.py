"""What the fields of a settings type accept, in words: for help, and for messages."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, NamedTuple, Union

import msgspec
from msgspec import inspect as schema

from controller.yaml_source import one_line, shown


class Row(NamedTuple):
    """One setting, for help: dotted key, accepted values, default, documentation."""

    key: str
    type: str
    default: str
    doc: str


def describe(kind: type[msgspec.Struct]) -> list[Row]:
    """Return one row for every setting of ``kind``, in declared order, groups opened.

    The documentation is what the class docstring says under ``Attributes:``.
    """
    return list(_rows(kind, None, ""))


def attribute_docs(kind: type) -> dict[str, str]:
    """Return the text of each entry under ``Attributes:`` of a Google-style docstring."""
    docs: dict[str, list[str]] = {}
    _, _, section = (inspect.getdoc(kind) or "").partition("\nAttributes:\n")
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        entry = re.match(r" {4}(\w+)(?: \([^)]*\))?: (.*)", line)
        if entry:
            name = entry[1]
            docs[name] = [entry[2]]
        elif name:
            docs[name].append(line.strip())
    return {name: one_line(" ".join(lines)) for name, lines in docs.items()}


def expected(kind: object) -> str:
    """Return in words what values a type accepts: ``a number > 0``, ``one of ipc, tcp``."""
    return " or ".join(_words(info) for info in _alternatives(schema.type_info(kind)))


def choices(kind: object) -> list[str]:
    """Return the words a type accepts where it accepts only some."""
    return [text for info in _alternatives(schema.type_info(kind)) for text in _choices(info)]


def default_of(field: msgspec.structs.FieldInfo) -> object:
    """Return the default of a field, ``msgspec.NODEFAULT`` when it is required."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def group_of(kind: object) -> type[msgspec.Struct] | None:
    """Return the Struct that a mapping of this type fills, when there is exactly one."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    groups = [group for part in parts_of(kind) if (group := group_of(part)) is not None]
    return groups[0] if len(groups) == 1 else None


def parts_of(kind: object) -> tuple[object, ...]:
    """Return what a union or an annotated type is made of; nothing for other types."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return typing.get_args(kind)[:1]
    return typing.get_args(kind) if origin in (Union, types.UnionType) else ()


def _alternatives(info: schema.Type) -> tuple[schema.Type, ...]:
    if isinstance(info, schema.Metadata):
        return _alternatives(info.type)
    return info.types if isinstance(info, schema.UnionType) else (info,)


def _choices(info: schema.Type) -> list[str]:
    if isinstance(info, schema.LiteralType):
        return [str(value) for value in info.values]
    if isinstance(info, schema.EnumType):
        return [str(member.value) for member in info.cls]
    return []


def _words(info: schema.Type) -> str:
    match info:
        case schema.BoolType():
            return "true or false"
        case schema.NoneType():
            return "null"
        case schema.AnyType():
            return "anything"
        case schema.FloatType():
            return f"a number{_range(info)}"
        case schema.IntType():
            return f"a whole number{_range(info)}"
        case schema.StrType():
            return f"text{_length(info)}" + (f" like {info.pattern}" if info.pattern else "")
        case schema.LiteralType() | schema.EnumType():
            return f"one of {', '.join(_choices(info))}"
        case schema.TupleType():
            return f"[{', '.join(_phrase(item) for item in info.item_types)}]"
        case schema.VarTupleType() | schema.ListType() | schema.SetType() | schema.FrozenSetType():
            return f"a list{_length(info)} of: {_phrase(info.item_type)}"
        case schema.DictType():
            entry = f"{_phrase(info.key_type)} to {_phrase(info.value_type)}"
            return f"a mapping{_length(info)} of {entry}"
        case schema.StructType():
            return f"a group of keys ({', '.join(field.encode_name for field in info.fields)})"
        case _:
            return type(info).__name__.removesuffix("Type").lower()


def _phrase(info: schema.Type) -> str:
    return " or ".join(_words(part) for part in _alternatives(info))


_Sized = (
    schema.StrType
    | schema.ListType
    | schema.SetType
    | schema.FrozenSetType
    | schema.VarTupleType
    | schema.DictType
)


def _range(info: schema.IntType | schema.FloatType) -> str:
    limits = [("> ", info.gt), (">= ", info.ge), ("< ", info.lt), ("<= ", info.le)]
    given = [f"{sign}{limit}" for sign, limit in limits if limit is not None]
    if info.multiple_of is not None:
        given.append(f"a multiple of {info.multiple_of}")
    return f" {' and '.join(given)}" if given else ""


def _length(info: _Sized) -> str:
    low, high = info.min_length, info.max_length
    unit = "characters" if isinstance(info, schema.StrType) else "entries"
    if low is None and high is None:
        return ""
    if high is None:
        return f" of {low} {unit} or more"
    return f" of {low or 0} to {high} {unit}"


def _rows(kind: type[msgspec.Struct], base: msgspec.Struct | None, prefix: str) -> Iterator[Row]:
    docs = attribute_docs(kind)
    for field in msgspec.structs.fields(kind):
        default = default_of(field) if base is None else getattr(base, field.name)
        key, group = f"{prefix}{field.encode_name}", group_of(field.type)
        if group is not None:
            inner = default if isinstance(default, group) else None
            yield from _rows(group, inner, f"{key}.")
        else:
            value = "required" if default is msgspec.NODEFAULT else _plain(default)
            yield Row(key, expected(field.type), value, docs.get(field.name, ""))


def _plain(value: object) -> str:
    value = value.value if isinstance(value, Enum) else value
    return value if isinstance(value, str) and value else shown(msgspec.to_builtins(value))
