"""Request to answer, taken at the control rate: the policy server beside a bare echo."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from controller.clients import RemotePolicy
from controller.clock import MonotonicClock
from controller.errors import PeerTimeout
from controller.floor import ANSWER_TIMEOUT_NS, Echo, Quantiles, echo, pace, quantiles
from controller.interfaces import Clock, Policy
from controller.process import RuntimeDirectory
from controller.spec import Spec
from controller.transport import endpoint_for
from controller.types import Observation, Request

if TYPE_CHECKING:
    from rich.console import Console

Transport = Literal["ipc", "tcp"]
HEADER_BYTES = 64
WARM_UP = 20


class LatencyRow(msgspec.Struct, frozen=True):
    """One measurement; durations in microseconds.

    Attributes:
        server: policy, or echo, which only sends the request back.
        transport: kind of address.
        rate_hz: rate of the requests; None is back to back, where nobody has to wake up.
        requests: how many were made.
        unanswered: how many had no answer within a second.
        skipped: periods that passed while an answer was waited for.
        round_trip: request to answer.
        transport_us: round trip less queue and inference.
        queue: waiting at the server; None for the echo.
        infer: computing the answer; None for the echo.
    """

    server: Literal["policy", "echo"]
    transport: Transport
    rate_hz: float | None
    requests: int
    unanswered: int
    skipped: int
    round_trip: Quantiles | None
    transport_us: Quantiles | None
    queue: Quantiles | None = None
    infer: Quantiles | None = None


class LatencyReport(msgspec.Struct, frozen=True):
    """Measurements of one policy server.

    Attributes:
        task: task of the policy.
        version: version of the policy.
        request_bytes: raw arrays of one request.
        seconds: length of each measurement.
        rows: echo and policy, by transport and rate; back to back last.
    """

    task: str
    version: str
    request_bytes: int
    seconds: float
    rows: tuple[LatencyRow, ...]


def measure(
    spec: Spec,
    serve: Callable[[str], str],
    *,
    rates_hz: Sequence[float] = (100.0, 200.0, 500.0),
    transports: Sequence[Transport] = ("ipc", "tcp"),
    seconds: float = 2.0,
    connect_timeout_s: float = 20.0,
) -> LatencyReport:
    """Time paced requests, then requests back to back.

    Echo and policy take turns at every rate, so that a ratio of the two is of one minute of
    one machine.

    Args:
        spec: the robot of the policy.
        serve: starts a policy server for ``"ipc"`` or ``"tcp"`` and returns its address.
            Stopping it is the caller's.
        rates_hz: rates of the requests.
        transports: kinds of address.
        seconds: length of each measurement.
        connect_timeout_s: how long to wait for the server.

    Raises:
        PeerTimeout: the server did not answer the greeting in time.
        Refused: the server is not for this robot.
    """
    rows: list[LatencyRow] = []
    version = ""
    ticks = count()
    for transport in transports:
        clock = MonotonicClock()
        policy = RemotePolicy(serve(transport), spec, clock, client_name="latency")
        with contextlib.closing(policy), _echo(transport) as client:
            policy.connect(connect_timeout_s)
            version = policy.version
            for rate_hz in (*rates_hz, None):
                rows.append(_time_echo(client, transport, spec, rate_hz, seconds))
                rows.append(time_policy(policy, clock, transport, rate_hz, seconds, ticks))
    return LatencyReport(spec.task, version, _request_bytes(spec), seconds, tuple(rows))


def time_policy(
    policy: Policy,
    clock: Clock,
    transport: Transport,
    rate_hz: float | None,
    seconds: float,
    ticks: Iterator[int],
) -> LatencyRow:
    """Time one policy at one rate, after some requests to warm up.

    Args:
        policy: whom to ask.
        clock: time.
        transport: for the row.
        rate_hz: rate of the requests; None is back to back.
        seconds: length of the measurement.
        ticks: numbers for the requests, none of them used before: a late answer must not be
            taken for that of a newer request.
    """
    answers: list[tuple[int, int, int]] = []
    observation = resting(policy.spec)
    missing = 0

    def ask(tick: int) -> None:
        nonlocal missing
        before_ns = clock.now_ns()
        deadline_ns = before_ns + ANSWER_TIMEOUT_NS
        answer = policy.infer(Request(next(ticks), 0, observation, 0, deadline_ns))
        trip_ns = clock.now_ns() - before_ns
        if answer is None:
            missing += 1
        else:
            answers.append((trip_ns, answer.queue_ns, answer.infer_ns))

    for tick in range(WARM_UP):
        ask(tick)
    answers.clear()
    missing = 0
    called, skipped = pace(clock, rate_hz, seconds, ask)
    table = np.array(answers, dtype=np.int64).reshape(-1, 3)
    trip, queue, infer = table.T
    return LatencyRow(
        server="policy",
        transport=transport,
        rate_hz=rate_hz,
        requests=called,
        unanswered=missing,
        skipped=skipped,
        round_trip=quantiles(trip),
        transport_us=quantiles(trip - queue - infer),
        queue=quantiles(queue),
        infer=quantiles(infer),
    )


def resting(spec: Spec) -> Observation:
    """Return an observation of zeros, clipped into the limits."""
    return Observation(arrays=tuple(array.resting() for array in spec.observation), stamp_ns=0)


def free_tcp_endpoint() -> str:
    """Return a loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def _echo(transport: Transport) -> Iterator[Echo]:
    with RuntimeDirectory() as directory:
        ipc = transport == "ipc"
        endpoint = endpoint_for(Path(directory), "echo") if ipc else free_tcp_endpoint()
        with echo(endpoint) as client:
            yield client


def _time_echo(
    client: Echo, transport: Transport, spec: Spec, rate_hz: float | None, seconds: float
) -> LatencyRow:
    frames = (bytes(HEADER_BYTES), bytes(_request_bytes(spec)))
    trips: list[int] = []
    missing = 0

    def ask(tick: int) -> None:
        nonlocal missing
        try:
            trips.append(client.round_trip_ns(frames))
        except PeerTimeout:
            missing += 1

    for tick in range(WARM_UP):
        ask(tick)
    trips.clear()
    missing = 0
    called, skipped = pace(MonotonicClock(), rate_hz, seconds, ask)
    whole = quantiles(np.array(trips, dtype=np.int64))
    return LatencyRow("echo", transport, rate_hz, called, missing, skipped, whole, whole)


def _request_bytes(spec: Spec) -> int:
    return sum(array.nbytes for array in spec.observation)


def print_report(report: LatencyReport, console: Console) -> None:
    """Print one line per measurement: tail of the round trip, and medians of its parts."""
    from rich.table import Table

    title = (
        f"{report.task}, policy {report.version}, {report.request_bytes} bytes a request; "
        "µs; wire, queue, infer: p50"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("server", "by", "rate Hz"):
        table.add_column(heading, no_wrap=True)
    for heading in ("p50", "p99", "p99.9", "max", "wire", "queue", "infer", "lost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.rows:
        rate = "unpaced" if row.rate_hz is None else f"{row.rate_hz:g}"
        trip = row.round_trip
        numbers = (trip.p50, trip.p99, trip.p99_9, trip.max) if trip else ()
        figures = [f"{number:.0f}" for number in numbers] or ["-"] * 4
        parts = [
            f"{part.p50:.0f}" if part else "-" for part in (row.transport_us, row.queue, row.infer)
        ]
        table.add_row(row.server, row.transport, rate, *figures, *parts, str(row.unanswered))
    console.print(table)
