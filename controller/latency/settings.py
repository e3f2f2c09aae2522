"""Settings of the latency measurement, and the cells they open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Literal, NamedTuple

import msgspec

from controller.acting import AS_BUNDLED, ActSettings
from controller.ranges import Count, Device, Engine, Positive, SchedFifo

Transport = Literal["inproc", "ipc", "tcp", "curve"]
Load = Literal["idle", "busy", "faulted"]
Rate = Annotated[float, msgspec.Meta(gt=0, le=10_000)]
Clients = Annotated[int, msgspec.Meta(ge=1, le=64)]
MADE_UP = re.compile(r"(consistency|diffusion)-([1-9]\d{0,2})")


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A policy to measure.

    Attributes:
        name: what the rows call it.
        bundle: its bundle, a store, or the name of one that comes with onebeat.
        act: how actions are chosen, where that is not left to the bundle.
    """

    name: str
    bundle: str
    act: ActSettings = AS_BUNDLED


PolicyChoice = str | Entry
"""A policy, or in one word: ``consistency-2`` or ``diffusion-20``, a network of random weights
with so many steps, or a bundle."""


class Sweep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Values of some axes, all with all; null leaves an axis as it is outside.

    Attributes:
        rates_hz: rate of each client's requests.
        clients: how many clients ask at that rate.
        policies: policies by name, bundle or description.
        transports: ways to the server.
        engines: what computes the actions.
        devices: where; cuda with engine torch.
        loads: idle; busy, with a process per core that never rests; faulted, with the server
            stopped for 50 ms twice a second.
    """

    rates_hz: tuple[Rate, ...] | None = None
    clients: tuple[Clients, ...] | None = None
    policies: tuple[PolicyChoice, ...] | None = None
    transports: tuple[Transport, ...] | None = None
    engines: tuple[Engine, ...] | None = None
    devices: tuple[Device, ...] | None = None
    loads: tuple[Load, ...] | None = None


class LatencyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Time requests to the policy server, beside a bare echo and a server of today's design.

    Every client asks at its rate, whatever the answers do; the three servers take turns within
    a measurement, so that a ratio is of one minute of one machine. The axes below are taken
    all with all, or, where there are sweeps, each sweep with the axes it does not name.

    Attributes:
        policies: policies: ``consistency-STEPS`` or ``diffusion-STEPS`` for a network of random
            weights (17 observed, 6 moved, 3 x 256 units), or a bundle.
        rates_hz: rate of each client's requests.
        clients: how many clients ask at that rate, out of step.
        transports: inproc (a thread of this process), ipc, tcp, or curve (tcp with encryption,
            which today's design is spared).
        engines: what computes the actions; combinations that cannot be are left out.
        devices: where; cuda with engine torch.
        loads: idle; busy, with a process per core that never rests; faulted, with the server
            stopped for 50 ms twice a second.
        sweeps: sets of axes, each all with all; none for the axes above alone.
        seconds: length of the measurement of each server.
        turns: how many pieces that is cut into, so that the servers can take turns.
        deadline: part of the period after which an answer counts as missed.
        processes: processes that the clients are spread over.
        baseline: whether to measure the server of today's design too; it needs torch.
        sched_fifo: auto (take SCHED_FIFO for the clients and all three servers, where the
            machine allows it) or off.
        out: directory for the page and the figures; null for none.
    """

    policies: Annotated[tuple[PolicyChoice, ...], msgspec.Meta(min_length=1)] = ("consistency-1",)
    rates_hz: Annotated[tuple[Rate, ...], msgspec.Meta(min_length=1)] = (100.0,)
    clients: Annotated[tuple[Clients, ...], msgspec.Meta(min_length=1)] = (1,)
    transports: Annotated[tuple[Transport, ...], msgspec.Meta(min_length=1)] = ("ipc",)
    engines: Annotated[tuple[Engine, ...], msgspec.Meta(min_length=1)] = ("numpy",)
    devices: Annotated[tuple[Device, ...], msgspec.Meta(min_length=1)] = ("cpu",)
    loads: Annotated[tuple[Load, ...], msgspec.Meta(min_length=1)] = ("idle",)
    sweeps: tuple[Sweep, ...] = ()
    seconds: Positive = 4.0
    turns: Count = 4
    deadline: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    processes: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    baseline: bool = True
    sched_fifo: SchedFifo = "auto"
    out: str | None = "runs/latency"

    def __post_init__(self) -> None:
        if not cells(self):
            raise ValueError(
                "no combination of these axes can be measured: device cuda needs engine torch, "
                "and load faulted a server process, which transport inproc has not"
            )


class Bench(NamedTuple):
    """Servers that a measurement needs.

    Attributes:
        policy: what they serve.
        engine: what computes the actions of ours.
        device: where, for ours and today's.
        transport: way to them.
    """

    policy: Entry
    engine: Engine
    device: Device
    transport: Transport


class Cell(NamedTuple):
    """One measurement.

    Attributes:
        bench: the servers.
        load: what else happens.
        rate_hz: rate of each client.
        clients: how many.
    """

    bench: Bench
    load: Load
    rate_hz: float
    clients: int


class BaselineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Be a policy server of today's design.

    Attributes:
        bundle: the policy.
        endpoint: address to answer on.
        device: cpu or cuda.
        act: how actions are chosen, where that is not left to the bundle.
        sched_fifo: auto (take SCHED_FIFO where the machine allows it) or off.
    """

    bundle: str
    endpoint: str
    device: Device = "cpu"
    act: ActSettings = AS_BUNDLED
    sched_fifo: SchedFifo = "auto"


def cells(config: LatencyConfig) -> list[Cell]:
    """Return what is to be measured, each once, those with the same servers together."""
    found = dict.fromkeys(
        cell for sweep in config.sweeps or (Sweep(),) for cell in _open(config, sweep)
    )
    first = {
        bench: place for place, bench in enumerate(dict.fromkeys(cell.bench for cell in found))
    }
    return sorted(found, key=lambda cell: (first[cell.bench], cell.load))


def _open(config: LatencyConfig, sweep: Sweep) -> Iterator[Cell]:
    outer = (getattr(config, name) for name in sweep.__struct_fields__)
    own = msgspec.structs.astuple(sweep)
    axes = (mine or theirs for mine, theirs in zip(own, outer, strict=True))
    rates_hz, clients, *ways = axes
    for choice, transport, engine, device, load in product(*ways):
        if device == "cuda" and engine != "torch":
            continue
        if load == "faulted" and transport == "inproc":
            continue
        bench = Bench(entry_of(choice), engine, device, transport)
        for rate_hz, count in product(rates_hz, clients):
            yield Cell(bench, load, rate_hz, count)


def entry_of(choice: PolicyChoice) -> Entry:
    """Return what a word means, or the description itself."""
    return Entry(choice, choice) if isinstance(choice, str) else choice


def made_up(bundle: str) -> tuple[str, int] | None:
    """Return kind and steps of a network of random weights, None for a bundle."""
    match = MADE_UP.fullmatch(bundle)
    return (match[1], int(match[2])) if match else None
