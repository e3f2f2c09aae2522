"""Fine-tuning: what learns when, from which rows, and that value moves the policy."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from controller.clock import VirtualClock
from controller.errors import DataError
from policies import bundle
from policies.engine import load_policy
from policies.errors import BundleError
from policies.finetune import finetune
from policies.learning import ConsistencySettings
from policies.settings import FinetuneConfig
from tests.policies.robots import toy_bundle, toy_data

LOSS = ConsistencySettings(levels_end=5)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    return toy_bundle(tmp_path_factory.mktemp("store"), loss=LOSS)


def config(**changes):
    fields = {"updates": 10, "seconds": None, "batch": 32, "seed": 1} | changes
    return FinetuneConfig(**fields)


def weights_of(path):
    return bundle.load_bundle(path).weights


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_the_new_bundle_tells_where_it_comes_from(parent, tmp_path):
    logs, offline = toy_data(200, seed=2), toy_data(300, seed=3)
    result = finetune(config(), logs, offline, tmp_path, parent=parent)
    made = bundle.load_bundle(tmp_path)
    assert result["version_before"] == parent.name == made.manifest.parent
    assert result["version_after"] == made.version
    assert made.version.startswith("v0002-")
    assert (result["updates"], result["actor_updates"], result["transitions"]) == (10, 5, 200)
    entries = [(d.role, d.rows, d.digest) for d in made.manifest.data]
    assert entries == [("log", 200, logs.digest()), ("offline", 300, offline.digest())]
    assert same(made.codec.to_arrays(), bundle.load_bundle(parent).codec.to_arrays())
    assert load_policy(tmp_path).version == made.version


def test_critics_learn_alone_first(parent, tmp_path):
    logs = toy_data(200, seed=2)
    only = finetune(config(warmup=1.0), logs, None, tmp_path / "a", parent=parent)
    assert only["actor_updates"] == 0
    assert same(weights_of(only["bundle"]), weights_of(parent))
    both = finetune(config(), logs, None, tmp_path / "b", parent=parent)
    assert not same(weights_of(both["bundle"]), weights_of(parent))
    assert np.isfinite([both["q_loss"], both["loss"], both["policy_loss"]]).all()


def test_critics_are_taken_over_by_the_next_generation(parent, tmp_path):
    logs = toy_data(200, seed=2)
    first = finetune(config(), logs, None, tmp_path, parent=parent)
    slow = config(critic_rate=1e-12, warmup=1.0)
    second = finetune(slow, logs, None, tmp_path, parent=first["bundle"])
    assert second["version_after"].startswith("v0003-")
    before, after = (bundle.load_bundle(r["bundle"]).arrays("critics") for r in (first, second))
    assert all(np.allclose(before[k], after[k], atol=1e-6) for k in before)


def test_only_the_policys_own_rows_are_imitated(parent, tmp_path):
    """Fallback rows with absurd actions must not reach L_c; without critics nothing else moves."""
    logs = toy_data(200, seed=2)
    acted = np.arange(200) % 2 == 0
    absurd = np.where(acted[:, None], logs.actions, np.float32(2.0))
    quiet = config(eta=0.0, warmup=0.0, actor_rate=1e-3)
    results = [
        finetune(
            quiet,
            replace(logs, actions=actions, info={"policy_acted": acted}),
            None,
            tmp_path / name,
            parent=parent,
        )
        for name, actions in (("a", logs.actions), ("b", absurd))
    ]
    a, b = (weights_of(result["bundle"]) for result in results)
    assert same(a, b)
    assert results[0]["q_loss"] != results[1]["q_loss"]


def test_nothing_to_imitate_is_said(parent, tmp_path):
    logs = replace(toy_data(50), info={"policy_acted": np.zeros(50, bool)})
    with pytest.raises(DataError, match="no row of the logs holds an action of the policy"):
        finetune(config(), logs, None, tmp_path, parent=parent)
    result = finetune(config(), logs, toy_data(50, seed=5), tmp_path, parent=parent)
    assert result["actor_updates"] == 5


def test_logs_of_another_robot_are_refused(parent, tmp_path):
    logs = replace(toy_data(50), layout=(("observation", 6),))
    with pytest.raises(DataError, match="expected those of toy: position"):
        finetune(config(), logs, None, tmp_path, parent=parent)


def test_a_policy_of_chunks_is_refused(tmp_path):
    path = toy_bundle(tmp_path, loss=LOSS, horizon=3)
    with pytest.raises(BundleError, match="answers with 3 actions; expected a policy of one"):
        finetune(config(), toy_data(200, seed=2), parent=path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_same_seed_same_bits(parent, tmp_path):
    logs, offline = toy_data(200, seed=2), toy_data(300, seed=3)
    names = [
        finetune(config(seed=seed), logs, offline, tmp_path, parent=parent)["version_after"]
        for seed in (1, 1, 2)
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
        config(updates=None, seconds=6.0),
        toy_data(100),
        None,
        tmp_path,
        lambda done, total, info: shares.append((done, total)),
        parent=parent,
        clock=TickingClock(),
    )
    # Three looks per update: before it, for the phase, for the bar.
    assert result["updates"] == 20
    assert 8 <= result["actor_updates"] <= 11
    assert shares[-1] == (5900, 6000)


def test_value_moves_the_policy_uphill(tmp_path):
    """Reward for force to the right: after fine-tuning the force points further right."""
    parent = toy_bundle(tmp_path / "parent", steps=300, loss=LOSS)
    data = toy_data(2000)
    rewarded = replace(
        data,
        rewards=data.actions[:, 0].astype(np.float64),
        terminals=np.ones(len(data), bool),
        timeouts=np.zeros(len(data), bool),
    )
    strong = config(
        updates=400, eta=1.0, actor_rate=3e-3, critic_rate=3e-3, batch=128, served_decay=0.9
    )
    result = finetune(strong, rewarded, None, tmp_path / "out", parent=parent)
    rows = toy_data(100, seed=9).observations
    right = [
        np.mean([load.act(row[None], 0, tick)[0, 0] for tick, row in enumerate(rows)])
        for load in (load_policy(parent), load_policy(result["bundle"]))
    ]
    assert right[1] > right[0] + 0.3


def test_settings_need_a_limit():
    with pytest.raises(ValueError, match="updates and seconds are both null"):
        FinetuneConfig(updates=None, seconds=None)
    with pytest.raises(msgspec.ValidationError, match=r"expected at least one|both null"):
        msgspec.convert({"updates": None, "seconds": None}, FinetuneConfig)
