"""A spec on its way in a welcome: msgpack, and checked so that its arrays fit into frames."""

from __future__ import annotations

import msgspec

from controller.errors import WireError
from controller.spec import ArraySpec, Spec
from controller.wire import MAX_ARRAYS, MAX_FRAME_BYTES, MAX_SPEC_BYTES

_DECODER = msgspec.msgpack.Decoder(Spec)


def encode_spec(spec: Spec) -> bytes:
    """Return ``spec`` for a welcome.

    Raises:
        WireError: the other side would refuse it, see :func:`decode_spec`.
    """
    data = msgspec.msgpack.encode(spec)
    if len(data) > MAX_SPEC_BYTES:
        raise WireError(f"spec of {len(data)} bytes, at most {MAX_SPEC_BYTES} fit a welcome")
    decode_spec(data)
    return data


def decode_spec(data: bytes) -> Spec:
    """Return the spec of a welcome.

    Raises:
        WireError: not a spec, or one whose arrays do not fit into frames.
    """
    try:
        spec = _DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"not a spec: {error}") from None
    if not 1 <= len(spec.observation) <= MAX_ARRAYS:
        raise WireError(f"spec of {len(spec.observation)} arrays, expected 1 to {MAX_ARRAYS}")
    if not 0 < spec.rate_hz <= 1e6:
        raise WireError(f"spec with rate {spec.rate_hz} Hz, expected above 0, at most 1e6")
    for array in (*spec.observation, spec.action):
        _check_array_spec(array)
    return spec


def _check_array_spec(array: ArraySpec) -> None:
    if len(array.shape) > 16 or not all(1 <= length <= MAX_FRAME_BYTES for length in array.shape):
        raise WireError(f"{array.name} has a shape that is out of range")
    if array.nbytes > MAX_FRAME_BYTES:
        raise WireError(
            f"{array.name} has {array.nbytes} bytes, at most {MAX_FRAME_BYTES} fit a frame"
        )
