"""What is explored: how often, how evenly, and that a log can tell it again."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.chunk_settings import ChunkSettings
from controller.clock import VirtualClock
from controller.conformance import check_policy
from controller.delayed import DelayedPolicy
from controller.errors import ConfigError, Refused
from controller.explore_settings import NO_EXPLORATION, ExploreSettings
from controller.exploring import ExploringPolicy, explored_action, explores, exploring
from controller.interfaces import AheadPolicy
from controller.log import McapSink
from controller.log_reader import read_log
from controller.loop import ControlLoop, LoopConfig
from controller.modes import Mode
from controller.replay import refilter_of, replay
from controller.replay_latency import Rerun, config_of
from controller.replay_trace import trace_of
from controller.session import altered, header, run_lockstep
from controller.settings import PolicySettings, RunConfig
from controller.spec import ArraySpec
from controller.stats import summarise
from controller.testing import FakePlant, FakePolicy, FakeRealTimePlant, ListSink, example_spec
from controller.types import Observation, Reason, Request, Rung
from tests.controller.test_replay import Continuing

SPEC = example_spec()
TENTH = ExploreSettings(start=0.1, end=0.1)
THIRD = ExploreSettings(start=0.3, end=0.3)
ALWAYS = ExploreSettings(start=1.0, end=1.0)
OBSERVATION = Observation((np.array([0.1, 0.2]), np.array([0.4, 0.4])), 0)


def request(tick):
    return Request(tick, 3, OBSERVATION, 0, 10**12)


def chi_square(counts, expected):
    return float((np.square(counts - expected) / expected).sum())


def test_it_explores_as_often_as_the_chance_says_all_along_its_decay():
    settings = ExploreSettings(start=0.8, end=0.2, hold=1000, decay=4000)
    ticks = np.arange(8000)
    hits = np.array([explores(settings, 5, tick) for tick in ticks])
    chance = np.where(
        ticks < 1000, 0.8, np.where(ticks >= 5000, 0.2, 0.8 - 0.6 * (ticks - 1000) / 4000)
    )
    got = hits.reshape(16, 500).sum(axis=1)
    mean = chance.reshape(16, 500).sum(axis=1)
    spread = (chance * (1 - chance)).reshape(16, 500).sum(axis=1)
    # 16 squares of standard normals: above 39.3 once in a thousand.
    assert (np.square(got - mean) / spread).sum() < 39.3
    np.testing.assert_allclose([settings.chance(tick) for tick in ticks.tolist()], chance)


def test_an_offset_goes_on_with_the_decay_of_the_run_before():
    settings = ExploreSettings(start=1.0, end=0.0, hold=10, decay=100)
    later = msgspec.structs.replace(settings, offset=60)
    assert [later.chance(t) for t in range(200)] == [settings.chance(t + 60) for t in range(200)]
    assert (later.chance(0), later.chance(50)) == (0.5, 0.0)


@pytest.mark.parametrize(("start", "end"), [(0.1, 0.0), (0.0, 0.1)])
def test_a_chance_that_would_never_hold_is_refused(start, end):
    with pytest.raises(ValueError, match=r"no effect without hold or decay; expected end="):
        ExploreSettings(start=start, end=end)


def test_what_is_drawn_is_even_within_the_limits_and_independent():
    bounds = msgspec.structs.replace(SPEC.action, low=(-1.0, 0.1), high=(1.0, 0.3))
    spec = msgspec.structs.replace(SPEC, action=bounds)
    drawn = np.array([explored_action(spec, 7, tick) for tick in range(10_000)])
    low, high = bounds.bounds()
    assert drawn.dtype == np.float32
    assert (drawn.astype(np.float64) >= low).all()
    assert (drawn.astype(np.float64) <= high).all()
    shares = (drawn - low) / (high - low)
    for column in shares.T:
        counts = np.histogram(column, 20, (0.0, 1.0))[0]
        assert chi_square(counts, 500) < 43.8  # 19 degrees: above it once in a thousand.
    coins = np.array([explores(TENTH, 7, tick) for tick in range(10_000)])
    together = np.corrcoef(np.column_stack([shares, coins]).T)
    assert np.abs(together[np.triu_indices(3, 1)]).max() < 0.04  # four deviations


def test_whole_numbers_are_drawn_to_the_last_as_often_as_the_others():
    action = ArraySpec("valve", (1,), "uint8", low=(2.0,), high=(5.0,))
    spec = msgspec.structs.replace(SPEC, action=action)
    drawn = np.array([explored_action(spec, 1, tick)[0] for tick in range(4000)])
    assert set(drawn.tolist()) == {2, 3, 4, 5}
    assert chi_square(np.bincount(drawn)[2:], 1000) < 16.3


def test_the_draws_are_not_those_of_the_policys_noise():
    noise = np.random.Generator(np.random.Philox(key=[7, 3])).random(64)
    even = (explored_action(SPEC, 7, 3).astype(np.float64) + 1) / 2
    assert np.abs(noise[:, None] - even).min() > 1e-5


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**40))
def test_seed_and_tick_determine_everything(seed, tick):
    again = explored_action(SPEC, seed, tick)
    policy = ExploringPolicy(FakePolicy(), ALWAYS, seed, ask=False)
    assert policy.infer(request(tick)).actions[0].tobytes() == again.tobytes()
    assert explored_action(SPEC, seed, tick + 1).tobytes() != again.tobytes()
    some = ExploringPolicy(FakePolicy(), THIRD, seed, ask=False).infer(request(tick))
    assert bool(some.explored) == explores(THIRD, seed, tick)


@pytest.mark.parametrize("low", [(), (-1.0, None)])
def test_an_action_without_limits_cannot_be_drawn(low):
    action = msgspec.structs.replace(SPEC.action, low=low, elements=("x", "y"))
    policy = FakePolicy(msgspec.structs.replace(SPEC, action=action))
    assert exploring(policy, NO_EXPLORATION, 0) is policy
    with pytest.raises(ConfigError, match=rf"element {'y' if low else 'x'} of the action velocity"):
        exploring(policy, TENTH, 0)


def test_it_is_a_policy_that_can_be_asked_ahead_where_the_other_can():
    check_policy(exploring(FakePolicy(), THIRD, 0), OBSERVATION)
    assert not isinstance(exploring(FakePolicy(), THIRD, 0), AheadPolicy)
    slow = DelayedPolicy(FakePolicy(), VirtualClock(), 0)
    assert isinstance(exploring(slow, THIRD, 0), AheadPolicy)


def test_rows_of_a_chunk_are_drawn_by_their_own_ticks():
    policy = exploring(FakePolicy(horizon=40), THIRD, 3)
    plain = FakePolicy(horizon=40).infer(request(5)).actions
    chunk = policy.infer(request(5))
    assert chunk.explored == tuple(t for t in range(5, 45) if explores(THIRD, 3, t))
    assert 4 < len(chunk.explored) < 20
    for tick in range(5, 45):
        drawn = tick in chunk.explored
        wanted = explored_action(SPEC, 3, tick) if drawn else plain[tick - 5]
        assert chunk.at(tick).tobytes() == wanted.tobytes()


def loop_of(policy, config=None, **plant):
    clock = VirtualClock()
    sink = ListSink()
    return ControlLoop(
        FakePlant(**plant), policy, sink, clock, config or LoopConfig(), seed=3
    ), sink


def test_the_loop_marks_what_it_explored_and_asks_for_nothing_else_in_lockstep():
    inner = FakePolicy()
    loop, sink = loop_of(exploring(inner, THIRD, 3, ask=False), episode_steps=1000)
    loop.run(ticks=400)
    explored = [bool(record.reasons & Reason.EXPLORED) for record in sink.records]
    assert explored == [explores(THIRD, 3, tick) for tick in range(400)]
    asked = {one.tick for one in inner.requests}
    assert asked == {tick for tick in range(400) if not explored[tick]}
    for record in sink.records:
        assert record.rung is Rung.FRESH
        if record.reasons & Reason.EXPLORED:
            assert record.requested.tobytes() == explored_action(SPEC, 3, record.tick).tobytes()
            assert (record.version, record.evaluations) == ("fake-1", 0)


@pytest.mark.parametrize("outcome", ["silent", "late", "nan", "shape", "tick", "crash", "refused"])
def test_nothing_is_explored_where_the_policy_does_not_answer(outcome):
    """Else a robot whose policy is gone would never come to its stop."""
    silent = dict.fromkeys(range(100, 1000), outcome)
    loop, sink = loop_of(exploring(FakePolicy(outcomes=silent), THIRD, 3), episode_steps=1000)
    loop.run(ticks=400)
    explored = [record.tick for record in sink.records if record.reasons & Reason.EXPLORED]
    assert explored == [tick for tick in range(100) if explores(THIRD, 3, tick)]
    assert sink.records[-1].mode is Mode.FAULT


def test_what_a_policy_raises_comes_through():
    with pytest.raises(Refused, match="loading"):
        exploring(FakePolicy(outcomes={0: "refused"}), ALWAYS, 0).infer(request(0))


def config_with(explore, mode="lockstep", **settings):
    return RunConfig(
        mode=mode, seed=9, seconds=None, policy=PolicySettings(explore=explore), **settings
    )


def logged(path, explore=THIRD):
    config = msgspec.structs.replace(config_with(explore), episodes=10)
    run_lockstep(config, FakePlant(episode_steps=40), FakePolicy(), path)
    return read_log(path)


def test_a_log_of_an_exploring_run_is_recomputed_bit_for_bit(tmp_path):
    log = logged(tmp_path / "log.mcap")
    explored = log.reasons & Reason.EXPLORED != 0
    assert summarise(log).reasons["explored"] == explored.sum() > 60
    result = replay(log, lambda version: FakePolicy(version=version), refilter_of(log))
    assert result.matched, str(result.first_mismatch)
    assert (result.skipped, result.ticks_checked) == ({}, len(log))


@pytest.mark.parametrize("explored", [False, True])
def test_one_bit_of_an_exploring_run_that_was_altered_is_named(tmp_path, explored):
    log = logged(tmp_path / "log.mcap")
    row = int(np.flatnonzero((log.reasons & Reason.EXPLORED != 0) == explored)[20])
    sink = McapSink(tmp_path / "altered.mcap", log.header)
    for number, record in enumerate(log.records()):
        if number == row:
            record = replace(record, requested=np.nextafter(record.requested, np.float32(9)))
        sink.tick(record)
    sink.close()
    changed = read_log(tmp_path / "altered.mcap")
    result = replay(changed, lambda version: FakePolicy(version=version), refilter_of(changed))
    assert (result.first_mismatch.tick, result.first_mismatch.field) == (log.tick[row], "requested")


def test_a_replay_under_another_chance_differs(tmp_path):
    log = logged(tmp_path / "log.mcap")
    config = msgspec.to_builtins(config_with(TENTH))
    other = replace(log, header=msgspec.structs.replace(log.header, config=config))
    result = replay(other, lambda version: FakePolicy(version=version), refilter_of(other))
    first = next(t for t in range(99) if explores(THIRD, 9, t) != explores(TENTH, 9, t))
    assert result.first_mismatch.tick == first


CHUNKS = {
    "plain": ChunkSettings(ask="ahead", replan_every=3),
    "prefix and blend": ChunkSettings(ask="ahead", replan_every=4, prefix=3, blend=3),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_explore_by_the_tick_through_seams_and_blends(tmp_path, name):
    path, clock = tmp_path / "log.mcap", VirtualClock()
    plant = FakeRealTimePlant(clock, episode_steps=60)
    config = config_with(THIRD, "virtual", loop=LoopConfig(chunks=CHUNKS[name]))
    sink = McapSink(path, header(config, plant.spec, {}, {}))
    slow = DelayedPolicy(Continuing(clock=clock), clock, 25_000_000)
    policy = altered(slow, config, clock)
    ControlLoop(plant, policy, sink, clock, config.loop, seed=9).run(ticks=150)
    sink.close()
    log = read_log(path)
    planned = np.isin(log.rung, (Rung.FRESH, Rung.TAIL))
    explored = log.reasons & Reason.EXPLORED != 0
    scheduled = np.array([explores(THIRD, 9, tick) for tick in log.tick.tolist()])
    np.testing.assert_array_equal(explored, planned & scheduled)
    assert explored.sum() > 20
    if "blend" in name:
        assert (explored & (log.reasons & Reason.BLENDED != 0)).any()
    for row in np.flatnonzero(explored):
        drawn = explored_action(log.header.spec, 9, int(log.tick[row]))
        assert log.requested[row].tobytes() == drawn.tobytes()
    result = replay(log, lambda version: Continuing(version=version), refilter_of(log))
    assert result.matched, str(result.first_mismatch)
    assert (result.skipped, result.ticks_checked) == ({}, len(log))


def test_a_rerun_under_the_logs_own_latency_explores_the_same(tmp_path):
    path, clock = tmp_path / "log.mcap", VirtualClock()
    config = config_with(THIRD, "virtual")
    config = msgspec.structs.replace(
        config, policy=msgspec.structs.replace(config.policy, delay_ms=2.0)
    )
    plant = FakeRealTimePlant(clock, episode_steps=40)
    sink = McapSink(path, header(config, plant.spec, {}, {}))
    policy = altered(FakePolicy(), config, clock)
    ControlLoop(plant, policy, sink, clock, config.loop, seed=9).run(ticks=100)
    sink.close()
    log = read_log(path)
    assert (log.reasons & Reason.EXPLORED != 0).sum() > 15
    robot = lambda _, clock: FakeRealTimePlant(clock, episode_steps=40)  # noqa: E731
    again = Rerun(log, config_of(log), FakePolicy(), robot).under(
        trace_of(log), tmp_path / "a.mcap"
    )
    np.testing.assert_array_equal(again.executed, log.executed)
    np.testing.assert_array_equal(again.reasons, log.reasons)
