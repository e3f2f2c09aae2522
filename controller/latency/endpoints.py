"""What a measurement asks with: addresses that are free, and an observation of rest."""

from __future__ import annotations

import socket

from controller.spec import Spec
from controller.types import Observation


def resting(spec: Spec) -> Observation:
    """Return an observation of zeros, clipped into the limits."""
    return Observation(arrays=tuple(array.resting() for array in spec.observation), stamp_ns=0)


def free_tcp_endpoint() -> str:
    """Return a loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"
