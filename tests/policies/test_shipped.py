"""The bundles that come with the package: whole, small, and good at what they are for."""

import numpy as np
import pytest

from policies import bundle
from policies.batch import load_batch
from policies.engine import load_policy
from policies.errors import BundleError
from policies.rollouts import roll_out

LEAST = {"hopper": 80.0, "hopper-chunks": 80.0, "walker2d": 75.0, "kitchen-complete": 40.0}
"""Score over five episodes below which something is wrong: each scored 15 more over twenty."""
MEBIBYTE = 2**20


def test_they_are_these():
    assert set(bundle.shipped()) == set(LEAST)


@pytest.mark.parametrize("name", sorted(LEAST))
def test_it_loads_by_name_and_is_small(name):
    policy = load_policy(name)
    assert policy.spec.task == name.removesuffix("-chunks")
    root = bundle.resolve(name)
    assert sum(file.stat().st_size for file in root.iterdir()) < MEBIBYTE


def test_a_path_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hopper").mkdir()
    with pytest.raises(BundleError, match="neither a bundle"):
        bundle.resolve("hopper")


def test_a_name_that_is_none_is_told_which_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = "hopper, hopper-chunks, kitchen-complete, walker2d"
    with pytest.raises(BundleError, match=f"comes with onebeat: {names}"):
        bundle.resolve("hoper")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LEAST))
def test_it_is_good_at_its_task(name):
    from sim.registry import reference
    from sim.vector import make_vector

    policy, noise = load_batch(name), np.random.default_rng(0)
    task = policy.spec.task
    with make_vector(task, 5, seed=0, processes=1) as plants:
        done = roll_out(plants, lambda seen: policy.act(seen, noise)[:, 0], 5, 0)
    low, high = reference(task)
    assert 100.0 * (done.returns.mean() - low) / (high - low) > LEAST[name]
