"""One run of the loop: in real time against remote processes, or in lockstep in this one."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from controller.clients import RemotePlant, RemotePolicy
from controller.clock import MonotonicClock, VirtualClock
from controller.control import control
from controller.errors import ControllerError, Refused
from controller.interfaces import Plant, Policy
from controller.log import McapSink
from controller.log_schema import LogHeader, host_facts
from controller.loop import ControlLoop, Outcome
from controller.realtime import realtime_section, spin_ns, urgent
from controller.recorder import ProcessSink
from controller.settings import RunConfig
from controller.spec import Spec
from controller.status import StatusBoard


class LatchedStop(ControllerError, RuntimeError):
    """The loop ended on its latched stop."""


def header(
    config: RunConfig, spec: Spec, bundles: Mapping[str, str], plant: Mapping[str, Any]
) -> LogHeader:
    """Describe a run for its log.

    Args:
        config: settings of the run, with addresses filled in.
        spec: the plant's.
        bundles: where each policy version known at the start is kept.
        plant: what the plant says of itself.
    """
    return LogHeader(
        spec=spec,
        mode=config.mode,
        rate_hz=config.loop.rate_hz or spec.rate_hz,
        seed=config.seed,
        task=config.task,
        engine=config.policy.engine,
        device=config.policy.device,
        bundles=dict(bundles),
        slew_per_s=config.loop.slew_per_s,
        safe_action=config.loop.safe_action,
        config=msgspec.to_builtins(config),
        host=host_facts(),
        plant=dict(plant),
    )


def run_realtime(config: RunConfig, replica: Policy | None) -> None:
    """Drive the plant at ``config.plant.endpoint`` until the run's end or SIGTERM.

    Args:
        config: settings of the run; both endpoints are set.
        replica: copy of the policy for ticks without an answer.

    Raises:
        PeerTimeout: plant or policy server did not answer in time.
        SpecMismatch: plant and policy are of different robots.
        LatchedStop: the loop gave up; the log is complete.
    """
    assert config.plant.endpoint
    assert config.policy.endpoint
    clock = MonotonicClock()
    with urgent(config.loop.sched_fifo):
        plant = RemotePlant(config.plant.endpoint, clock)
        plant.connect(config.plant.connect_timeout_s)
        policy = RemotePolicy(config.policy.endpoint, plant.spec, clock, client_name=config.task)
        policy.connect(config.policy.connect_timeout_s)
    facts = plant_facts(config.plant.endpoint, config.plant.connect_timeout_s)
    about = header(config, plant.spec, {policy.version: config.policy.bundle}, facts)
    sink = ProcessSink(Path(config.out) / "log.mcap", about)
    with StatusBoard(Path(config.out) / "status.bin", create=True) as status:
        loop = ControlLoop(
            plant,
            policy,
            sink,
            clock,
            config.loop,
            seed=config.seed,
            local=replica,
            status=status,
        )
        _stop_on_signals(loop)
        try:
            with realtime_section(config.loop) as notes:
                clock.spin_ns = spin_ns(config.loop)
                for note in notes:
                    sink.event(clock.now_ns(), "realtime", note)
                outcome = loop.run(ticks=_ticks(config, plant.spec), episodes=config.episodes)
        finally:
            sink.close()
            policy.close()
            plant.close()
    if outcome is Outcome.FAULT:
        raise LatchedStop(f"{loop.fault}; the safe command was sent until the end")


def run_lockstep(config: RunConfig, plant: Plant, policy: Policy, log: Path) -> None:
    """Run plant and policy in this process under a virtual clock, logging to ``log``."""
    clock = VirtualClock()
    facts = {"faults": config.plant.faults.facts()}
    about = header(config, plant.spec, {policy.version: config.policy.bundle}, facts)
    sink = McapSink(log, about)
    loop = ControlLoop(plant, policy, sink, clock, config.loop, seed=config.seed)
    try:
        loop.run(ticks=_ticks(config, plant.spec), episodes=config.episodes)
    finally:
        sink.close()


def plant_facts(endpoint: str, timeout_s: float) -> dict[str, Any]:
    """Ask a plant's server what it says of itself beside its spec: substeps, faults."""
    try:
        facts = control(endpoint, "ready", timeout_s=timeout_s)
    except Refused:
        return {}
    return {name: facts[name] for name in facts if name not in ("task", "spec")}


def _ticks(config: RunConfig, spec: Spec) -> int | None:
    rate_hz = config.loop.rate_hz or spec.rate_hz
    return None if config.seconds is None else max(1, round(config.seconds * rate_hz))


def _stop_on_signals(loop: ControlLoop) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        loop.stop(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
