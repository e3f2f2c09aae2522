"""The protobuf messages of a log, built at run time from the spec.

The file carries their descriptor, so that any MCAP reader with protobuf support decodes them
without code of ours. An observation array or action is a packed ``repeated double`` or
``repeated float``, or ``bytes`` for uint8: whichever holds its dtype exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from controller.log_schema import (
    OBSERVATION_FLAGS,
    OBSERVATION_LATENESS,
    OBSERVATION_NUMBERS,
    OBSERVATION_REALS,
    STAGES,
    TICK_CHOICES,
    TICK_NUMBERS,
)
from controller.spec import ArraySpec, Spec
from controller.types import Mode, Reason, Rung

_FIRST_ARRAY = 16
_SCALARS = {"float64": FieldDescriptorProto.TYPE_DOUBLE, "float32": FieldDescriptorProto.TYPE_FLOAT}


@dataclass(frozen=True, slots=True)
class Messages:
    """Message classes of one robot's log.

    Attributes:
        tick: class of a tick.
        event: class of an event.
        fields: field name of each observation array, in spec order.
    """

    tick: type[Any]
    event: type[Any]
    fields: tuple[str, ...]


@lru_cache(maxsize=16)
def messages_for(spec: Spec) -> Messages:
    """Build the message classes of a robot; equal specs give equal descriptors."""
    fields = _field_names(spec)
    file = FileDescriptorProto(name="onebeat.proto", package="onebeat", syntax="proto3")
    file.enum_type.extend(
        [
            _enum("Mode", "MODE", Mode),
            _enum("Rung", "RUNG", Rung),
            _enum("Reason", "REASON", [Reason.NONE, *Reason]),
        ]
    )
    file.message_type.extend([_observation(spec, fields), _tick(spec), _event()])
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return Messages(
        GetMessageClass(pool.FindMessageTypeByName("onebeat.Tick")),
        GetMessageClass(pool.FindMessageTypeByName("onebeat.Event")),
        fields,
    )


def _field_names(spec: Spec) -> tuple[str, ...]:
    """Return field names that also differ without underscores and case, as JSON names do."""
    known = (*OBSERVATION_NUMBERS, *OBSERVATION_FLAGS, *OBSERVATION_REALS, *OBSERVATION_LATENESS)
    taken = {_bare(name) for name in known}
    names: list[str] = []
    for array in spec.observation:
        stem = re.sub(r"[^0-9A-Za-z_]", "_", array.name)
        stem = stem if stem[:1].isalpha() else f"array_{stem}".rstrip("_")
        name = next(
            name
            for name in (stem, *(f"{stem}_n{n}" for n in range(2, 10_000)))
            if _bare(name) not in taken
        )
        taken.add(_bare(name))
        names.append(name)
    return tuple(names)


def _bare(name: str) -> str:
    return name.replace("_", "").lower()


def _observation(spec: Spec, fields: tuple[str, ...]) -> DescriptorProto:
    scalars = [
        *((name, FieldDescriptorProto.TYPE_SINT64) for name in OBSERVATION_NUMBERS),
        *((name, FieldDescriptorProto.TYPE_BOOL) for name in OBSERVATION_FLAGS),
        *((name, FieldDescriptorProto.TYPE_DOUBLE) for name in OBSERVATION_REALS),
        *((name, FieldDescriptorProto.TYPE_SINT64) for name in OBSERVATION_LATENESS),
    ]
    message = DescriptorProto(name="Observation")
    message.field.extend(_scalar(name, n, kind) for n, (name, kind) in enumerate(scalars, 1))
    message.field.extend(
        _array(name, n, array)
        for n, (name, array) in enumerate(zip(fields, spec.observation, strict=True), _FIRST_ARRAY)
    )
    return message


def _tick(spec: Spec) -> DescriptorProto:
    message = DescriptorProto(name="Tick")
    numbers = [*TICK_NUMBERS, *(f"{stage}_ns" for stage in STAGES), *TICK_CHOICES]
    message.field.extend(
        _scalar(name, n, FieldDescriptorProto.TYPE_SINT64)
        for n, name in enumerate(numbers, _FIRST_ARRAY)
    )
    message.field.extend(
        [
            _typed("mode", 1, FieldDescriptorProto.TYPE_ENUM, "Mode"),
            _typed("rung", 2, FieldDescriptorProto.TYPE_ENUM, "Rung"),
            _typed("reasons", 3, FieldDescriptorProto.TYPE_ENUM, "Reason", repeated=True),
            _typed("observation", 4, FieldDescriptorProto.TYPE_MESSAGE, "Observation"),
            _array("requested", 5, spec.action),
            _array("executed", 6, spec.action),
            _scalar("version", 7, FieldDescriptorProto.TYPE_STRING),
        ]
    )
    return message


def _event() -> DescriptorProto:
    message = DescriptorProto(name="Event")
    message.field.extend(
        [
            _scalar("stamp_ns", 1, FieldDescriptorProto.TYPE_SINT64),
            _scalar("kind", 2, FieldDescriptorProto.TYPE_STRING),
            _scalar("detail", 3, FieldDescriptorProto.TYPE_STRING),
        ]
    )
    return message


def _scalar(
    name: str, number: int, kind: FieldDescriptorProto.Type.ValueType
) -> FieldDescriptorProto:
    return FieldDescriptorProto(
        name=name,
        number=number,
        type=kind,
        label=FieldDescriptorProto.LABEL_OPTIONAL,
    )


def _typed(
    name: str,
    number: int,
    kind: FieldDescriptorProto.Type.ValueType,
    type_name: str,
    repeated: bool = False,
) -> FieldDescriptorProto:
    label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    return FieldDescriptorProto(
        name=name,
        number=number,
        type=kind,
        type_name=f".onebeat.{type_name}",
        label=label,
    )


def _array(name: str, number: int, array: ArraySpec) -> FieldDescriptorProto:
    if array.dtype == "uint8":
        return _scalar(name, number, FieldDescriptorProto.TYPE_BYTES)
    return FieldDescriptorProto(
        name=name,
        number=number,
        type=_SCALARS[array.dtype],
        label=FieldDescriptorProto.LABEL_REPEATED,
    )


def _enum(name: str, prefix: str, members: Iterable[IntEnum | Reason]) -> EnumDescriptorProto:
    described = EnumDescriptorProto(name=name)
    for member in members:
        described.value.add(name=f"{prefix}_{member.name}", number=int(member))
    return described
