"""A person in the loop and a workspace around it, under a virtual clock, tick by tick."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from controller.chunk_settings import ChunkSettings, FallbackSettings
from controller.errors import PlantLost
from controller.feed.rows import RowKind
from controller.log import McapSink
from controller.log_reader import read_log
from controller.log_schema import DROPPED, LogHeader
from controller.loop import LoopConfig, Outcome
from controller.replay import refilter_of, replay
from controller.safety_settings import WorkspaceAxis, WorkspaceSettings
from controller.status import StatusBoard
from controller.teleop import TeleopCommand
from controller.teleop_settings import TeleopSettings
from controller.testing import FakePlant, FakePolicy
from controller.types import Mode, Reason, Rung
from tests.controller.test_loop import Scene, missed

AHEAD = {"ask": "ahead", "replan_every": 4}
CRISP = TeleopSettings(blend_s=0.0)
SOFT = TeleopSettings(blend_s=0.05)


class Person:
    """Drives in the given ticks, with a steady hand; engaged anew at each beginning."""

    def __init__(self, *spans, action=(0.5, -0.5), silent=()):
        self.spans, self.action, self.silent = spans, np.array(action, np.float32), silent
        self.tick, self.shown = -1, []

    def __call__(self, clock):
        self.clock = clock
        return self

    def poll(self):
        self.tick += 1
        engagement = next((n for n, (a, b) in enumerate(self.spans, 1) if a <= self.tick < b), 0)
        if self.tick in self.silent:
            return []
        return [TeleopCommand(self.action, self.clock.now_ns(), engagement, "ann", b"ann")]

    def show(self, standing):
        self.shown.append(standing)

    def close(self):
        pass


F, T, L, H, S, P = "FRESH", "TAIL", "LOCAL", "HOLD", "STOP", "HUMAN"
SCENES = {
    "takes over and hands back": ({}, [(3, 6)], [F, F, F, P, P, P, *[F] * 6], {}),
    "drives from the first tick": ({}, [(0, 2)], [P, P, *[F] * 10], {}),
    "drives to the end": ({}, [(9, 99)], [*[F] * 9, P, P, P], {}),
    "drives while the server is down": (
        {"outcomes": dict.fromkeys(range(2, 9), "silent")},
        [(4, 7)],
        [F, F, H, H, P, P, P, H, H, F, F, F],
        {3: Reason.UNREACHABLE, 4: Reason.NONE, 7: Reason.UNREACHABLE},
    ),
    "driving is no silence": (
        {"outcomes": dict.fromkeys(range(1, 12), "late"), "stop_after_s": 0.04},
        [(3, 9)],
        [F, H, H, *[P] * 6, H, H, H],
        {},
    ),
    "a latched stop wins": (
        {"outcomes": dict.fromkeys(range(1, 12), "late"), "stop_after_s": 0.02, "realtime": True},
        [(5, 9)],
        [F, H, *[S] * 10],
        {6: Reason.LATE},
    ),
    "nobody drives blind": (
        {"faults": dict.fromkeys(range(1, 8), "stall"), "max_age_s": 0.035},
        [(2, 11)],
        [F, F, P, P, H, H, H, H, P, P, P, F],
        {4: Reason.STALE},
    ),
    "a lost plant wins": (
        {"faults": {4: "lost", 5: "lost"}},
        [(3, 8)],
        [F, F, F, P, H, H, P, P, *[F] * 4],
        {4: Reason.PLANT_LOST},
    ),
    "an observation that is not finite does not stop a person": (
        {"faults": {4: "nan"}},
        [(3, 6)],
        [F, F, F, P, P, P, *[F] * 6],
        {},
    ),
    "the tail of the old chunk is stale": (
        {"outcomes": {6: "late"}, "horizon": 8},
        [(3, 6)],
        [F, F, F, P, P, P, H, *[F] * 5],
        {6: Reason.LATE},
    ),
    "the replica stands by": (
        {"outcomes": {6: "late"}, "local": True},
        [(3, 6)],
        [F, F, F, P, P, P, L, *[F] * 5],
        {6: Reason.LATE},
    ),
}


@pytest.mark.parametrize("realtime", [False, True])
@pytest.mark.parametrize("name", SCENES)
def test_who_acts(name, realtime):
    script, spans, rungs, reasons = SCENES[name]
    options = {"realtime": realtime, "teleop": Person(*spans), **script}
    scene = Scene(config=LoopConfig(**_settings(options, CRISP)), **options)
    scene.run(ticks=12)
    assert scene.rungs == " ".join(rungs)
    for tick, expected in reasons.items():
        assert scene.records[tick].reasons == expected
    for record in scene.records:
        stopped = Mode.FAULT if record.rung is Rung.STOP else Mode.HOLD
        assert record.mode is (Mode.RUN if record.rung.acts else stopped)
        if record.rung is Rung.HUMAN:
            assert record.executed.tolist() == [0.5, -0.5]
            assert (record.version, record.answer_tick, record.evaluations) == ("", -1, 0)
    assert missed(scene.records) == 0
    # The policy is left alone while a person drives.
    driven = {r.tick for r in scene.records if r.rung is Rung.HUMAN}
    assert driven.isdisjoint(request.tick for request in scene.policy.requests)


def _settings(options, teleop, **more):
    known = LoopConfig.__struct_fields__
    return {k: options.pop(k) for k in list(options) if k in known and k != "teleop"} | {
        "teleop": teleop,
        **more,
    }


def test_people_come_after_the_operator():
    scene = Scene(teleop=Person((0, 99)), config=LoopConfig(teleop=CRISP))
    act = scene.plant.command

    def command(action, tick):
        if tick == 4:
            scene.loop.stop("SIGTERM")
        act(action, tick)

    scene.plant.command = command
    assert scene.run() is Outcome.OPERATOR
    assert scene.rungs == "HUMAN HUMAN HUMAN HUMAN HUMAN STOP"


def test_a_person_drives_through_the_end_of_an_episode():
    scene = Scene(
        realtime=True, episode_steps=6, teleop=Person((2, 99)), config=LoopConfig(teleop=CRISP)
    )
    scene.run(ticks=16)
    assert scene.rungs == " ".join([F, F, P, P, P, P, H, H, H, H, *[P] * 6])
    assert {r.reasons for r in scene.records[6:10]} == {Reason.EPISODE}


def test_events_tell_who_drove_and_how_the_mode_went():
    outcomes = dict.fromkeys(range(5), "silent")
    person = Person((2, 4), (6, 99), silent=range(8, 99))
    teleop = TeleopSettings(blend_s=0.0, timeout_s=0.03)
    scene = Scene(outcomes=outcomes, teleop=person, config=LoopConfig(teleop=teleop))
    scene.run(ticks=14)
    assert scene.rungs == " ".join([H, H, P, P, H, F, *[P] * 5, F, F, F])
    assert scene.events("teleop") == [
        "ann took over",
        "ann handed back",
        "ann took over",
        "ann handed back: silent for 0.03 s",
    ]
    assert scene.events("mode")[:4] == [
        "INIT -> HOLD: episode begun",
        "HOLD -> RUN: person drives",
        "RUN -> HOLD: no action",
        "HOLD -> RUN: action ready",
    ]
    assert [s.rung.name for s in person.shown] == scene.rungs.split()
    assert [s.driver is not None for s in person.shown] == [r == P for r in scene.rungs.split()]


def test_the_status_board_counts_people(tmp_path):
    with StatusBoard(tmp_path / "status", create=True) as board:
        scene = Scene(status=board, teleop=Person((3, 8)), config=LoopConfig(teleop=CRISP))
        scene.run(ticks=10)
        assert board.read()["human"] == 5
        assert board.read()["fresh"] == 5


@pytest.mark.parametrize("chunks", [{}, AHEAD])
@pytest.mark.parametrize("realtime", [False, True])
@pytest.mark.parametrize("slew", [None, 5.0])
def test_no_jump_in_either_direction(realtime, chunks, slew):
    """Each command is at most a fifth of the way between the two, and of the slew limit."""
    teleop = Person((10, 30), (50, 60), action=(-1.0, 1.0))
    config = LoopConfig(teleop=SOFT, chunks=_chunks(chunks), slew_per_s=slew)
    scene = Scene(realtime=realtime, horizon=8, teleop=teleop, config=config, seed=3)
    scene.run(ticks=80)
    executed = np.array([r.executed for r in scene.records], np.float64)
    rungs = [r.rung for r in scene.records]
    assert rungs.count(Rung.HUMAN) == 30
    seams = [10, 30, 50, 60]
    jumps = np.abs(np.diff(executed, axis=0)).max(axis=1)
    for seam in seams:
        # 5 ticks of at most 2 / 5, and what the policy's own answer moves meanwhile.
        assert jumps[seam - 1 : seam + 6].max() <= 0.4 + 0.06
        assert all(r.reasons & Reason.BLENDED for r in scene.records[seam : seam + 4])
    assert not any(r.reasons & Reason.BLENDED for r in scene.records[15:30])
    if slew is not None:
        assert jumps[5:].max() <= 0.05 + 1e-6
    if not slew:
        assert executed[20].tolist() == [-1.0, 1.0]
        crisp = Scene(
            realtime=realtime,
            horizon=8,
            teleop=Person((10, 30), (50, 60), action=(-1.0, 1.0)),
            config=LoopConfig(teleop=CRISP, chunks=_chunks(chunks)),
            seed=3,
        )
        crisp.run(ticks=80)
        hard = np.array([r.executed for r in crisp.records], np.float64)
        assert np.abs(np.diff(hard, axis=0)).max() > 0.9


def _chunks(fields):
    return ChunkSettings(**fields)


def test_a_hand_back_to_a_policy_that_is_down_ends_in_the_safe_command_without_a_jump():
    scene = Scene(
        outcomes=dict.fromkeys(range(12, 40), "silent"),
        teleop=Person((5, 12), action=(1.0, 1.0)),
        config=LoopConfig(teleop=SOFT),
    )
    scene.run(ticks=20)
    executed = np.array([r.executed for r in scene.records], np.float64)
    assert executed[11].tolist() == [1.0, 1.0]
    assert executed[12:17, 0] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0], abs=1e-6)
    assert {r.rung for r in scene.records[12:]} == {Rung.HOLD}
    late = Reason.UNREACHABLE
    assert [r.reasons for r in scene.records[12:18]] == [*[late | Reason.BLENDED] * 5, late]


def test_at_an_emergency_the_safe_command_comes_at_once():
    scene = Scene(
        faults={8: "lost"},
        teleop=Person((2, 99), action=(1.0, 1.0)),
        config=LoopConfig(teleop=SOFT),
    )
    scene.run(ticks=16)
    executed = [r.executed.tolist() for r in scene.records]
    assert executed[7:9] == [[1.0, 1.0], [0.0, 0.0]]
    # And what was asked for all the time comes back softly.
    assert [e[0] for e in executed[9:14]] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


FENCE = WorkspaceSettings(
    (
        WorkspaceAxis("position.x", -0.05, 0.05, action=0),
        WorkspaceAxis("position.y", -0.05, 0.05, action=1),
    ),
    lookahead_s=0.1,
)
OPEN_FENCE = WorkspaceSettings((WorkspaceAxis("position.x", high=0.2),), lookahead_s=0.1)


class Origin(FakePlant):
    """Begins at 0, with a target that no fence has within."""

    def reset(self, seed=None):
        super().reset(seed)
        arrays = (np.zeros(2), np.ones(2))
        for array in arrays:
            array.flags.writeable = False
        self._now = replace(self._now, arrays=arrays)


def test_a_policy_is_kept_in_the_workspace():
    plant = Origin(episode_steps=500)
    scene = Scene(plant=plant, config=LoopConfig(workspace=FENCE))
    scene.run(ticks=100)
    places = np.array([r.observation.arrays[0] for r in scene.records])
    assert places.max() <= 0.05
    assert places.max() > 0.0499
    assert {r.rung for r in scene.records} == {Rung.FRESH}
    assert all(r.reasons & Reason.WORKSPACE for r in scene.records[5:])


def test_without_a_way_back_no_policy_acts_and_only_a_person_brings_it_back():
    plant = Origin(episode_steps=500)
    person = Person((90, 130), action=(-1.0, 0.0))
    config = LoopConfig(workspace=OPEN_FENCE, teleop=CRISP, stop_after_s=5.0)
    scene = Scene(plant=plant, teleop=person, config=config)
    # Something else moves the robot out: the wind.
    command = plant.command

    def gust(action, tick):
        command(action + np.float32([1.0, 0.0]) if 40 <= tick < 60 else action, tick)

    plant.command = gust
    scene.loop.run(ticks=140)
    rungs = [r.rung for r in scene.records]
    x = [float(r.observation.arrays[0][0]) for r in scene.records]
    assert x[60] > 0.2
    assert set(rungs[61:90]) == {Rung.HOLD}
    assert {r.reasons for r in scene.records[61:90]} == {Reason.WORKSPACE}
    assert set(rungs[90:130]) == {Rung.HUMAN}
    assert scene.records[90].reasons & Reason.WORKSPACE
    assert x[130] < 0.2
    assert Rung.FRESH in rungs[130:]
    assert "RUN -> HOLD: workspace left" in scene.events("mode")


def test_a_robot_that_stays_outside_latches_the_stop():
    plant = Origin(episode_steps=500)
    outside = WorkspaceSettings((WorkspaceAxis("position.x", low=0.5),))
    scene = Scene(
        plant=plant, realtime=False, config=LoopConfig(workspace=outside, stop_after_s=0.1)
    )
    assert scene.run(ticks=30) is Outcome.FAULT
    assert "workspace" in scene.loop.fault


def test_a_workspace_that_nobody_sees_stops_everybody():
    config = LoopConfig(workspace=FENCE, teleop=CRISP)
    scene = Scene(
        plant=Origin(episode_steps=500, faults={4: "nan"}), teleop=Person((2, 99)), config=config
    )
    scene.run(ticks=7)
    assert scene.rungs == "FRESH FRESH HUMAN HUMAN HOLD HUMAN HUMAN"
    assert scene.records[4].reasons == Reason.WORKSPACE


def test_a_ramp_leads_to_the_safe_command_at_the_end_of_a_run():
    config = LoopConfig(fallback=FallbackSettings(hold="last", ramp_s=0.05), slew_per_s=30.0)
    scene = Scene(realtime=True, config=config, seed=3)
    scene.run(ticks=5)
    sent = np.array([action for tick, action in scene.plant.commands if tick >= 4], np.float64)
    assert sent[-1].tolist() == [0.0, 0.0]
    assert np.abs(sent[0]).max() > 0.5
    assert np.abs(np.diff(sent, axis=0)).max() <= 0.3 + 1e-6
    ticks = [tick for tick, _ in scene.plant.commands]
    assert ticks == sorted(ticks)


LOGGED = LoopConfig(
    slew_per_s=(20.0, None),
    acceleration_per_s2=2000.0,
    teleop=SOFT,
    workspace=WorkspaceSettings((WorkspaceAxis("position.x", -0.9, 0.9, action=0),), 0.1),
)


def logged(path, config=LOGGED, drop=()):
    """Run with everything at once, a person among it, and read the log."""
    spec = FakePlant().spec
    about = LogHeader(
        spec=spec, mode="lockstep", rate_hz=spec.rate_hz, seed=3, safety=config.safety
    )
    sink = McapSink(path, about)
    outcomes = {5: "late", 6: "late", 7: "late", 34: "late", 35: "refused"}
    scene = Scene(
        teleop=Person((10, 18), (30, 34), action=(1.0, -1.0)),
        horizon=3,
        outcomes=outcomes,
        episode_steps=25,
        config=config,
        seed=3,
    )
    scene.run(ticks=70)
    for stamp_ns, kind, detail in scene.sink.events:
        sink.event(stamp_ns, kind, detail)
    for record in scene.records:
        if record.tick in drop:
            sink.event(
                0, DROPPED, f'{{"ticks":1,"events":0,"first":{record.tick},"last":{record.tick}}}'
            )
        else:
            sink.tick(record)
    sink.close()
    return read_log(path)


def policy_for(version):
    return FakePolicy(horizon=3, version=version)


def test_a_log_with_people_is_recomputed_bit_for_bit(tmp_path):
    log = logged(tmp_path / "log.mcap")
    reasons = np.bitwise_or.reduce(log.reasons)
    for reason in (Reason.BLENDED, Reason.ACCELERATION, Reason.SLEW):
        assert reasons & reason
    assert (log.rung == Rung.HUMAN).sum() == 12
    result = replay(log, policy_for, refilter_of(log))
    assert result.matched, str(result.first_mismatch)
    assert result.ticks_checked == len(log)


@pytest.mark.parametrize("lost", [{4}, {9}, {10}, {12}, {18}, {19}, {33}, {34, 35}, {25}, {40}])
def test_what_is_missing_from_a_log_is_never_held_against_it(tmp_path, lost):
    log = logged(tmp_path / "log.mcap", drop=lost)
    result = replay(log, policy_for, refilter_of(log))
    assert result.matched, str(result.first_mismatch)
    assert 0 < sum(result.skipped.values()) <= 20
    assert result.ticks_checked == len(log) - sum(result.skipped.values())


def test_another_limit_is_found_by_the_replay(tmp_path):
    path = tmp_path / "log.mcap"
    log = logged(path)
    other = msgspec.structs.replace(LOGGED.safety, acceleration_per_s2=1999.0)
    spec = log.header.spec
    sink = McapSink(
        tmp_path / "other.mcap",
        LogHeader(spec=spec, mode="lockstep", rate_hz=spec.rate_hz, seed=3, safety=other),
    )
    for record in log.records():
        sink.tick(record)
    sink.close()
    changed = read_log(tmp_path / "other.mcap")
    result = replay(changed, policy_for, refilter_of(changed))
    assert not result.matched
    assert result.first_mismatch.field == "executed"


def test_training_data_tells_interventions_apart(tmp_path):
    log = logged(tmp_path / "log.mcap")
    data = log.transitions().validate("log")
    human = data.info["kind"] == RowKind.HUMAN
    assert human.sum() == 12
    assert (data.info["rung"][human] == Rung.HUMAN).all()
    policy = data.info["kind"] == RowKind.POLICY
    assert (policy == (data.info["rung"] <= Rung.LOCAL)).all()
    assert policy.any()


def test_a_plant_that_is_lost_while_a_person_drives_ends_the_run():
    scene = Scene(
        realtime=True,
        faults=dict.fromkeys(range(4, 200), "lost"),
        teleop=Person((2, 999)),
        config=LoopConfig(teleop=CRISP, stop_after_s=0.1, linger_s=0.0),
    )
    with pytest.raises(PlantLost, match="plant lost"):
        scene.loop.run()
