"""Ranges and choices that settings of several packages share."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Engine = Literal["numpy", "torch", "onnx"]
Device = Literal["cpu", "cuda"]
SchedFifo = Literal["auto", "off"]
