from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from controller.chunk_settings import ChunkSettings
from controller.clock import VirtualClock
from controller.delayed import DelayedPolicy
from controller.log import McapSink
from controller.log_reader import read_log
from controller.log_schema import DROPPED, LogHeader
from controller.loop import ControlLoop, LoopConfig
from controller.replay import refilter_of, replay
from controller.stats import summarise
from controller.teleop import TeleopCommand
from controller.teleop_settings import TeleopSettings
from controller.testing import FakePlant, FakePolicy, FakeRealTimePlant, example_spec
from controller.types import ActionChunk, Reason, Request, Rung
from tests.controller.records import SPEC, header, tick, written

SAFE = np.array([0.25, -0.25], np.float32)
HORIZON = 4
STEP = 0.3


class Seeded:
    """A policy whose chunk depends on seed, tick and observation alone."""

    def __init__(self, version, shift=0.0):
        self.version, self.shift = version, np.float32(shift)
        self.spec = SPEC
        self.requests = []

    def infer(self, request):
        self.requests.append(request)
        rng = np.random.default_rng([request.seed, request.tick])
        noise = rng.uniform(-1, 1, (HORIZON, 2)).astype(np.float32)
        gain = np.float32(request.observation.arrays[0].sum())
        return ActionChunk(request.tick, noise * gain + self.shift, self.version)

    def close(self):
        pass


def refilter(requested, previous, record):
    """Safe on hold; otherwise clipped, then slowed."""
    if record.rung >= Rung.HOLD:
        return SAFE
    before = SAFE if previous is None else previous
    return requested.clip(-1, 1).clip(before - np.float32(STEP), before + np.float32(STEP))


RUNGS = [Rung.FRESH, Rung.FRESH, Rung.TAIL, Rung.TAIL, Rung.LOCAL, Rung.HOLD, Rung.FRESH, Rung.STOP]


def run(seed=7, versions=("v1", "v1", "v1", "v1", "v2", "", "v2", "")):
    """Records as a loop with these rungs would have made them."""
    policies = {"v1": Seeded("v1"), "v2": Seeded("v2", 0.5)}
    records, previous, chunk = [], None, None
    for number, (rung, version) in enumerate(zip(RUNGS, versions, strict=True)):
        record = tick(number, rung=rung, version=version)
        if rung in (Rung.FRESH, Rung.LOCAL):
            request = _request(record, seed)
            chunk = policies[version].infer(request)
        if rung >= Rung.HOLD:
            record = replace(record, requested=SAFE, answer_tick=-1)
        else:
            record = replace(record, requested=chunk.at(number), answer_tick=chunk.tick)
        executed = refilter(record.requested, previous, record)
        records.append(replace(record, executed=executed))
        previous = executed
    return records


def _request(record, seed):
    return Request(record.tick, seed, record.observation, 123, 456)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.mcap"


def policies(version):
    return {"v1": Seeded("v1"), "v2": Seeded("v2", 0.5)}[version]


def test_an_honest_log_is_recomputed_bit_for_bit(path):
    result = replay(written(path, run()), policies, refilter)
    assert result.matched
    assert result.first_mismatch is None
    assert (result.ticks_checked, result.policy_actions) == (8, 6)
    assert result.skipped == {}


@pytest.mark.parametrize(
    ("number", "field"),
    [(number, "executed") for number in range(8)]
    # On hold and stop no policy is asked, and the safe command does not depend on the request.
    + [(number, "requested") for number in range(8) if RUNGS[number] < Rung.HOLD],
)
def test_the_first_altered_action_is_named(path, number, field):
    records = run()
    action = getattr(records[number], field).copy()
    action[1] = np.nextafter(action[1], np.float32(9))
    records[number] = replace(records[number], **{field: action})
    result = replay(written(path, records), policies, refilter)
    assert not result.matched
    found = result.first_mismatch
    assert (found.tick, found.field) == (number, field)
    assert found.expected.tobytes() == action.tobytes()
    assert str(found).startswith(f"tick {number}: {field} action is [")
    assert result.ticks_checked == number


@pytest.mark.parametrize(
    "change",
    [
        {"arrays": tick(99).observation.arrays},
        {"version": "v2"},
    ],
)
def test_another_observation_or_version_is_found(path, change):
    records = run()
    version = change.pop("version", records[1].version)
    seen = replace(records[1].observation, **change)
    records[1] = replace(records[1], observation=seen, version=version)
    assert replay(written(path, records), policies, refilter).first_mismatch.tick == 1


def test_another_seed_is_found(path):
    log = written(path, run(seed=8))
    assert replay(log, policies, refilter).first_mismatch.tick == 0


def test_a_tolerance_forgives_rounding_and_no_more(path):
    records = run()
    records[2] = replace(records[2], requested=records[2].requested + np.float32(1e-6))
    log = written(path, records)
    assert not replay(log, policies, refilter).matched
    assert not replay(log, policies, refilter, tolerance=1e-7).matched
    assert replay(log, policies, refilter, tolerance=1e-5).matched


def test_ticks_of_a_version_that_is_gone_are_counted(path):
    result = replay(
        written(path, run()), lambda name: None if name == "v2" else policies(name), refilter
    )
    assert result.matched
    assert result.skipped == {"policy version v2 cannot be had": 2}
    assert (result.ticks_checked, result.policy_actions) == (6, 4)


def test_a_tail_whose_request_is_not_in_the_log_is_counted(path):
    records = run()
    sink = McapSink(path, header())
    sink.tick(records[0])
    sink.event(0, DROPPED, '{"ticks":1,"events":0,"first":1,"last":1}')
    for record in records[2:]:
        sink.tick(record)
    sink.close()
    result = replay(read_log(path), policies, refilter)
    assert result.matched
    # Tick 2 also lacks the command before it, so its own cannot be recomputed.
    assert result.skipped == {"the observation behind the action is not in the log": 2}
    assert result.ticks_checked == 5


def test_a_command_after_a_drop_is_not_held_against_the_log(path):
    records = run()
    sink = McapSink(path, header())
    for record in records[:5]:
        sink.tick(record)
    sink.event(0, DROPPED, '{"ticks":1,"events":0,"first":5,"last":5}')
    for record in records[6:]:
        sink.tick(record)
    sink.close()
    result = replay(read_log(path), policies, refilter)
    assert result.matched
    assert result.skipped == {"the command before it is not in the log": 1}
    assert result.policy_actions == 6


def test_a_policy_that_gives_no_answer_now_differs(path):
    class Silent(Seeded):
        def infer(self, request):
            return None

    result = replay(written(path, run()), lambda name: Silent(name), refilter)
    assert result.first_mismatch.tick == 0
    assert "recomputed by v1 []" in str(result.first_mismatch)


def test_each_request_is_asked_once_with_its_own_observation(path):
    policy = Seeded("v1")
    records = run(versions=("v1", "v1", "v1", "v1", "v1", "", "v1", ""))
    assert replay(written(path, records), lambda _: policy, refilter).matched
    assert [request.tick for request in policy.requests] == [0, 1, 4, 6]
    assert {request.seed for request in policy.requests} == {7}
    seen = policy.requests[1].observation.arrays
    np.testing.assert_array_equal(seen[0], records[1].observation.arrays[0])


def test_not_a_number_is_recomputed_too(path):
    nan = np.array([np.nan, 0.0], np.float32)

    class Broken(Seeded):
        def infer(self, request):
            return ActionChunk(request.tick, nan[None], self.version)

    record = tick(0, requested=nan, executed=SAFE, reasons=int(Reason.NONFINITE))
    assert replay(written(path, [record]), lambda name: Broken(name), lambda *_: SAFE).matched


def test_a_run_of_the_loop_is_replayed_and_gives_transitions(path):
    """Fresh, tail, hold and local commands, slowed by the filter, over three episodes."""
    clock = VirtualClock()
    spec = example_spec()
    config = LoopConfig(slew_per_s=20.0)
    about = LogHeader(
        spec=spec, mode="lockstep", rate_hz=spec.rate_hz, seed=3, slew_per_s=config.slew_per_s
    )
    sink = McapSink(path, about)
    plant = FakePlant(episode_steps=20)
    policy = FakePolicy(
        clock=clock, horizon=3, outcomes={5: "late", 6: "late", 7: "late", 30: "refused"}
    )
    loop = ControlLoop(
        plant, policy, sink, clock, config, seed=3, local=FakePolicy(version="replica")
    )
    loop.run(episodes=3)
    sink.close()
    log = read_log(path)
    assert {int(rung) for rung in log.rung} >= {Rung.FRESH, Rung.TAIL, Rung.LOCAL, Rung.HOLD}
    assert (log.reasons & Reason.SLEW).any()

    def policy_for(version):
        return FakePolicy(horizon=3 if version == "fake-1" else 1, version=version)

    result = replay(log, policy_for, refilter_of(log))
    assert result.matched, str(result.first_mismatch)
    assert result.ticks_checked == len(log)

    data = log.transitions().validate("log")
    assert len(data.episodes()) == 3
    assert len(data) == 60
    sent = [action for tick, action in plant.commands if tick >= 0]
    np.testing.assert_array_equal(data.actions, sent[:60])
    np.testing.assert_allclose(data.returns(), summarise(log).episode_returns)


# Chunks


class Scripted:
    """A person who drives from the first to the last of the given polls."""

    def __init__(self, polls, action, clock):
        self.polls, self.action, self.clock, self.count = polls, action, clock, -1

    def poll(self):
        self.count += 1
        driving = int(self.count in self.polls)
        return [TeleopCommand(self.action, self.clock.now_ns(), driving)]

    def show(self, standing):
        pass

    def close(self):
        pass


class Continuing(FakePolicy):
    """Answers of eight rows that begin with the rows they are given."""

    def __init__(self, **settings):
        super().__init__(horizon=8, **settings)

    def infer(self, request):
        chunk = super().infer(request)
        if chunk is None or not chunk.prefix:
            return chunk
        actions = chunk.actions.copy()
        actions[chunk.prefix :] += np.float32(0.05) * request.prefix.sum(axis=0)
        return replace(chunk, actions=actions)


def chunked(path, chunks, *, delay_ms=25, outcomes=None, ticks=150, **about):
    """Log a loop that asks ahead, in virtual real time."""
    clock = VirtualClock()
    plant = FakeRealTimePlant(clock, episode_steps=60)
    config = LoopConfig(chunks=chunks, slew_per_s=40.0, **about)
    policy = Continuing(clock=clock, outcomes=outcomes)
    log_about = LogHeader(
        spec=plant.spec,
        mode="virtual",
        rate_hz=plant.spec.rate_hz,
        seed=5,
        safety=config.safety,
        config={"loop": msgspec.to_builtins(config)},
    )
    sink = McapSink(path, log_about)
    slow = DelayedPolicy(policy, clock, [delay_ms * 1_000_000, (delay_ms + 20) * 1_000_000])
    loop = ControlLoop(plant, slow, sink, clock, config, seed=5, local=None)
    loop.run(ticks=ticks)
    sink.close()
    return read_log(path)


CHUNKS = {
    "plain": ChunkSettings(ask="ahead", replan_every=3),
    "prefix": ChunkSettings(ask="ahead", replan_every=3, prefix=8),
    "blend": ChunkSettings(ask="ahead", replan_every=3, blend=3),
    "blend, not y": ChunkSettings(ask="ahead", replan_every=4, blend=4, blend_exclude=(1,)),
    "prefix and blend": ChunkSettings(ask="ahead", replan_every=4, prefix=3, blend=2),
}


@pytest.mark.parametrize("name", CHUNKS)
@pytest.mark.parametrize("outcomes", [{}, dict.fromkeys(range(40, 70), "late") | {20: "refused"}])
def test_chunks_are_recomputed_bit_for_bit(path, name, outcomes):
    log = chunked(path, CHUNKS[name], outcomes=outcomes)
    assert (log.answer_tick[log.rung <= Rung.TAIL] < log.tick[log.rung <= Rung.TAIL]).any()
    assert ("blend" in name) == bool((log.reasons & Reason.BLENDED).any())
    assert ("prefix" in name) == bool((log.prefix > 0).any())
    result = replay(log, lambda version: Continuing(version=version), refilter_of(log))
    assert result.matched, str(result.first_mismatch)
    assert result.skipped == {}
    assert result.ticks_checked == len(log)
    assert result.policy_actions == (log.rung <= Rung.TAIL).sum() > 80


def test_a_row_of_a_chunk_that_was_altered_is_named(path, tmp_path):
    log = chunked(path, CHUNKS["prefix"])
    row = int(np.flatnonzero((log.rung == Rung.FRESH) & (log.answer_tick < log.tick - 2))[9])
    sink = McapSink(tmp_path / "altered.mcap", log.header)
    for number, record in enumerate(log.records()):
        if number == row:
            record.requested = np.nextafter(record.requested, np.float32(9))
        sink.tick(record)
    sink.close()
    altered = read_log(tmp_path / "altered.mcap")
    result = replay(altered, lambda version: Continuing(version=version), refilter_of(altered))
    assert result.first_mismatch.tick == log.tick[row]
    assert result.first_mismatch.field == "requested"


def test_the_logged_choice_of_steps_and_candidates_is_asked_for(path):
    policy = Seeded("v1")
    records = run(versions=("v1", "v1", "v1", "v1", "v1", "", "v1", ""))
    records = [replace(record, candidates=3, evaluations=2) for record in records]
    assert replay(written(path, records), lambda _: policy, refilter).matched
    assert {(request.steps, request.candidates) for request in policy.requests} == {(2, 3)}


def test_a_batch_is_recomputed_to_its_rounding(path):
    records = run()
    off = np.float32(5e-6)
    requested = records[1].requested + off
    executed = refilter(requested, records[0].executed, records[1])
    records[1] = replace(records[1], requested=requested, executed=executed)
    # What follows was filtered from the command that was sent.
    previous = executed
    for number in range(2, len(records)):
        executed = refilter(records[number].requested, previous, records[number])
        records[number] = replace(records[number], executed=executed)
        previous = executed
    assert not replay(written(path, records), policies, refilter).matched
    records[1] = replace(records[1], batch=4)
    assert replay(written(path, records), policies, refilter).matched
    assert not replay(written(path, records), policies, refilter, tolerance=1e-7).matched


def test_a_person_s_commands_are_only_filtered_again(path):
    clock = VirtualClock()
    spec = example_spec()
    config = LoopConfig(slew_per_s=20.0, teleop=TeleopSettings(blend_s=0.05))
    about = LogHeader(
        spec=spec, mode="lockstep", rate_hz=spec.rate_hz, seed=3, safety=config.safety
    )
    sink = McapSink(path, about)
    source = Scripted(range(20, 45), np.array([0.9, -0.9], np.float32), clock)
    plant = FakePlant(episode_steps=80)
    loop = ControlLoop(plant, FakePolicy(clock=clock), sink, clock, config, seed=3, teleop=source)
    loop.run(ticks=70)
    sink.close()
    log = read_log(path)
    assert (log.rung == Rung.HUMAN).sum() > 20
    assert (log.reasons[log.rung == Rung.FRESH] & Reason.BLENDED).any()
    result = replay(log, lambda version: FakePolicy(version=version), refilter_of(log))
    assert result.matched, str(result.first_mismatch)
    assert result.ticks_checked == len(log)
    assert result.policy_actions == (log.rung <= Rung.LOCAL).sum()
