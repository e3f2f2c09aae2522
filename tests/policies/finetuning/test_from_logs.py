"""Fine-tuning from logs: what learns when, from which rows, and what is published."""

import json
from dataclasses import replace

import numpy as np
import pytest

from controller.clock import VirtualClock
from controller.errors import ConfigError, DataError
from controller.feed.rows import RowKind
from controller.scores import figures as played
from policies import bundle
from policies.engine import load_policy
from policies.errors import BundleError, TrainingDiverged
from policies.finetuning.from_logs import finetune
from policies.finetuning.judging import Verdict
from policies.finetuning.settings import GateSettings, RowRules
from policies.finetuning.versions import Judged, Published, read_events
from policies.learning import Averaging, ConsistencySettings
from tests.policies.finetuning.experience import changed, config, logs_of, to_the_right, toy_log
from tests.policies.robots import toy_bundle, toy_data

LOSS = ConsistencySettings(levels_end=5)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    return bundle.load_bundle(toy_bundle(tmp_path_factory.mktemp("store"), loss=LOSS))


def weights_of(result):
    return bundle.load_bundle(result["bundle"]).weights


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_the_new_bundle_tells_where_it_comes_from(parent, tmp_path):
    logs, offline = toy_data(200, seed=2), toy_data(300, seed=3)
    result = finetune(config(tmp_path), parent, offline, logs=logs_of(logs))
    made = bundle.load_bundle(tmp_path / "bundles")
    assert result["version_before"] == parent.version == made.manifest.parent
    assert result["version_after"] == made.version
    assert made.version.startswith("v0002-")
    assert (result["updates"], result["actor_updates"], result["env_steps"]) == (10, 5, 200)
    assert result["versions"] == [parent.version, made.version]
    assert result["rejected_versions"] == 0
    entries = [(d.role, d.rows, d.digest) for d in made.manifest.data]
    assert entries == [("log", 200, logs.digest()), ("offline", 300, offline.digest())]
    assert made.manifest.training["rows"] == result["rows"]
    assert result["rows"]["policy"] == {"rows": 200, "use": "imitate"}
    assert same(made.codec.to_arrays(), parent.codec.to_arrays())
    assert load_policy(tmp_path / "bundles").version == made.version
    assert json.loads((tmp_path / "result.json").read_bytes()) == result


def test_it_reads_the_logs_of_runs(parent, tmp_path):
    for name in ("a", "b"):
        toy_log(tmp_path / "runs" / name / "log.mcap")
    settings = config(tmp_path, logs=str(tmp_path / "runs"))
    result = finetune(settings, parent)
    # Three episodes of 40 ticks in each run; an episode of six is held out.
    assert (result["env_steps"], result["held_out"]) == (2 * 3 * 39, 39)
    assert result["rows"]["fallback"]["use"] == "value"
    assert result["rows"]["fallback"]["rows"] > 0
    assert len(result["logs"]) == 2


def test_critics_learn_alone_first(parent, tmp_path):
    logs = logs_of(toy_data(200, seed=2))
    only = finetune(config(tmp_path / "a", {"critic_updates": 5}, updates=5), parent, logs=logs)
    assert only["actor_updates"] == 2, "at most half of the budget is the critics' alone"
    one = finetune(config(tmp_path / "b", updates=1), parent, logs=logs)
    assert one["actor_updates"] == 0
    assert same(weights_of(one), parent.weights)
    both = finetune(config(tmp_path / "c"), parent, logs=logs)
    assert not same(weights_of(both), parent.weights)
    assert np.isfinite([both["q_loss"], both["loss"], both["policy_loss"]]).all()


def test_critics_are_taken_over_by_the_next_generation(parent, tmp_path):
    logs = logs_of(toy_data(200, seed=2))
    first = finetune(config(tmp_path / "a"), parent, logs=logs)
    slow = config(tmp_path / "b", {"critic_rate": 1e-12})
    second = finetune(slow, bundle.load_bundle(first["bundle"]), logs=logs)
    assert second["version_after"].startswith("v0003-")
    before, after = (bundle.load_bundle(r["bundle"]).critics() for r in (first, second))
    assert all(np.allclose(before[k], after[k], atol=1e-6) for k in before)


def test_only_rows_by_rule_are_imitated(parent, tmp_path):
    """Absurd fallback actions must not reach L_c; without L_q nothing else moves the policy."""
    logs = toy_data(200, seed=2)
    acted = np.arange(200) % 2 == 0
    absurd = np.where(acted[:, None], logs.actions, np.float32(2.0))
    kinds = np.where(acted, RowKind.POLICY, RowKind.FALLBACK)
    results = {}
    for name, actions, rules in (
        ("plain", logs.actions, RowRules()),
        ("absurd", absurd, RowRules()),
        ("imitated", absurd, RowRules(fallback="imitate")),
    ):
        quiet = config(
            tmp_path / name, {"eta": 0.0, "critic_updates": 0, "actor_rate": 1e-3}, rows=rules
        )
        results[name] = finetune(quiet, parent, logs=logs_of(replace(logs, actions=actions), kinds))
    plain, absurd, imitated = (weights_of(result) for result in results.values())
    assert same(plain, absurd)
    assert not same(plain, imitated)
    assert results["plain"]["q_loss"] != results["absurd"]["q_loss"]


def test_rows_that_are_dropped_teach_nobody(parent, tmp_path):
    logs = toy_data(400, seed=2)
    kinds = np.where(np.arange(400) % 2 == 0, RowKind.POLICY, RowKind.UNAPPLIED)
    wild = np.where(kinds == RowKind.UNAPPLIED, 1e6, logs.rewards)
    results = [
        finetune(
            config(tmp_path / name, updates=4),
            parent,
            logs=logs_of(replace(logs, rewards=rewards), kinds),
        )
        for name, rewards in (("a", logs.rewards), ("b", wild))
    ]
    assert results[0]["q_loss"] == results[1]["q_loss"] < 1e3


def test_nothing_to_imitate_is_said(parent, tmp_path):
    logs = logs_of(toy_data(200), RowKind.FALLBACK)
    with pytest.raises(DataError, match="no row of the logs holds an action to imitate"):
        finetune(config(tmp_path), parent, logs=logs)
    result = finetune(config(tmp_path), parent, toy_data(50, seed=5), logs=logs)
    assert result["actor_updates"] == 5


def test_other_robots_and_policies_of_chunks_are_refused(parent, tmp_path):
    other = replace(toy_data(50), layout=(("observation", 6),))
    with pytest.raises(DataError, match="expected those of toy: position"):
        finetune(config(tmp_path / "out"), parent, other, logs=logs_of(toy_data(200)))
    chunks = bundle.load_bundle(toy_bundle(tmp_path / "chunks", loss=LOSS, horizon=3))
    with pytest.raises(BundleError, match="answers with 3 actions; expected a policy of one"):
        finetune(config(tmp_path / "out"), chunks, logs=logs_of(toy_data(200)))
    assert not (tmp_path / "out").exists()


def test_same_seed_same_bits(parent, tmp_path):
    logs, offline = logs_of(toy_data(200, seed=2)), toy_data(300, seed=3)
    names = [
        finetune(config(tmp_path / str(n), seed=seed), parent, offline, logs=logs)["version_after"]
        for n, seed in enumerate((1, 1, 2))
    ]
    assert names[0] == names[1] != names[2]


class TickingClock(VirtualClock):
    """A clock on which every look costs 0.1 s."""

    def now_ns(self):
        self.advance(100_000_000)
        return super().now_ns()


def test_a_budget_of_seconds_ends_it(parent, tmp_path):
    shares = []
    result = finetune(
        config(tmp_path, {"critic_updates": 1000}, updates=None, seconds=4.0),
        parent,
        logs=logs_of(toy_data(200)),
        on_progress=lambda done, total, figures: shares.append((done, total)),
        clock=TickingClock(),
    )
    # Two looks after each update, for the limit and for the bar: 0.2 n - 0.1 s at the first.
    assert result["updates"] == 21
    assert 9 <= result["actor_updates"] <= 11
    assert shares[-1] == (4000, 4000)


def test_it_stops_when_told_to_with_what_there_is(parent, tmp_path):
    looks = iter([False, False, True])
    result = finetune(
        config(tmp_path), parent, logs=logs_of(toy_data(200)), should_stop=lambda: next(looks)
    )
    assert (result["updates"], result["finished"]) == (3, False)
    assert bundle.load_bundle(result["bundle"]).version == result["version_after"]


def judged(verdict):
    return lambda *rest, **more: verdict


def test_a_refused_candidate_is_not_published(parent, tmp_path):
    settings = config(tmp_path, gate=GateSettings())
    verdict = Verdict(False, ("it is no good",), {"distance_mean": 0.9})
    result = finetune(settings, parent, logs=logs_of(toy_data(200)), judge=judged(verdict))
    assert result["version_after"] == result["version_before"] == parent.version
    assert (result["versions"], result["rejected_versions"]) == ([parent.version], 1)
    assert result["bundle"] == str(parent.path)
    assert result["reasons"] == ["it is no good"]
    assert not (tmp_path / "bundles").exists()
    (refused,) = result["rejected"]
    assert bundle.load_bundle(tmp_path / "candidates" / refused).manifest.parent == parent.version
    events = [e for e in read_events(tmp_path / "versions.jsonl") if isinstance(e, Judged)]
    assert [(e.version, e.outcome, e.reasons) for e in events] == [
        (refused, "refused", ("it is no good",))
    ]


def test_the_judge_sees_rows_that_no_update_saw(parent, tmp_path):
    data, seen = toy_data(400), []

    def judge(candidate, in_force, observations, settings, seed, *, act):
        seen.append((candidate.parent, in_force, observations))
        return Verdict(True)

    result = finetune(
        config(tmp_path, gate=GateSettings()), parent, logs=logs_of(data), judge=judge
    )
    ((store, in_force, observations),) = seen
    assert (store, in_force) == (tmp_path / "candidates", parent.path)
    assert len(observations) == result["held_out"] == 50
    kinds = [type(e) for e in read_events(tmp_path / "versions.jsonl")]
    assert kinds[-2:] == [Judged, Published]


def test_a_small_step_passes_the_judge_of_the_gate_and_a_wild_one_does_not(parent, tmp_path):
    logs = logs_of(toy_data(600))
    good = finetune(config(tmp_path / "a", gate=GateSettings()), parent, logs=logs)
    assert good["rejected_versions"] == 0, good["reasons"]
    assert good["judged"]["distance_mean"] < 0.05
    wild = config(
        tmp_path / "b",
        {"actor_rate": 0.3, "served": Averaging(every=0), "critic_updates": 0},
        gate=GateSettings(),
        updates=40,
    )
    bad = finetune(wild, parent, logs=logs)
    assert bad["rejected_versions"] == 1
    assert bad["judged"]["distance_mean"] > 0.25


@pytest.mark.parametrize(("after", "kept"), [(10.0, False), (19.0, True), (30.0, True)])
def test_simulation_has_the_last_word(parent, tmp_path, after, kept):
    def score(path):
        mean = 20.0 if path == parent.path else after
        returns = mean + np.linspace(-0.5, 0.5, 5)
        return played(returns, np.full(5, 7), None, (0.0, 100.0))

    settings = config(tmp_path, gate=GateSettings())
    good = judged(Verdict(True))
    result = finetune(settings, parent, logs=logs_of(toy_data(200)), score=score, judge=good)
    assert result["before"]["score_mean"] == pytest.approx(20.0)
    assert result["after"]["score_mean"] == pytest.approx(after if kept else 20.0)
    assert result["rejected_versions"] == (not kept)
    if not kept:
        assert (
            "mean return 10 over 5 episodes in simulation, 20 of the parent" in result["reasons"][0]
        )


def test_numbers_that_are_not_finite_end_it_and_the_batch_is_kept(parent, tmp_path):
    absurd = config(tmp_path, {"actor_rate": 1e30, "critic_updates": 0}, updates=50)
    logs = logs_of(toy_data(200))
    with pytest.raises(TrainingDiverged, match=r"no longer finite at update \d+: lower learn\."):
        finetune(absurd, parent, logs=logs)
    assert not (tmp_path / "bundles").exists()
    facts = json.loads((tmp_path / "diverged" / "what.json").read_bytes())
    assert facts["learn"]["actor_rate"] == 1e30
    kept = bundle._arrays(tmp_path / "diverged", "batch.safetensors")
    assert kept["action"].shape == (1, 32, 2)
    with pytest.raises(ConfigError, match="with these very settings: lower learn"):
        finetune(absurd, parent, logs=logs)
    assert finetune(changed(absurd, actor_rate=1e-4), parent, logs=logs)["updates"] == 50


def test_value_moves_the_policy_uphill(tmp_path):
    """Reward for force to the right: after fine-tuning the force points further right."""
    parent = bundle.load_bundle(toy_bundle(tmp_path / "parent", steps=300, loss=LOSS))
    strong = config(
        tmp_path,
        {
            "eta": 1.0,
            "imitation": 0.5,
            "critic_updates": 150,
            "actor_rate": 3e-3,
            "critic_rate": 3e-3,
            "batch": 128,
            "served": Averaging(decay=0.9),
        },
        updates=400,
    )
    result = finetune(strong, parent, logs=logs_of(to_the_right(2000)))
    rows = toy_data(100, seed=9).observations
    right = [
        np.mean([load.act(row[None], 0, tick)[0, 0] for tick, row in enumerate(rows)])
        for load in (load_policy(parent.path), load_policy(result["bundle"]))
    ]
    assert right[1] > right[0] + 0.3


def test_without_a_limit_there_is_one(parent, tmp_path):
    """Updates are then 5 000 beyond those of the critics; the bar knows."""
    totals = []
    finetune(
        config(tmp_path, updates=None),
        parent,
        logs=logs_of(toy_data(200)),
        on_progress=lambda done, total, figures: totals.append(total),
        should_stop=lambda: True,
    )
    assert totals == [5_005]
