"""The gate with everything around it scripted: order, refusals, rollbacks, and every kill."""

import os

import msgspec
import pytest

from controller.clock import VirtualClock
from controller.errors import PeerTimeout
from policies.bundle import publish, resolve
from policies.finetuning import gate as gate_module
from policies.finetuning.gate import Gate
from policies.finetuning.settings import FinetuneConfig, GateSettings
from policies.finetuning.versions import (
    Finished,
    Judged,
    Placed,
    Proven,
    Published,
    Restarted,
    RolledBack,
    read_events,
)
from policies.metrics import read_lines
from sim.errors import SimulationUnstable
from tests.policies.finetuning.constants import constant, weights_of
from tests.policies.finetuning.desk import (
    Killed,
    ScriptedScores,
    ScriptedServer,
    ScriptedService,
    refused,
)

QUIET = GateSettings(sim_episodes=0, score_every=0, window=3)
S = 1_000_000_000


def kill(*words, **fields):
    """Stand in for what the gate was about to do."""
    raise Killed


class Scene:
    """A gate with its surroundings; ``again`` is the same after a kill.

    Candidates are published with rising times, so that their order is that of their making.
    """

    def __init__(self, out, settings=QUIET, scores=None, first=(0.0, 0.0)):
        self.out, self.log, self.scores = out, [], scores
        self.clock = VirtualClock(100 * S)
        self.config = FinetuneConfig(out=str(out), gate=settings)
        self.store, self.candidates = out / "bundles", out / "candidates"
        self.first = publish(constant(out / "parent", *first), self.store).name
        self.service = ScriptedService(self.log, self.first)
        self.server = ScriptedServer(self.log, self.first)
        self.servers = [self.server]
        self._made = 0
        self.again()

    def again(self):
        self.gate = Gate(self.config, self.service, self.servers, self.scores, self.clock)

    def candidate(self, *encoded, parent=None, **about):
        """Have the learner leave a candidate, and return its version."""
        self._made += 1
        path = constant(
            self.candidates,
            *encoded,
            parent=self.store / (parent or self.gate.standing.in_force),
            updates=self._made,
            **about,
        )
        os.utime(path / "manifest.json", ns=(self._made * S, self._made * S))
        return path.name

    def settle(self, turns=20):
        """Take turns until there is nothing to do."""
        for _ in range(turns):
            if not self.gate.turn():
                return
        raise AssertionError("there is no end to it")

    def events(self, *kinds):
        return [e for e in read_events(self.out / "versions.jsonl") if isinstance(e, kinds)]

    @property
    def in_force(self):
        """The version that everybody has, and that is current."""
        everybody = {
            self.gate.standing.in_force,
            self.service.in_force,
            resolve(self.store).name,
            *(server.in_force for server in self.servers),
        }
        assert len(everybody) == 1, everybody
        return everybody.pop()


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


def test_a_good_candidate_is_published_in_order(scene):
    scene.settle()
    assert scene.log == []
    scene.service.inserted = 500
    before_ns = scene.clock.now_ns()
    scene.server.seen = lambda: (
        # The store has it, and the time was taken, before the server is asked.
        scene.log.append(("current", resolve(scene.store).name)),
        scene.log.append(("stamped", scene.events(Published)[-1].published_ns)),
    )
    version = scene.candidate(0.1, 0.1)
    scene.settle()
    assert scene.log == [
        ("draw", 256),
        ("swap", version),
        ("current", version),
        ("stamped", before_ns),
        ("publish", version),
    ]
    assert scene.in_force == version
    [judged], [published], [placed] = (scene.events(k) for k in (Judged, Published, Placed))
    assert (judged.outcome, judged.parent, judged.against) == ("accepted",) + 2 * (scene.first,)
    assert (judged.updates, judged.env_steps, judged.figures["rows"]) == (1, 500, 256)
    assert judged.figures["distance_mean"] == pytest.approx(0.05, rel=1e-5)
    assert (published.version, published.updates, published.env_steps) == (version, 1, 500)
    assert placed.version == version


def test_with_few_rows_candidates_are_judged_on_golden_observations(scene):
    scene.service.inserted = 255
    scene.candidate(0.1, 0.1)
    scene.settle()
    assert scene.events(Judged)[0].figures["rows"] == 8


def test_a_bad_candidate_is_refused_and_nobody_hears_of_it(scene):
    scene.candidate(0.9, 0.9)
    scene.settle()
    assert scene.log == [("draw", 256)]
    assert scene.in_force == scene.first
    [judged] = scene.events(Judged)
    assert judged.outcome == "refused"
    assert "of the range away" in judged.reasons[0]
    assert scene.events(Published, Placed) == []


def test_only_the_newest_candidate_is_judged(scene):
    versions = [scene.candidate(0.1 * n, 0.0) for n in (1, 2, 3)]
    scene.settle()
    outcomes = [(e.version, e.outcome) for e in scene.events(Judged)]
    assert outcomes == list(zip(versions, ["superseded", "superseded", "accepted"], strict=True))
    assert scene.in_force == versions[2]
    assert len(scene.events(Published)) == 1


def test_a_candidate_like_a_published_version_is_passed_over(scene):
    version = scene.candidate(0.1, 0.0)
    scene.settle()
    scene.candidate(0.0, 0.0, parent=scene.first)
    assert scene.candidate(0.1, 0.0, parent=scene.first) == version
    scene.settle()
    assert scene.in_force != scene.first
    assert len(scene.events(Published)) <= 2


def test_a_candidate_that_cannot_be_read_is_refused(scene):
    version = scene.candidate(0.1, 0.0)
    (scene.candidates / version / "manifest.json").write_text("{}")
    scene.settle()
    [judged] = scene.events(Judged)
    assert (judged.version, judged.outcome) == (version, "refused")
    assert "format is None" in judged.reasons[0]
    damaged = scene.candidate(0.2, 0.0)
    (scene.candidates / damaged / "weights.safetensors").write_bytes(b"")
    scene.settle()
    assert "0 bytes, manifest says" in scene.events(Judged)[-1].reasons[0]
    weights = weights_of(float("nan"), 0.0)
    scene.candidate(weights=weights)
    scene.settle()
    assert "not finite" in scene.events(Judged)[-1].reasons[0]
    assert scene.in_force == scene.first


def test_with_the_gate_off_each_is_published_at_once_and_none_comes_back(tmp_path):
    off = msgspec.structs.replace(QUIET, on=False)
    scene = Scene(tmp_path, off)
    version = scene.candidate(1.0, 1.0)
    scene.service.live(scene.first, *[100] * 5)
    scene.service.live(version, *[1] * 5)
    scene.settle()
    assert scene.log == [("swap", version), ("publish", version)]
    assert scene.events(Judged)[0].outcome == "unjudged"
    assert scene.events(RolledBack) == []
    assert scene.in_force == version


def test_a_version_that_fails_on_the_robot_is_taken_back(scene):
    scene.service.live(scene.first, 100, 101, 99)
    version = scene.candidate(0.1, 0.1)
    scene.settle()
    scene.service.live(version, 10, 11)
    scene.settle()
    assert scene.in_force == version
    scene.service.live(version, 12)
    del scene.log[:]
    scene.settle()
    assert scene.log == [("swap", scene.first), ("rollback", scene.first)]
    assert scene.in_force == scene.first
    [back] = scene.events(RolledBack)
    assert (back.version, back.to, back.dropped) == (version, scene.first, (version,))
    assert back.why.startswith("mean return 11 over the last 3 episodes, below 100 of")
    # What the learner left before it heard of it is no better.
    child = scene.candidate(0.12, 0.1, parent=version)
    scene.settle()
    judged = scene.events(Judged)[-1]
    assert (judged.version, judged.outcome) == (child, "refused")
    assert judged.reasons == (f"descends from {version}, which was taken back",)
    better = scene.candidate(0.05, 0.0, parent=scene.first)
    scene.settle()
    assert scene.in_force == better


def test_a_failing_lineage_goes_back_to_the_last_version_that_was_proven(scene):
    scene.service.live(scene.first, 100, 100, 100)
    proven = scene.candidate(0.1, 0.0)
    scene.settle()
    scene.service.live(proven, 200, 201, 199)
    scene.settle()
    assert [e.version for e in scene.events(Proven)] == [proven]
    line = []
    for n in (2, 3):
        line.append(scene.candidate(0.1 * n, 0.0))
        scene.settle()
        scene.service.live(line[-1], 120, 121)
    scene.settle()
    [back] = scene.events(RolledBack)
    assert (back.to, back.dropped) == (proven, tuple(line))
    assert scene.in_force == proven


def test_simulation_has_the_last_word_on_the_same_episodes(tmp_path):
    scores = ScriptedScores()
    settings = msgspec.structs.replace(QUIET, sim_episodes=5, sim_drop=0.1)
    scene = Scene(tmp_path, settings, scores)
    good, bad = scene.candidate(0.1, 0.0), None
    scores.returns[good] = 95.0
    scene.settle()
    assert scene.in_force == good
    figures = scene.events(Judged)[-1].figures
    assert (figures["return_mean"], figures["return_mean_in_force"]) == (95.0, 100.0)
    bad = scene.candidate(0.2, 0.0)
    scores.returns[bad] = 80.0
    scene.settle()
    assert scene.in_force == good
    [reason] = scene.events(Judged)[-1].reasons
    assert reason.startswith("mean return 80 over 5 episodes in simulation, 95 of the version in f")
    # The version in force had been played, as a candidate, on the same episodes.
    first, second, third = scores.played
    assert [one[0] for one in scores.played] == [scene.first, good, bad]
    assert first[1:] == second[1:] == third[1:]
    # After a refusal both play other episodes.
    other = scene.candidate(0.3, 0.0)
    scene.settle()
    fourth, fifth = scores.played[3:]
    assert (fourth[0], fifth[0]) == (good, other)
    assert fourth[1:] == fifth[1:] != first[1:]


def test_what_fails_off_line_is_not_simulated(tmp_path):
    scores = ScriptedScores()
    scene = Scene(tmp_path, msgspec.structs.replace(QUIET, sim_episodes=5), scores)
    scene.candidate(1.0, 1.0)
    scene.settle()
    assert scores.played == []


def test_a_candidate_that_breaks_the_simulation_is_refused(tmp_path):
    scores = ScriptedScores()
    scene = Scene(tmp_path, msgspec.structs.replace(QUIET, sim_episodes=5), scores)
    version = scene.candidate(0.1, 0.0)
    scores.trouble[version] = SimulationUnstable("arm: broke down")
    scene.settle()
    assert scene.events(Judged)[0].reasons == ("its simulation broke down",)
    assert scene.in_force == scene.first


def test_a_parent_without_episodes_is_measured_in_simulation(tmp_path):
    scores = ScriptedScores()
    scene = Scene(tmp_path, msgspec.structs.replace(QUIET, sim_episodes=5), scores)
    version = scene.candidate(0.1, 0.0)
    scene.settle()
    scene.service.live(version, 10, 10, 10)
    scene.settle()
    assert scene.in_force == scene.first


def test_after_many_refusals_the_learner_is_sent_back(tmp_path):
    scene = Scene(tmp_path, msgspec.structs.replace(QUIET, patience=2))
    for n in range(5):
        scene.candidate(0.9, 0.5 + 0.05 * n)
        scene.settle()
    assert [entry for entry in scene.log if entry[0] != "draw"] == [("restart", scene.first)] * 2
    assert len(scene.events(Restarted)) == 2


POINTS = [
    ("server", "before"),
    ("server", "after"),
    ("service", "publish"),
]


@pytest.mark.parametrize(("who", "where"), POINTS)
def test_a_gate_killed_while_it_publishes_does_it_again(scene, who, where):
    version = scene.candidate(0.1, 0.0)
    getattr(scene, who).kill = where
    with pytest.raises(Killed):
        scene.settle()
    scene.again()
    scene.settle()
    assert scene.in_force == version
    assert [e.version for e in scene.events(Published, Placed)] == [version, version]
    # Whoever had it was not asked again.
    asked = [entry for entry in scene.log if entry[0] != "draw"]
    assert asked == [("swap", version), ("publish", version)]
    scene.again()
    scene.settle()
    assert len(scene.log) == 3


@pytest.mark.parametrize("step", ["publish", "write_published"])
def test_a_gate_killed_between_judging_and_publishing_publishes(scene, monkeypatch, step):
    version = scene.candidate(0.1, 0.0)

    with monkeypatch.context() as patched:
        if step == "publish":
            patched.setattr(gate_module, "publish", kill)
        else:
            patched.setattr(gate_module, "Published", kill)
        with pytest.raises(Killed):
            scene.settle()
    assert scene.events(Judged)[0].outcome == "accepted"
    scene.again()
    scene.settle()
    assert scene.in_force == version
    assert len(scene.events(Judged)) == 1


def test_what_was_accepted_and_is_gone_is_given_up(scene, monkeypatch):
    version = scene.candidate(0.1, 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(gate_module, "publish", kill)
        with pytest.raises(Killed):
            scene.settle()
    (scene.candidates / version / "weights.safetensors").unlink()
    scene.again()
    scene.settle()
    assert scene.in_force == scene.first
    assert scene.gate.standing.accepted == ""
    following = scene.candidate(0.2, 0.0)
    scene.settle()
    assert scene.in_force == following


@pytest.mark.parametrize(("who", "where"), [*POINTS[:2], ("service", "rollback")])
def test_a_gate_killed_while_it_takes_back_does_it_again(scene, who, where):
    scene.service.live(scene.first, 100, 100, 100)
    version = scene.candidate(0.1, 0.0)
    scene.settle()
    scene.service.live(version, 1, 1, 1)
    getattr(scene, who).kill = where
    del scene.log[:]
    with pytest.raises(Killed):
        scene.settle()
    scene.again()
    scene.settle()
    assert scene.in_force == scene.first
    assert scene.log == [("swap", scene.first), ("rollback", scene.first)]
    assert len(scene.events(RolledBack)) == 1


def test_a_server_that_is_away_is_brought_up_to_date_when_it_is_back(scene):
    scene.settle()
    scene.server.trouble = PeerTimeout("server: no answer")
    version = scene.candidate(0.1, 0.0)
    scene.settle()
    assert scene.service.in_force == version
    assert scene.events(Placed) == []
    later = scene.candidate(0.2, 0.0)
    scene.settle()
    scene.server.trouble = None
    scene.clock.advance(3 * S)
    scene.settle()
    assert scene.in_force == later
    assert [e.version for e in scene.events(Placed)] == [later]


def test_a_version_that_servers_refuse_again_and_again_is_taken_back(scene):
    scene.settle()
    scene.server.trouble = refused()
    version = scene.candidate(0.1, 0.0)
    for _ in range(2):
        scene.settle()
        scene.clock.advance(3 * S)
    assert scene.gate.standing.in_force == version
    scene.settle()
    [back] = scene.events(RolledBack)
    assert (back.to, back.dropped) == (scene.first, (version,))
    assert back.why == "it cannot be served: server: swap: no good"
    scene.server.trouble = None
    scene.clock.advance(3 * S)
    scene.settle()
    assert scene.in_force == scene.first


def test_a_replay_service_that_is_away_is_told_when_it_is_back(scene):
    scene.settle()
    version = scene.candidate(0.1, 0.0)
    scene.server.seen = lambda: setattr(scene.service, "dead", True)
    with pytest.raises(PeerTimeout):
        scene.settle()
    assert scene.server.in_force == version
    scene.service.dead = False
    scene.clock.advance(3 * S)
    scene.settle()
    assert scene.in_force == version


def test_a_service_that_forgot_the_version_in_force_is_told_again(scene):
    version = scene.candidate(0.1, 0.0)
    scene.settle()
    scene.service.in_force = scene.first
    scene.again()
    scene.settle()
    assert scene.in_force == version


def test_the_learning_curve(tmp_path):
    scores = ScriptedScores()
    settings = msgspec.structs.replace(QUIET, score_every=100, score_episodes=4)
    scene = Scene(tmp_path, settings, scores)
    scene.settle()
    scene.service.inserted = 99
    scene.settle()
    version = scene.candidate(0.1, 0.0)
    scores.returns[version] = 150.0
    scene.service.live(scene.first, 7, 9)
    scene.settle()
    scene.service.inserted = 190
    scene.again()
    scene.settle()
    scene.service.inserted = 350
    scene.settle()
    scene.gate.finish()
    points = read_lines(tmp_path / "curve.jsonl")
    assert [point["env_steps"] for point in points] == [0, 119, 350]
    assert [point["version"] for point in points] == [scene.first, version, version]
    assert [point["return_mean"] for point in points] == [100.0, 150.0, 150.0]
    assert [point["score_mean"] for point in points] == [50.0, 75.0, 75.0]
    assert [point["training_return_mean"] for point in points] == [None, 8.0, 8.0]
    assert set(points[0]) == {
        "env_steps",
        "wall_s",
        "updates",
        "version",
        "return_mean",
        "return_std",
        "score_mean",
        "success",
        "training_return_mean",
    }
    assert all(0 <= point["wall_s"] < 60 and point["updates"] == 7 for point in points)
    # Every version plays the same episodes.
    assert len({one[1:] for one in scores.played}) == 1


def test_the_curve_goes_on_after_a_kill_within_a_line(tmp_path):
    settings = msgspec.structs.replace(QUIET, score_every=100)
    scene = Scene(tmp_path, settings, ScriptedScores())
    scene.settle()
    with (tmp_path / "curve.jsonl").open("ab") as stream:
        stream.write(b'{"env_steps":1')
    scene.again()
    scene.service.inserted = 100
    scene.settle()
    assert [p["env_steps"] for p in read_lines(tmp_path / "curve.jsonl")] == [0, 100]


def test_a_candidate_comes_before_a_score(tmp_path):
    scores = ScriptedScores()
    scene = Scene(tmp_path, msgspec.structs.replace(QUIET, score_every=100), scores)
    version = scene.candidate(0.1, 0.0)
    scene.settle()
    assert [one[0] for one in scores.played] == [version]


def test_old_versions_leave_the_disk_but_for_those_that_may_come_back(tmp_path):
    scene = Scene(tmp_path, msgspec.structs.replace(QUIET, keep=2))
    versions = []
    for n in range(5):
        versions.append(scene.candidate(0.1 * n + 0.05, 0.0))
        scene.settle()
        if n == 1:
            scene.service.live(scene.first, 1, 1, 1)
            scene.service.live(versions[1], 5, 5, 5)
            scene.settle()
    assert scene.gate.standing.good == versions[1]
    kept = {path.parent.name for path in scene.store.glob("v*/manifest.json")}
    assert kept == {scene.first, versions[1], versions[3], versions[4]}
    refused = []
    for n in range(4):
        refused.append(scene.candidate(-1.0, 0.05 * n))
        scene.settle()
    assert scene.events(Judged)[-1].outcome == "refused"
    left = {path.parent.name for path in scene.candidates.glob("v*/manifest.json")}
    assert left == set(refused[2:])
    # They are not judged again because of it.
    scene.again()
    scene.settle()
    assert scene.in_force == versions[4]


def test_it_ends_when_the_learner_has_and_everything_is_judged(tmp_path, monkeypatch):
    settings = msgspec.structs.replace(QUIET, score_every=100)
    scene = Scene(tmp_path, settings, ScriptedScores())
    monkeypatch.setattr(gate_module.time, "sleep", lambda s: scene.clock.advance(round(s * S)))
    scene.service.finished = True
    turns, last = [], None

    def stop():
        nonlocal last
        turns.append(1)
        if len(turns) == 30:
            last = scene.candidate(0.1, 0.0)
            scene.service.learner = False
        return len(turns) > 100

    scene.gate.run(stop)
    assert 30 < len(turns) < 60
    assert scene.in_force == last
    assert [e.version for e in scene.events(Finished)] == [last]
    assert read_lines(tmp_path / "curve.jsonl")[-1]["version"] == last


def test_it_waits_for_a_service_that_does_not_answer(scene, monkeypatch, caplog):
    monkeypatch.setattr(gate_module.time, "sleep", lambda s: scene.clock.advance(round(s * S)))
    scene.service.dead = True
    turns = []
    scene.gate.run(lambda: turns.append(1) or len(turns) > 10)
    assert caplog.text.count("replay: no answer") == 1
    assert scene.events(Finished) == []


def test_from_scratch_the_first_candidate_is_the_first_version(tmp_path):
    (tmp_path / "made").mkdir()
    scene = Scene.__new__(Scene)
    scene.out, scene.log, scene.scores = tmp_path, [], None
    scene.clock = VirtualClock(100 * S)
    scene.config = FinetuneConfig(out=str(tmp_path), gate=QUIET)
    scene.store, scene.candidates = tmp_path / "bundles", tmp_path / "candidates"
    scene.service, scene.servers = ScriptedService(scene.log), []
    scene.again()
    scene.settle()
    path = constant(scene.candidates, 0.9, 0.9)
    scene.settle()
    assert scene.in_force == path.name
    assert scene.log == [("draw", 256), ("publish", path.name)]
