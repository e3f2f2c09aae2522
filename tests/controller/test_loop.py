"""Scenario tables of the loop under a virtual clock.

After every run the invariant is checked: each tick sent exactly one command, and it was either
the filtered action or the declared safe command.
"""

import inspect
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from controller.clock import MonotonicClock, VirtualClock
from controller.errors import ConfigError, PlantFailed, PlantLost
from controller.loop import ControlLoop, LoopConfig, Outcome, episode_seed
from controller.pacer import choose_pacer
from controller.realtime import realtime_section
from controller.safety_filter import SafetyFilter
from controller.status import StatusBoard
from controller.testing import FakePlant, FakePolicy, FakeRealTimePlant, ListSink, example_spec
from controller.types import Mode, Reason, Rung

MS = 1_000_000
PERIOD = 10 * MS
SAFE = np.zeros(2, np.float32)


class Scene:
    """A loop with fakes at every seam."""

    def __init__(
        self,
        *,
        realtime=False,
        outcomes=None,
        costs_ns=None,
        horizon=1,
        faults=None,
        local=False,
        episode_steps=1000,
        terminate_at=None,
        reset_periods=3,
        config=None,
        seed=0,
        status=None,
        clock=None,
        plant=None,
        policy=None,
        teleop=None,
        **settings,
    ):
        self.clock = clock or VirtualClock()
        self.sink = ListSink()
        self.config = config or LoopConfig(**settings)
        options = {"episode_steps": episode_steps, "terminate_at": terminate_at, "faults": faults}
        if plant is not None:
            self.plant = plant
        elif realtime:
            self.plant = FakeRealTimePlant(self.clock, reset_periods=reset_periods, **options)
        else:
            self.plant = FakePlant(clock=self.clock, **options)
        self.policy = policy or FakePolicy(
            clock=self.clock, outcomes=outcomes, costs_ns=costs_ns, horizon=horizon
        )
        self.loop = ControlLoop(
            self.plant,
            self.policy,
            self.sink,
            self.clock,
            self.config,
            seed=seed,
            local=FakePolicy(clock=self.clock, version="replica") if local else None,
            status=status,
            teleop=teleop(self.clock) if teleop else None,
        )

    @property
    def records(self):
        return self.sink.records

    @property
    def rungs(self):
        return " ".join(record.rung.name for record in self.records)

    @property
    def modes(self):
        return [detail.split(":")[0] for _, kind, detail in self.sink.events if kind == "mode"]

    def events(self, kind):
        return [detail for _, name, detail in self.sink.events if name == kind]

    def run(self, ticks=None, episodes=None):
        outcome = self.loop.run(ticks=ticks, episodes=episodes)
        self.check_invariant()
        return outcome

    def check_invariant(self):
        """Each tick but the last of a lockstep episode sent its command, and only that."""
        sent = {tick: action for tick, action in self.plant.commands if tick >= 0}
        numbers = [tick for tick, _ in self.plant.commands if tick >= 0]
        assert len(numbers) == len(sent), "a tick sent two commands"
        safety = SafetyFilter(self.plant.spec, self.config.safety, period_ns=self.loop.period_ns)
        for record in self.records:
            if record.rung >= Rung.HOLD and not record.rung.acts:
                assert record.reasons & Reason.BLENDED or same(record.executed, safety.safe)
            assert same(record.executed, safety.recompute(record))
            assert (record.executed >= safety.limits.low).all()
            assert (record.executed <= safety.limits.high).all()
            if record.tick in sent:
                assert same(sent[record.tick], record.executed)
            else:
                assert record.observation.done or record.reasons & Reason.PLANT_LOST
        self.check_stages()

    def check_stages(self):
        for r in self.records:
            assert r.total_ns == r.sent_ns - r.deadline_ns
            stages = (r.wake_ns, r.observe_ns, r.transport_ns, r.queue_ns, r.infer_ns, r.act_ns)
            if r.queue_ns >= 0:
                assert min(stages) >= 0
                assert sum(stages) == r.total_ns
            else:
                assert stages[2:5] == (-1, -1, -1)


def same(a, b):
    return a.dtype == b.dtype and np.array_equal(a, b)


def missed(records, period_ns=PERIOD):
    """Count by the definition: late commands and skipped periods."""
    late = sum(r.sent_ns > r.deadline_ns + period_ns for r in records)
    return late + records[-1].tick + 1 - len(records)


def test_run_is_prose():
    body = inspect.getsource(ControlLoop.run).split('"""')[2].strip().splitlines()
    assert len(body) <= 15


def test_every_tick_is_fresh_when_all_is_well():
    scene = Scene()
    assert scene.run(ticks=50) is Outcome.TICKS
    assert scene.rungs == " ".join(["FRESH"] * 50)
    assert [r.tick for r in scene.records] == list(range(50))
    assert [r.deadline_ns for r in scene.records] == [k * PERIOD for k in range(50)]
    assert {r.mode for r in scene.records} == {Mode.RUN}
    assert {r.reasons & ~Reason.LIMIT for r in scene.records} == {0}
    assert [r.observation.applied_tick for r in scene.records] == [-1, *range(49)]
    assert scene.modes == ["INIT -> HOLD", "HOLD -> RUN", "RUN -> STOPPED"]
    assert missed(scene.records) == 0
    assert scene.sink.closed is False


def test_the_safe_command_ends_every_run():
    scene = Scene(realtime=True, safe_action=(0.25, -0.25))
    scene.run(ticks=5)
    tick, command = scene.plant.commands[-1]
    assert tick == 5
    assert command.tolist() == [0.25, -0.25]


def test_lockstep_is_deterministic():
    runs = []
    for _ in range(2):
        scene = Scene(episode_steps=7, seed=11)
        scene.run(episodes=3)
        runs.append([(r.tick, r.requested.tobytes(), r.executed.tobytes()) for r in scene.records])
    assert runs[0] == runs[1]


# One line per scenario of the ladder: what is scripted, what it does to twelve ticks.
F, T, L, H, S = "FRESH", "TAIL", "LOCAL", "HOLD", "STOP"
LADDER = {
    "late answers": (
        {"outcomes": {3: "late", 4: "late", 8: "late"}},
        [F, F, F, H, H, F, F, F, H, F, F, F],
        {3: Reason.LATE, 4: Reason.LATE, 8: Reason.LATE},
    ),
    "no session": ({"outcomes": {0: "silent"}}, [H, *[F] * 11], {0: Reason.UNREACHABLE}),
    "server refuses": (
        {"outcomes": {5: "refused", 6: "refused"}},
        [*[F] * 5, H, H, *[F] * 5],
        {5: Reason.REFUSED, 6: Reason.REFUSED},
    ),
    "server answers garbage": ({"outcomes": {5: "garbage"}}, [*[F] * 5, H, *[F] * 6], {}),
    "policy crashes": ({"outcomes": {5: "crash"}}, [*[F] * 5, H, *[F] * 6], {}),
    "action is NaN": ({"outcomes": {2: "nan"}}, [F, F, H, *[F] * 9], {2: Reason.NONFINITE}),
    "action of another shape": ({"outcomes": {2: "shape"}}, [F, F, H, *[F] * 9], {}),
    "tail of a chunk": (
        {"outcomes": dict.fromkeys(range(4, 9), "late"), "horizon": 4},
        [F, F, F, F, T, T, T, H, H, F, F, F],
        {4: Reason.LATE, 7: Reason.LATE},
    ),
    "local replica": (
        {"outcomes": dict.fromkeys(range(4, 9), "late"), "local": True},
        [F, F, F, F, L, L, L, L, L, F, F, F],
        {4: Reason.LATE},
    ),
    "tail, then local replica": (
        {"outcomes": dict.fromkeys(range(4, 9), "late"), "local": True, "horizon": 3},
        [F, F, F, F, T, T, L, L, L, F, F, F],
        {6: Reason.LATE},
    ),
    "observation is NaN": (
        {"faults": {3: "nan"}},
        [F, F, F, H, *[F] * 8],
        {3: Reason.NONFINITE},
    ),
    "plant lost for a while": (
        {"faults": {3: "lost", 4: "lost"}},
        [F, F, F, H, H, *[F] * 7],
        {3: Reason.PLANT_LOST, 4: Reason.PLANT_LOST},
    ),
    "observation goes stale": (
        {"faults": dict.fromkeys(range(1, 10), "stall"), "max_age_s": 0.035},
        [F, F, F, F, H, H, H, H, H, H, F, F],
        {4: Reason.STALE, 9: Reason.STALE},
    ),
    "stop latches": (
        {"outcomes": dict.fromkeys(range(2, 7), "late"), "stop_after_s": 0.05, "realtime": True},
        [F, F, H, H, H, H, S, S, S, S, S, S],
        {5: Reason.LATE, 6: Reason.LATE, 11: Reason.LATE},
    ),
}


@pytest.mark.parametrize("realtime", [False, True])
@pytest.mark.parametrize("name", LADDER)
def test_ladder(name, realtime):
    script, rungs, reasons = LADDER[name]
    scene = Scene(**({"realtime": realtime} | script))
    scene.run(ticks=12)
    assert scene.rungs == " ".join(rungs)
    assert [r.tick for r in scene.records] == list(range(12))
    for tick, expected in reasons.items():
        assert scene.records[tick].reasons == expected
    assert missed(scene.records) == 0
    # One command per tick, and the safe one at the end.
    assert [t for t, _ in scene.plant.commands if t >= 0] == list(range(13))
    for record in scene.records:
        acting = record.rung <= Rung.LOCAL
        assert record.mode is (
            Mode.RUN if acting else Mode.FAULT if record.rung is Rung.STOP else Mode.HOLD
        )


@pytest.mark.parametrize(
    ("periods", "ticks", "count"),
    [
        (0.9, [0, 1, 2, 3, 4, 5, 6, 7], 0),
        (1.0, [0, 1, 2, 3, 4, 5, 6, 7], 0),
        (1.5, [0, 1, 2, 3, 4, 5, 6, 7], 1),
        (2.5, [0, 1, 2, 4, 5, 6, 7], 2),
        (3.2, [0, 1, 2, 5, 6, 7], 3),
    ],
)
@pytest.mark.parametrize("realtime", [False, True])
def test_an_overrun_skips_whole_periods_and_the_records_tell_what_was_missed(
    periods, ticks, count, realtime
):
    scene = Scene(realtime=realtime, costs_ns={2: round(periods * PERIOD)}, phase_ms=0.0)
    scene.run(ticks=8)
    assert [r.tick for r in scene.records] == ticks
    assert missed(scene.records) == count
    first = scene.records[0].deadline_ns
    assert [r.deadline_ns - first for r in scene.records] == [k * PERIOD for k in ticks]
    assert scene.records[2].infer_ns == round(periods * PERIOD)
    assert scene.records[2].rung is Rung.FRESH
    assert scene.records[3].wake_ns == round(periods % 1 * PERIOD) * (periods > 1)


def test_an_overrun_beyond_the_age_limit_is_not_acted_on():
    scene = Scene(realtime=True, costs_ns={2: 6 * PERIOD})
    scene.run(ticks=12)
    assert scene.records[2].rung is Rung.HOLD
    assert scene.records[2].reasons == Reason.LATE


def test_a_skip_over_the_end_ends_the_run():
    scene = Scene(costs_ns={3: 9 * PERIOD}, max_age_s=1.0)
    assert scene.run(ticks=5) is Outcome.TICKS
    assert [r.tick for r in scene.records] == [0, 1, 2, 3]


def test_a_lockstep_episode_end_has_its_own_tick_and_no_command():
    scene = Scene(episode_steps=4, seed=100)
    assert scene.run(episodes=2) is Outcome.EPISODES
    assert scene.rungs == "FRESH FRESH FRESH FRESH HOLD FRESH FRESH FRESH FRESH HOLD"
    assert [(r.observation.episode, r.observation.step) for r in scene.records] == [
        (e, s) for e in range(2) for s in range(5)
    ]
    last = scene.records[4]
    assert last.observation.truncated
    assert (last.mode, last.reasons) == (Mode.HOLD, Reason.EPISODE)
    assert [t for t, _ in scene.plant.commands] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert scene.plant.seeds == [100, 101]
    assert len(scene.events("episode")) == 2
    assert scene.events("episode")[0].startswith("0 over after 4 steps: return -")


def test_lockstep_actions_reach_the_episode_they_were_meant_for():
    scene = Scene(terminate_at=3, seed=5)
    scene.run(episodes=4)
    for before, after in zip(scene.records, scene.records[1:], strict=False):
        if not before.observation.done:
            assert after.observation.applied_tick == before.tick
            moved = after.observation.arrays[0] - before.observation.arrays[0]
            assert np.allclose(moved, before.executed.astype(np.float64) / 100.0)


def test_simulated_stamps_do_not_make_a_lockstep_plant_stale():
    # Its stamps fall behind by one period per episode, as no step is made at an end.
    plant = FakePlant(clock=None, episode_steps=3)
    scene = Scene(plant=plant, clock=VirtualClock())
    scene.run(episodes=30)
    assert scene.rungs == " ".join([F, F, F, H] * 30)


def test_a_lockstep_plant_with_a_history_begins_a_new_episode():
    plant = FakePlant(episode_steps=5)
    plant.reset(1)
    plant.command(SAFE, 0)
    plant.commands.clear()
    scene = Scene(plant=plant, seed=7)
    scene.run(episodes=1)
    assert plant.seeds == [1, 7]
    assert scene.records[0].observation.episode == 1
    assert scene.records[0].observation.step == 0


def test_in_real_time_the_safe_command_bridges_the_reset():
    scene = Scene(realtime=True, episode_steps=6, reset_periods=3, seed=40)
    scene.run(ticks=20)
    assert scene.rungs == " ".join([*[F] * 6, *[H] * 4, *[F] * 6, *[H] * 4])
    commands = [t for t, _ in scene.plant.commands if t >= 0]
    assert commands == list(range(21))
    held = [r for r in scene.records if r.rung is Rung.HOLD]
    assert {r.reasons for r in held} == {Reason.EPISODE}
    assert all(r.observation.done for r in held)
    assert scene.plant.seeds == [40, 41, 42]
    # Asked for half a millisecond after tick 6, due 30 ms later, seen on the plant's grid.
    assert [r.tick for r in held] == [6, 7, 8, 9, 16, 17, 18, 19]


def test_real_time_start():
    scene = Scene(realtime=True, reset_periods=4)
    scene.run(ticks=3)
    waiting = [(t, a.tolist()) for t, a in scene.plant.commands if t < 0]
    assert waiting == [(-1, [0.0, 0.0])] * 4
    assert scene.records[0].observation.step == 0
    assert scene.records[0].observation.episode == 1
    assert scene.modes[0] == "INIT -> HOLD"


@pytest.mark.parametrize("phase_ms", [0.0, 0.5, 3.0, 12.0])
def test_deadlines_are_aligned_to_the_observations(phase_ms):
    clock = VirtualClock(3_700_000)  # The plant's grid begins here, off every round number.
    scene = Scene(realtime=True, clock=clock, phase_ms=phase_ms)
    scene.run(ticks=5)
    for record in scene.records:
        age = record.deadline_ns - record.observation.stamp_ns
        assert age == round(phase_ms * MS) % PERIOD


@pytest.mark.parametrize("offset_ns", [-(10**15), 10**15])
def test_stamps_of_another_host_are_replaced_by_the_arrival(offset_ns):
    class OtherHost(FakeRealTimePlant):
        def observe(self):
            seen = super().observe()
            return replace(seen, stamp_ns=seen.stamp_ns + offset_ns)

    clock = VirtualClock()
    scene = Scene(plant=OtherHost(clock), clock=clock, faults=None)
    scene.run(ticks=5)
    assert scene.rungs == " ".join([F] * 5)
    # The observation was found by a poll at most a tenth of a period after it was made.
    lag = scene.records[0].deadline_ns % PERIOD - round(0.5 * MS)
    assert 0 <= lag <= PERIOD // 10


def test_without_alignment_the_grid_begins_at_once():
    scene = Scene(realtime=True, align=False, reset_periods=1)
    scene.run(ticks=2)
    assert scene.records[0].deadline_ns == PERIOD


def test_the_rate_may_differ_from_the_plants():
    scene = Scene(realtime=True, rate_hz=50.0)
    scene.run(ticks=10)
    deadlines = [r.deadline_ns for r in scene.records]
    assert np.diff(deadlines).tolist() == [2 * PERIOD] * 9
    assert scene.rungs == " ".join([F] * 10)


def test_a_faster_loop_may_see_an_observation_twice():
    scene = Scene(realtime=True, rate_hz=400.0, phase_ms=0.0)
    scene.run(ticks=12)
    assert [r.observation.step for r in scene.records] == [
        first + k
        for first in [scene.records[0].observation.step]
        for k in (0, 1, 2)
        for _ in "1234"
    ]
    assert scene.rungs == " ".join([F] * 12)


@pytest.mark.parametrize("realtime", [False, True])
def test_operator_stop(realtime):
    scene = Scene(realtime=realtime)
    infer = scene.policy.infer

    def stop_at_4(request):
        if request.tick == 4:
            scene.loop.stop("SIGINT")
        return infer(request)

    scene.policy.infer = stop_at_4
    assert scene.run(ticks=100) is Outcome.OPERATOR
    assert scene.rungs == "FRESH FRESH FRESH FRESH FRESH STOP"
    last = scene.records[-1]
    assert (last.mode, last.reasons) == (Mode.STOPPED, Reason.OPERATOR)
    assert scene.plant.commands[-1][1].tolist() == [0.0, 0.0]
    assert scene.events("mode")[-1] == "RUN -> STOPPED: operator stop (SIGINT)"


def test_operator_stop_while_waiting_for_the_plant():
    scene = Scene(realtime=True, reset_periods=10**6)
    scene.loop.stop("SIGTERM")
    assert scene.run(ticks=100) is Outcome.OPERATOR
    assert scene.records == []
    assert scene.modes == ["INIT -> STOPPED"]


@pytest.mark.parametrize(("realtime", "commands"), [(False, 3), (True, 5)])
def test_operator_stop_on_the_last_tick_of_an_episode_resets_nothing(realtime, commands):
    scene = Scene(realtime=realtime, terminate_at=3, reset_periods=1, phase_ms=0.0)
    observe = scene.plant.observe

    def stop_when_done():
        seen = observe()
        if seen.done and seen.episode == scene.loop._episodes.awaited:
            scene.loop.stop("now")
        return seen

    scene.plant.observe = stop_when_done
    assert scene.run() is Outcome.OPERATOR
    assert scene.plant.seeds == [0]
    assert len([t for t, _ in scene.plant.commands if t >= 0]) == commands
    assert scene.rungs == "FRESH FRESH FRESH STOP"


def test_a_lost_plant_latches_and_is_reported_after_the_safe_command():
    scene = Scene(realtime=True, faults=dict.fromkeys(range(5, 999), "lost"), stop_after_s=0.1)
    with pytest.raises(PlantLost, match=r"stop latched at tick 14 after 0\.1 s: plant lost; the"):
        scene.loop.run(ticks=100_000)
    scene.check_invariant()
    assert scene.rungs == " ".join([*[F] * 5, *[H] * 9, *[S] * 101])
    assert scene.loop.outcome is Outcome.FAULT
    assert scene.modes == [
        "INIT -> HOLD",
        "HOLD -> RUN",
        "RUN -> HOLD",
        "HOLD -> FAULT",
        "FAULT -> STOPPED",
    ]
    assert [t for t, _ in scene.plant.commands if t >= 0] == list(range(116))


@pytest.mark.parametrize("realtime", [False, True])
@pytest.mark.parametrize("lasts", [range(5, 999), range(5, 6)], ids=["for good", "for a moment"])
def test_a_plant_that_says_it_failed_latches_at_once(realtime, lasts):
    scene = Scene(realtime=realtime, faults=dict.fromkeys(lasts, "failed"), linger_s=0.03)
    with pytest.raises(PlantFailed, match=r"^scripted failure$"):
        scene.loop.run(ticks=100)
    scene.check_invariant()
    stops = 4 if realtime else 1
    assert scene.rungs == " ".join([*[F] * 5, *[S] * stops]), "the linger ends the run"
    assert scene.records[5].mode is Mode.FAULT
    assert scene.records[5].reasons == Reason.PLANT_FAILED
    assert "RUN -> FAULT: plant failed (scripted failure)" in scene.events("mode")
    assert scene.loop.outcome is Outcome.FAULT


def test_a_plant_that_falls_silent_is_lost():
    faults = dict.fromkeys(range(5, 999), "stall")
    scene = Scene(realtime=True, faults=faults, stop_after_s=0.1, linger_s=0.0)
    with pytest.raises(PlantLost, match=r"stop latched at tick \d+ after 0\.1 s: stale; the safe"):
        scene.loop.run(ticks=100_000)
    scene.check_invariant()
    assert [r.rung for r in scene.records].count(Rung.STOP) == 1


def test_a_plant_that_takes_no_commands_is_lost():
    class Deaf(FakeRealTimePlant):
        def command(self, action, tick):
            if tick == 3:
                raise PlantLost("connection reset")
            super().command(action, tick)

    clock = VirtualClock()
    scene = Scene(plant=Deaf(clock), clock=clock)
    scene.run(ticks=6)
    assert scene.records[3].reasons == Reason.PLANT_LOST
    assert scene.events("plant") == ["PlantLost: connection reset"]
    assert [t for t, _ in scene.plant.commands if t >= 0] == [0, 1, 2, 4, 5, 6]


@pytest.mark.parametrize("method", ["reset", "observe"])
def test_a_plant_that_never_begins_ends_the_run(method):
    clock = VirtualClock()
    plant = FakeRealTimePlant(clock, reset_periods=10**6)
    if method == "observe":
        plant._faults = {0: "lost"}
    scene = Scene(plant=plant, clock=clock, reset_timeout_s=0.5)
    with pytest.raises(PlantLost, match=r"the plant began no episode within 0\.5 s of the reset"):
        scene.loop.run(ticks=10**6)
    assert scene.modes == ["INIT -> FAULT", "FAULT -> STOPPED"]
    assert len(plant.commands) == pytest.approx(51, abs=2)


def test_a_reset_that_takes_too_long_is_a_lost_plant():
    scene = Scene(
        realtime=True, episode_steps=3, reset_periods=1, reset_timeout_s=0.2, linger_s=0.05
    )
    reset = scene.plant.reset

    def slow_after_the_first(seed=None):
        reset(seed)
        scene.plant._reset_periods = 30

    scene.plant.reset = slow_after_the_first
    with pytest.raises(PlantLost, match="began no episode"):
        scene.loop.run()
    scene.check_invariant()
    rungs = [r.rung for r in scene.records]
    assert rungs.count(Rung.STOP) == 6
    assert rungs.count(Rung.HOLD) == pytest.approx(20, abs=1)


def test_a_latched_stop_keeps_the_safe_command_up_to_the_tick_limit():
    scene = Scene(realtime=True, outcomes=dict.fromkeys(range(9999), "late"), stop_after_s=0.1)
    assert scene.run(ticks=300) is Outcome.FAULT
    assert scene.rungs == " ".join([*[H] * 9, *[S] * 291])


@pytest.mark.parametrize(("realtime", "stops"), [(True, 6), (False, 1)])
def test_a_latched_stop_without_a_tick_limit_ends_the_run(realtime, stops):
    outcomes = dict.fromkeys(range(9999), "late")
    scene = Scene(realtime=realtime, outcomes=outcomes, stop_after_s=0.1, linger_s=0.05)
    assert scene.run(episodes=5) is Outcome.FAULT
    assert scene.rungs == " ".join([*[H] * 9, *[S] * stops])
    assert "late" in scene.loop.fault


def test_no_reset_follows_a_latched_stop():
    outcomes = dict.fromkeys(range(9999), "late")
    scene = Scene(realtime=True, outcomes=outcomes, stop_after_s=0.05, episode_steps=10)
    scene.run(ticks=40)
    assert scene.plant.seeds == [0]
    assert scene.records[-1].observation.done


@pytest.mark.parametrize("where", ["policy", "plant", "sink"])
def test_a_bug_of_ours_ends_the_run_with_the_safe_command(where):
    scene = Scene(realtime=True)

    def bug(*_):
        raise AssertionError("a bug of ours")

    if where == "policy":
        scene.policy._outcomes = {5: "bug"}
    elif where == "sink":
        tick = scene.sink.tick
        scene.sink.tick = lambda r: bug() if r.tick == 5 else tick(r)
    else:
        command = scene.plant.command
        scene.plant.command = lambda a, t: bug() if t == 5 else command(a, t)
    with pytest.raises(AssertionError, match="a bug of ours"):
        scene.loop.run(ticks=100)
    assert scene.plant.commands[-1][0] == 6
    assert scene.plant.commands[-1][1].tolist() == [0.0, 0.0]
    assert scene.events("mode")[-1] == "RUN -> STOPPED: run complete (error)"
    assert scene.loop.outcome is Outcome.ERROR


def test_the_slew_limit_holds_across_episodes_and_holds():
    scene = Scene(realtime=True, slew_per_s=5.0, outcomes={4: "late"}, episode_steps=8)
    scene.run(ticks=30)
    executed = np.array([r.executed for r in scene.records], np.float64)
    starts = [r.rung is Rung.FRESH for r in scene.records]
    for before, after, fresh in zip(executed, executed[1:], starts[1:], strict=False):
        assert not fresh or np.abs(after - before).max() <= 0.05 + 1e-6
    assert any(r.reasons & Reason.SLEW for r in scene.records)


def test_a_sink_that_drops_does_not_stop_the_loop(tmp_path):
    with StatusBoard(tmp_path / "status", create=True) as board:
        scene = Scene(status=board)
        scene.sink._capacity = 4
        scene.run(ticks=10)
        assert len(scene.records) == 4
        assert board.read()["dropped"] == 6
        assert board.read()["ticks"] == 10


def test_the_status_board_tells_what_the_records_tell(tmp_path):
    with StatusBoard(tmp_path / "status", create=True) as board:
        scene = Scene(
            status=board,
            outcomes={1: "late", 8: "refused"},
            costs_ns={4: round(2.5 * PERIOD)},
            terminate_at=5,
            local=True,
        )
        scene.run(ticks=20)
        shown = board.read()
    rungs = [r.rung for r in scene.records]
    assert shown["ticks"] == len(rungs)
    for rung in Rung:
        assert shown[rung.name.lower()] == rungs.count(rung)
    assert shown["local"] == 2
    assert shown["missed"] == missed(scene.records) == 2
    assert shown["skipped"] == 1
    assert shown["episodes"] == sum(r.observation.done for r in scene.records) == 3
    assert (shown["mode"], shown["finished"]) == (Mode.STOPPED, 1)
    assert shown["tick"] == 19
    assert shown["sent_ns"] == scene.records[-1].sent_ns


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate_hz": 0}, "> 0"),
        ({"answer_fraction": 1.5}, "<= 1"),
        ({"stop_after_s": -1}, "> 0"),
        ({"sched_fifo": "on"}, "sched_fifo"),
        ({"rate": 5}, "rate"),
        ({"cpu": -1}, ">= 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(settings, LoopConfig)


def test_a_safe_action_that_does_not_fit_is_refused_before_the_run():
    with pytest.raises(ConfigError, match="safe_action has 3 elements, expected 2"):
        Scene(safe_action=(0.0, 0.0, 0.0))


def test_seeds_of_episodes():
    assert [episode_seed(100, e) for e in range(3)] == [100, 101, 102]
    assert episode_seed(2**32 - 1, 1) == 0


def test_the_example_runs_at_its_own_rate():
    assert Scene().loop.period_ns == example_spec().period_ns


@pytest.mark.realtime
def test_it_keeps_its_deadlines_on_this_machine():
    clock = MonotonicClock()
    plant = FakeRealTimePlant(clock, episode_steps=10**6)
    sink = ListSink()
    config = LoopConfig()
    loop = ControlLoop(plant, FakePolicy(), sink, clock, config, seed=0)
    with realtime_section(config):
        clock.spin_ns = choose_pacer(config).spin_ns
        loop.run(ticks=300)
    lateness_us = np.array([r.wake_ns for r in sink.records]) / 1e3
    assert missed(sink.records) == 0
    assert np.percentile(lateness_us, 50) < 1000
    assert {r.rung for r in sink.records} == {Rung.FRESH}
    ages_ms = [(r.deadline_ns - r.observation.stamp_ns) / 1e6 for r in sink.records]
    assert np.percentile(ages_ms, 90) == pytest.approx(0.5)
