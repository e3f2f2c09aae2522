"""A policy server of today's design, as a yardstick: blocking, one request at a time, msgpack.

What GR00T's ZeroMQ server and openpi's websocket server have in common: the client sends a map
of named arrays and waits; the server takes one request, computes, answers, takes the next. A
request carries no deadline, and nobody is told how long it waited. Written anew from that
description, on REQ and REP sockets, with raw bytes for the arrays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from controller.interfaces import Clock
from controller.spec import ArraySpec
from controller.transport import ReplySocket
from controller.types import Array

POLL_NS = 100_000_000
Act = Callable[[Mapping[str, Array]], tuple[Array, int]]
"""Gives actions, and how many network evaluations they took, for named arrays."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


def serve_baseline(
    endpoint: str,
    act: Act,
    clock: Clock,
    should_stop: Callable[[], bool],
    bound: Callable[[], None] = lambda: None,
) -> None:
    """Answer one request after the other until ``should_stop()``; ``bound`` is called first."""
    with contextlib.closing(ReplySocket(endpoint)) as socket:
        bound()
        while not should_stop():
            frame = socket.receive(POLL_NS)
            if frame is not None:
                socket.send(answer(frame, act, clock))


def question(specs: Sequence[ArraySpec], arrays: Sequence[Array]) -> bytes:
    """Return a request for an action."""
    named = {spec.name: _packed(array) for spec, array in zip(specs, arrays, strict=True)}
    return _encoder.encode({"endpoint": "get_action", "data": named})


def answer(frame: bytes, act: Act, clock: Clock) -> bytes:
    """Return the answer to a request."""
    began_ns = clock.now_ns()
    asked = _decoder.decode(frame)
    actions, evaluations = act({name: unpacked(value) for name, value in asked["data"].items()})
    infer_ns = clock.now_ns() - began_ns
    reply = {"action": _packed(actions), "infer_ns": infer_ns, "evaluations": evaluations}
    return _encoder.encode(reply)


def answered(frame: bytes) -> dict[str, Any]:
    """Return the fields of an answer, its actions as an array."""
    fields: dict[str, Any] = _decoder.decode(frame)
    return fields | {"action": unpacked(fields["action"])}


def unpacked(value: Mapping[str, Any]) -> Array:
    """Return the array of a map with ``dtype``, ``shape`` and ``data``."""
    return np.frombuffer(value["data"], np.dtype(value["dtype"])).reshape(value["shape"])


def _packed(array: Array) -> dict[str, Any]:
    return {"dtype": array.dtype.str, "shape": array.shape, "data": array.tobytes()}
