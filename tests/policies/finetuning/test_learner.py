"""The live learner beside a scripted service: what it asks, saves, leaves, and survives."""

import json

import msgspec
import numpy as np
import pytest

from controller.clock import VirtualClock
from controller.errors import ConfigError
from controller.feed.rows import RowKind
from controller.replay_messages import Drawn
from policies import bundle
from policies.data.d4rl import write_d4rl
from policies.engine import load_policy
from policies.errors import BundleError, TrainingDiverged
from policies.finetuning.course import AHEAD, PAUSE_S, SEEK_S
from policies.finetuning.learner import learn
from policies.finetuning.settings import GateSettings
from policies.learning import Averaging, ConsistencySettings
from policies.metrics import read_lines
from policies.train_state import STATE, read_state
from tests.policies.finetuning.experience import (
    LAYOUT,
    changed,
    config,
    rows_of,
    to_the_right,
)
from tests.policies.robots import SPEC, toy_bundle, toy_data

ROWS = rows_of(toy_data(400, seed=2))
LOSS = ConsistencySettings(levels_end=5)


class Service:
    """Gives rows that depend on the number of the update alone, one batch for each draw.

    Args:
        rows: to draw from.
        until: updates that the rows allow; then no more come.
        batches: given at once.
        rollbacks: told from an update on: (update, version).
        trouble: called with the number of each ask; what it raises is a kill.
    """

    def __init__(self, rows=ROWS, until=40, batches=1, rollback=None, trouble=None):
        self.layout, self.asked = LAYOUT, False
        self.rows, self.until, self.batches = rows, until, batches
        self.rollback, self.trouble = rollback, trouble
        self.asks, self.gone, self.late, self.hungry = [], 0, 0, 0

    def ask_draw(self, batches, size, updates, version):
        if self.gone:
            self.gone -= 1
            return False
        self.asks.append((batches, size, updates, version))
        if self.trouble is not None:
            self.trouble(len(self.asks))
        self.asked = True
        return True

    def take_drawn(self, timeout_ns):
        if self.late:
            self.late -= 1
            return None
        self.asked = False
        _, size, updates, _ = self.asks[-1]
        count = min(self.batches, self.until - updates)
        if self.hungry:
            self.hungry, count = self.hungry - 1, 0
        taken_back = self.rollback is not None and updates >= self.rollback[0]
        drawn = Drawn(
            batches=count,
            size=size if count else 0,
            inserted=1000 + updates,
            rows=1000,
            allowed=self.until,
            version=self.rollback[1] if taken_back else "",
            rollbacks=int(taken_back),
            finished=updates >= self.until,
        )
        if not count:
            return drawn, None
        chosen = [
            np.random.default_rng((7, update)).integers(0, len(self.rows), size)
            for update in range(updates, updates + count)
        ]
        return drawn, self.rows[np.concatenate(chosen)]


class Killed(Exception):
    """The process was killed."""


def killed_at(ask):
    def trouble(number):
        if number == ask:
            raise Killed

    return trouble


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    return toy_bundle(tmp_path_factory.mktemp("store"), loss=LOSS)


@pytest.fixture
def settings(parent, tmp_path):
    return config(
        tmp_path / "out",
        parent=str(parent),
        updates=None,
        live=True,
        gate=GateSettings(every=10),
        save_every=10,
        log_every=5,
    )


def run(settings, service, stop=lambda: False, clock=None):
    return learn(settings, SPEC, service, clock or VirtualClock(), stop)


def state_of(settings):
    return read_state(bundle.Path(settings.out) / "learner")


def same_arrays(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def candidates(settings):
    found = (bundle.Path(settings.out) / "candidates").glob("v*")
    return sorted((bundle.read_manifest(path) for path in found), key=lambda m: m.training["steps"])


def test_it_learns_until_no_more_rows_come(settings):
    service = Service()
    course = run(settings, service)
    assert (course.improvement.updates, course.improvement.actor_updates) == (40, 35)
    # Those in hand count as done, so that the service never gives more than is allowed.
    assert [updates for _, _, updates, _ in service.asks] == list(range(41))
    assert {(batches, size) for batches, size, _, _ in service.asks} == {(AHEAD, 32)}
    assert state_of(settings).about["updates"] == 40


def test_candidates_come_at_their_times_and_tell_what_is_behind_them(settings, parent):
    run(settings, Service(until=25))
    made = candidates(settings)
    # The last one is what the last rows came to.
    assert [m.training["steps"] for m in made] == [10, 20, 25]
    assert [m.training["actor_updates"] for m in made] == [5, 15, 20]
    assert {m.parent for m in made} == {parent.name}
    assert made[0].training["rows"]["policy"] == {"rows": 10 * 32, "use": "imitate"}
    assert (made[0].data[0].role, made[0].data[0].rows) == ("log", 1009)
    assert len({m.data[0].digest for m in made}) == 3
    assert not (bundle.Path(settings.out) / "bundles").exists()
    newest = bundle.Path(settings.out) / "candidates" / made[-1].version
    assert load_policy(newest).version == made[-1].version


def test_it_says_which_version_it_improves_on(settings, parent):
    service = Service(until=25)
    run(settings, service)
    told = dict.fromkeys(version for *_, version in service.asks)
    assert list(told) == [parent.name, *(m.version for m in candidates(settings)[:2])]


def test_a_killed_learner_goes_on_to_the_same_end(settings, tmp_path):
    straight = msgspec.structs.replace(settings, out=str(tmp_path / "straight"))
    run(straight, Service())
    with pytest.raises(Killed):
        run(settings, Service(trouble=killed_at(27)))
    assert state_of(settings).about["updates"] == 20
    service = Service()
    run(settings, service)
    assert service.asks[0][2] == 20
    ours, theirs = state_of(settings), state_of(straight)
    same_arrays(ours.arrays, theirs.arrays)
    assert ours.about == theirs.about
    assert [m.version for m in candidates(settings)] == [m.version for m in candidates(straight)]
    steps = [
        line["step"] for line in read_lines(bundle.Path(settings.out) / "learner/metrics.jsonl")
    ]
    assert steps == list(range(5, 41, 5))


def test_a_stop_saves_and_leaves_no_half_candidate(settings):
    looks = iter([False] * 20)
    run(settings, Service(), stop=lambda: next(looks, True))
    done = state_of(settings).about["updates"]
    assert 0 < done < 20
    assert all(m.training["steps"] % 10 == 0 for m in candidates(settings))


def test_batches_of_one_draw_are_learned_one_by_one(settings, tmp_path):
    one = msgspec.structs.replace(settings, out=str(tmp_path / "one"))
    run(one, Service(until=24))
    run(settings, Service(until=24, batches=8))
    same_arrays(state_of(settings).arrays, state_of(one).arrays)


def test_critics_learn_from_offline_data_before_any_row_comes(settings, tmp_path, parent):
    write_d4rl(tmp_path / "data.hdf5", toy_data(300, seed=3), SPEC)
    service = Service()
    both = msgspec.structs.replace(settings, offline=str(tmp_path / "data.hdf5"))
    course = run(both, service)
    # The five of the critics are not among those that the rows allow.
    assert course.improvement.updates == 45
    assert course.improvement.actor_updates == 40
    assert service.asks[0][1:3] == (16, 0)
    made = candidates(settings)[0]
    assert [(d.role, d.rows) for d in made.data] == [("log", 1004), ("offline", 300)]


def test_without_rows_it_waits_instead_of_spinning(settings):
    service, clock = Service(until=5), VirtualClock()
    service.hungry = 50
    run(settings, service, clock=clock)
    assert clock.now_ns() >= 50 * PAUSE_S * 1e9
    assert len(service.asks) <= 50 + 5 + 2


def test_rows_that_teach_nobody_are_said_and_not_spun_on(settings, caplog):
    looks = iter([False] * 20)
    service, clock = Service(rows_of(toy_data(400), RowKind.UNAPPLIED)), VirtualClock()
    course = run(settings, service, stop=lambda: next(looks, True), clock=clock)
    assert course.improvement.updates == 0
    assert clock.now_ns() >= 19 * SEEK_S * 1e9
    (record,) = caplog.records
    assert "every row of a draw is dropped by rule" in record.message
    assert "unapplied (drop)" in record.message


def test_a_service_that_is_gone_is_sought_quietly(settings, caplog):
    service, clock = Service(until=5), VirtualClock()
    service.gone, service.late = 30, 3
    course = run(settings, service, clock=clock)
    assert course.improvement.updates == 5
    assert clock.now_ns() >= 30 * SEEK_S * 1e9
    assert not caplog.records


def test_a_version_that_was_taken_back_is_gone_on_from(settings, parent):
    store = bundle.Path(settings.out) / "bundles"
    bundle.publish(parent, store)
    course = run(settings, Service(until=20, rollback=(20, parent.name)))
    weights = bundle.load_bundle(parent).weights
    same_arrays(course.agent.policy_arrays(), weights)
    assert [m.training["steps"] for m in candidates(settings)] == [10, 20]
    assert state_of(settings).about["standing"]["rollbacks"] == 1
    # Heeded once: what it learns afterwards stays.
    again = run(settings, Service(until=30, rollback=(20, parent.name)))
    after = again.agent.policy_arrays()
    assert any(not np.array_equal(after[name], weights[name]) for name in weights)


def test_numbers_that_are_not_finite_end_it_and_nothing_good_is_lost(settings):
    run(settings, Service(until=20))
    good = (bundle.Path(settings.out) / "learner" / STATE).read_bytes()
    made = [m.version for m in candidates(settings)]
    absurd = changed(settings, actor_rate=1e30)
    with pytest.raises(TrainingDiverged, match="the state and the versions from before are"):
        run(absurd, Service(until=60))
    out = bundle.Path(settings.out)
    assert (out / "learner" / STATE).read_bytes() == good
    assert [m.version for m in candidates(settings)] == made
    assert json.loads((out / "diverged" / "what.json").read_bytes())["update"] > 20
    assert (out / "diverged" / "batch.safetensors").is_file()
    with pytest.raises(ConfigError, match=r"lower learn\.\w+_rate \(now"):
        run(absurd, Service(until=60))
    course = run(settings, Service(until=60))
    assert course.improvement.updates == 60


def test_a_weight_that_is_not_finite_never_reaches_a_candidate_or_a_state(settings, monkeypatch):
    from policies.finetuning.improving import Improvement

    plain = Improvement.update

    def update(self, lesson, **more):
        plain(self, lesson, **more)
        if self.updates == 10:
            next(iter(self.agent.learner.networks.values())).flat[0] = float("nan")

    monkeypatch.setattr(Improvement, "update", update)
    with pytest.raises(TrainingDiverged, match=r"a weight of .* is no longer finite at update 10"):
        run(settings, Service())
    assert candidates(settings) == []
    assert state_of(settings) is None


def test_the_state_of_another_fine_tuning_is_refused(settings, tmp_path):
    run(settings, Service(until=5))
    other = toy_bundle(tmp_path / "other", steps=5, loss=LOSS)
    with pytest.raises(BundleError, match=r"its parent is v0001-\w+, expected v0001-"):
        run(msgspec.structs.replace(settings, parent=str(other)), Service())


def test_metrics_tell_where_the_time_goes(settings):
    run(settings, Service(until=10))
    lines = read_lines(bundle.Path(settings.out) / "learner" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [5, 10]
    assert {"q_loss", "q", "updates_per_s", "waiting", "computing", "writing", "inserted"} <= set(
        lines[-1]
    )
    assert lines[-1]["inserted"] == 1009


def test_versions_behind_are_those_of_the_rows(settings):
    rows = ROWS.copy()
    rows[:, LAYOUT.number("version")] = np.where(np.arange(len(rows)) % 4 == 0, 3.0, 1.0)
    run(settings, Service(rows, until=10))
    lines = read_lines(bundle.Path(settings.out) / "learner" / "metrics.jsonl")
    # Three quarters of the rows are two versions behind the newest.
    assert lines[-1]["versions_behind"] == pytest.approx(2.0)


def test_live_rows_move_the_policy_to_the_better_action(tmp_path):
    """A bandit that pays for force to the right, explored evenly: nothing is imitated."""
    parent = toy_bundle(tmp_path / "parent", steps=300, loss=LOSS)
    strong = config(
        tmp_path / "out",
        {
            "critic_updates": 150,
            "actor_rate": 3e-3,
            "critic_rate": 3e-3,
            "batch": 128,
            "served": Averaging(decay=0.9),
        },
        parent=str(parent),
        updates=None,
        gate=GateSettings(every=10_000),
    )
    run(strong, Service(rows_of(to_the_right(2000), 3), until=400))
    (made,) = candidates(strong)
    rows = toy_data(100, seed=9).observations
    right = [
        np.mean([policy.act(row[None], 0, tick)[0, 0] for tick, row in enumerate(rows)])
        for policy in map(load_policy, (parent, tmp_path / "out" / "candidates" / made.version))
    ]
    assert right[1] > right[0] + 0.3
