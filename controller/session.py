"""One run of the loop: in real time against remote processes, or in lockstep in this one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from controller.clock import MonotonicClock, VirtualClock
from controller.control import control
from controller.delayed import DelayedPolicy
from controller.errors import ControllerError, Refused
from controller.exploring import exploring
from controller.interfaces import Clock, Plant, Policy
from controller.keys import client_keys, server_keys
from controller.log import McapSink
from controller.log_schema import LogHeader, host_facts
from controller.loop import ControlLoop, Outcome
from controller.pacer import choose_pacer
from controller.realtime import realtime_section, urgent
from controller.recorder import ProcessSink
from controller.remote_plant import RemotePlant
from controller.remote_policy import RemotePolicy
from controller.settings import PlantSettings, RunConfig
from controller.spec import Spec
from controller.status import StatusBoard
from controller.teleop_server import TeleopServer
from controller.teleop_settings import TeleopSettings


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
        safety=config.loop.safety,
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
    clock = MonotonicClock()
    with ExitStack() as resources:
        with urgent(config.loop.sched_fifo):
            plant, policy = _connected(config, clock, resources)
            teleop = _door(config.loop.teleop, plant.spec, clock, resources)
        facts = plant_facts(config.plant)
        about = header(config, plant.spec, {policy.version: config.policy.bundle}, facts)
        status = resources.enter_context(StatusBoard(Path(config.out) / "status.bin", create=True))
        sink = ProcessSink(Path(config.out) / "log.mcap", about, config.log)
        loop = ControlLoop(
            plant,
            altered(policy, config, clock),
            sink,
            clock,
            config.loop,
            seed=config.seed,
            local=replica,
            status=status,
            teleop=teleop,
        )
        _stop_on_signals(loop)
        try:
            with realtime_section(config.loop) as notes:
                pacer = choose_pacer(config.loop)
                clock.spin_ns = pacer.spin_ns
                for note in (*notes, pacer.why):
                    sink.event(clock.now_ns(), "realtime", note)
                outcome = loop.run(ticks=_ticks(config, plant.spec), episodes=config.episodes)
        finally:
            sink.close()
            status.write(dropped=sink.dropped)
    if outcome is Outcome.FAULT:
        raise LatchedStop(f"{loop.fault}; the safe command was sent until the end")


def _connected(
    config: RunConfig, clock: MonotonicClock, resources: ExitStack
) -> tuple[RemotePlant, RemotePolicy]:
    """Connect to plant and policy server, to be left when ``resources`` are closed."""
    assert config.plant.endpoint
    assert config.policy.endpoint
    plant = RemotePlant(config.plant.endpoint, clock, keys=client_keys(config.plant.keys))
    resources.callback(plant.close)
    plant.connect(config.plant.connect_timeout_s)
    policy = RemotePolicy(
        config.policy.endpoint,
        plant.spec,
        clock,
        client_name=config.task,
        policy=config.policy.name,
        keys=client_keys(config.policy.keys),
    )
    resources.callback(policy.close)
    policy.connect(config.policy.connect_timeout_s)
    return plant, policy


def _door(
    about: TeleopSettings, spec: Spec, clock: Clock, resources: ExitStack
) -> TeleopServer | None:
    if about.endpoint is None:
        return None
    door = TeleopServer(about.endpoint, spec, clock, server_keys(about.keys))
    resources.callback(door.close)
    return door


def run_virtual(
    config: RunConfig, make_plant: Callable[[Clock], Plant], policy: Policy, log: Path
) -> None:
    """Run in this process as in real time, under a virtual clock, logging to ``log``.

    The plant's time goes on while the policy takes its ``delay_ms``; nothing else takes time.

    Args:
        config: settings of the run.
        make_plant: makes a plant that follows a clock.
        policy: whom to ask.
        log: file to write.
    """
    clock = VirtualClock()
    _run_here(config, make_plant(clock), altered(policy, config, clock), clock, log)


def run_lockstep(config: RunConfig, plant: Plant, policy: Policy, log: Path) -> None:
    """Run plant and policy in this process under a virtual clock, logging to ``log``."""
    _run_here(config, plant, exploring_here(policy, config), VirtualClock(), log)


def exploring_here(policy: Policy, config: RunConfig) -> Policy:
    """Return ``policy`` of this process, exploring; where it does it is not asked, if possible.

    Raises:
        ConfigError: it is to explore, and an element of the action has no limits.
    """
    ahead = config.loop.chunks.ask == "ahead"
    return exploring(policy, config.policy.explore, config.seed, ask=ahead)


def altered(policy: Policy, config: RunConfig, clock: Clock) -> Policy:
    """Return ``policy`` with the delay that its answers are to have, and exploring.

    Raises:
        ConfigError: it is to explore, and an element of the action has no limits.
    """
    delay_ns = round(config.policy.delay_ms * 1e6)
    slow = DelayedPolicy(policy, clock, delay_ns) if delay_ns else policy
    return exploring(slow, config.policy.explore, config.seed)


def _run_here(
    config: RunConfig, plant: Plant, policy: Policy, clock: VirtualClock, log: Path
) -> None:
    facts = {"faults": config.plant.faults.facts()}
    about = header(config, plant.spec, {policy.version: config.policy.bundle}, facts)
    sink = McapSink(log, about, config.log)
    loop = ControlLoop(plant, policy, sink, clock, config.loop, seed=config.seed)
    try:
        loop.run(ticks=_ticks(config, plant.spec), episodes=config.episodes)
    finally:
        sink.close()


def plant_facts(about: PlantSettings) -> dict[str, Any]:
    """Ask a plant's server what it says of itself beside its spec: substeps, faults."""
    assert about.endpoint
    keys = client_keys(about.keys)
    try:
        facts = control(about.endpoint, "ready", timeout_s=about.connect_timeout_s, keys=keys)
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
