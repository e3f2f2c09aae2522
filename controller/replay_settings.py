"""Settings of a replay under another latency."""

from __future__ import annotations

import msgspec

from controller.ranges import NonNegative, Positive


class LatencySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which latency to run a log under again; all null to recompute it as it is.

    Attributes:
        scale: the log's own latencies, times this.
        ms: the same latency for every answer, in milliseconds.
        trace: file of latencies in milliseconds, one a line and "lost" for an answer that never
            comes, or another log; request k takes the k-th, from the first again after the last.
        out: keep the log of the run under that latency here; null throws it away.
    """

    scale: Positive | None = None
    ms: NonNegative | None = None
    trace: str | None = None
    out: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("scale", "ms", "trace") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"expected one of scale, ms and trace, got {' and '.join(given)}")
        if self.out is not None and not given:
            raise ValueError("out is for a run under another latency: give scale, ms or trace")

    @property
    def wanted(self) -> bool:
        """Whether another latency is asked for."""
        return (self.scale, self.ms, self.trace) != (None, None, None)
