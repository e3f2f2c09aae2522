"""Behaviour policies against hand calculation, change of variables and sampled moments."""

import hashlib
import math
import os
from pathlib import Path

import numpy as np
import pytest

from controller.errors import DataError
from sim.generate.behaviour import load_behaviour

DATA = Path(os.environ.get("ONEBEAT_DATA", "absent"))


def layer(name, weight, bias):
    return {f"{name}.weight": np.array(weight), f"{name}.bias": np.array(bias)}


def squashed(**changes):
    """Two inputs, two hidden units, one action: small enough for pen and paper."""
    return (
        layer("fc0", [[1.0, -1.0], [0.5, 2.0]], [0.0, -1.0])
        | layer("last_fc", [[2.0, -0.5]], [0.1])
        | layer("last_fc_log_std", [[0.25, 1.0]], [-2.0])
        | {"nonlinearity": np.array("relu"), "output_distribution": np.array("tanh_gaussian")}
        | changes
    )


def plain():
    return (
        layer("fc0", [[1.0, 0.5]], [0.2])
        | layer("fc1", [[2.0], [-1.0]], [0.0, 0.3])
        | {"in_shift": np.array([1.0, 0.0]), "in_scale": np.array([2.0, 0.5])}
        | {"out_shift": np.array([0.1, 0.0]), "out_scale": np.array([1.0, 3.0])}
        | {"log_std": np.log([0.5, 0.25]), "nonlinearity": np.array("tanh")}
        | {"output_distribution": np.array("gaussian")}
    )


def load(tmp_path, entries):
    path = tmp_path / "policy.npz"
    np.savez(path, **entries)
    return load_behaviour(path)


def test_squashed_network_by_hand(tmp_path):
    policy = load(tmp_path, squashed())
    # o = (2, 1): fc0 gives (1, 2); mean 2 - 1 + 0.1; log std 0.25 + 2 - 2.
    mean, std = policy.mean_std(np.array([2.0, 1.0]))
    assert mean == pytest.approx([1.1])
    assert std == pytest.approx([math.exp(0.25)])
    assert policy.mean(np.array([2.0, 1.0])) == pytest.approx([math.tanh(1.1)])
    # o = (0, 1): fc0 gives (-1, 1), of which relu keeps (0, 1).
    assert policy.mean(np.array([0.0, 1.0])) == pytest.approx([math.tanh(-0.4)])
    assert (policy.observation_size, policy.action_size) == (2, 1)


def test_gaussian_network_by_hand(tmp_path):
    policy = load(tmp_path, plain())
    # o = (3, 0.5) is normalised to (1, 1): tanh(1.7), then (2h, 0.3 - h), scaled and shifted.
    h = math.tanh(1.7)
    mean, std = policy.mean_std(np.array([3.0, 0.5]))
    assert mean == pytest.approx([2 * h + 0.1, 3 * (0.3 - h)])
    assert std == pytest.approx([0.5, 0.25])


def test_log_std_is_clipped(tmp_path):
    for bias, expected in ((-1000.0, -20.0), (1000.0, 2.0)):
        entries = squashed(**layer("last_fc_log_std", [[0.0, 0.0]], [bias]))
        _, std = load(tmp_path, entries).mean_std(np.zeros(2))
        assert np.log(std) == pytest.approx([expected])


def test_one_normal_number_for_each_element(tmp_path):
    observation = np.array([2.0, 1.0])
    policy = load(tmp_path, squashed())
    drawn = np.random.default_rng(3).standard_normal(1)
    action = policy.act(observation, np.random.default_rng(3))
    assert action == pytest.approx(np.tanh(1.1 + math.exp(0.25) * drawn))
    # The older generator, which the published measurements used.
    drawn = np.random.RandomState(3).randn(1)
    action = policy.act(observation, np.random.RandomState(3))
    assert action == pytest.approx(np.tanh(1.1 + math.exp(0.25) * drawn))


def test_log_density_is_the_derivative_of_the_distribution(tmp_path):
    """P(action < a) = Φ((atanh a - μ) / σ); its slope is the density."""
    policy, rng = load(tmp_path, squashed()), np.random.default_rng(0)
    observation = np.array([0.4, 0.1])
    (mean,), (std,) = policy.mean_std(observation)
    for _ in range(20):
        action = float(policy.act(observation, rng)[0])
        density, step = math.exp(policy.log_density(*policy.last)), 1e-6 * (1 - action**2)
        below, above = (
            0.5 * math.erf((math.atanh(action + side) - mean) / (std * math.sqrt(2)))
            for side in (-step, step)
        )
        assert (above - below) / (2 * step) == pytest.approx(density, rel=1e-5)


def test_log_density_stays_finite_where_the_tanh_is_one(tmp_path):
    policy = load(tmp_path, squashed(**layer("last_fc", [[0.0, 0.0]], [400.0])))
    action = policy.act(np.zeros(2), np.random.default_rng(0))
    assert action == [1.0]
    assert np.isfinite(policy.log_density(*policy.last))


def test_gaussian_log_density_by_hand(tmp_path):
    policy = load(tmp_path, plain())
    observation = np.array([0.3, -0.2])
    mean, std = policy.mean_std(observation)
    action = policy.act(observation, np.random.default_rng(5))
    density = np.exp(-(((action - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
    assert policy.log_density(*policy.last) == pytest.approx(math.log(density.prod()))


@pytest.mark.parametrize("entries", [squashed(), plain()], ids=["squashed", "gaussian"])
def test_a_batch_is_its_rows(tmp_path, entries):
    policy, rng = load(tmp_path, entries), np.random.default_rng(1)
    batch = rng.standard_normal((3, 4, 2))
    size = policy.action_size
    rows = np.array([policy.mean(row).copy() for row in batch.reshape(-1, 2)])
    assert np.allclose(policy.mean(batch), rows.reshape(3, 4, size), rtol=1e-13)
    acted = policy.act(batch, np.random.default_rng(2))
    together = policy.log_density(*policy.last)
    assert acted.shape == (3, 4, size)
    assert together.shape == (3, 4)
    again = np.random.default_rng(2)
    for place in np.ndindex(3, 4):
        assert np.allclose(policy.act(batch[place], again), acted[place], rtol=1e-12)
        assert policy.log_density(*policy.last) == pytest.approx(together[place])


def test_actions_have_the_stated_distribution(tmp_path):
    policy = load(tmp_path, plain())
    observation = np.tile([0.7, 0.1], (20_000, 1))
    mean, std = policy.mean_std(observation)
    actions = policy.act(observation, np.random.default_rng(0))
    assert np.allclose(actions.mean(0), mean[0], atol=5 * std[0].max() / math.sqrt(20_000))
    assert np.allclose(actions.std(0), std[0], rtol=0.03)


def test_results_are_the_callers_own(tmp_path):
    policy = load(tmp_path, squashed())
    first, (mean, _) = policy.mean(np.ones(2)), policy.mean_std(np.ones(2))
    kept = first.copy(), mean.copy()
    policy.mean(np.zeros(2))
    assert (first, mean) == kept


def test_digest_is_that_of_the_file(tmp_path):
    policy = load(tmp_path, squashed())
    assert policy.digest == hashlib.sha256((tmp_path / "policy.npz").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"output_distribution": np.array("beta")}, "output_distribution is 'beta', expected tan"),
        ({"nonlinearity": np.array("mish")}, "nonlinearity is 'mish', expected relu or tanh"),
        ({"fc0.bias": np.zeros(3)}, r"fc0.bias has shape \(3,\), expected \(2,\)"),
        ({"fc0.weight": np.zeros(3)}, r"fc0.weight has shape \(3,\), expected \(out, in\)"),
        ({"last_fc.weight": np.zeros((1, 3))}, r"last_fc_log_std.weight has .* expected \(1, 3\)"),
        ({"fc0.weight": np.zeros((3, 2)), "fc0.bias": np.zeros(3)}, "2 inputs follows one of 3"),
        ({"fc0.weight": np.full((2, 2), np.nan)}, "fc0.weight is not finite"),
        ({"fc0.weight": np.array([["a"]])}, "fc0.weight is of type <U1, expected numbers"),
    ],
)
def test_faulty_entries_are_named(tmp_path, changes, fault):
    with pytest.raises(DataError, match=fault):
        load(tmp_path, squashed(**changes))


def test_files_that_are_no_policy(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        load_behaviour(tmp_path / "absent.npz")
    with pytest.raises(DataError, match=r"No such|Is a directory"):
        load_behaviour(tmp_path)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="not an"):
        load_behaviour(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match="not an"):
        load_behaviour(tmp_path / "one.npy")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(DataError, match="no entry output_distribution; it has weights"):
        load_behaviour(tmp_path / "other.npz")
    content = (tmp_path / "other.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="not an"):
        load_behaviour(tmp_path / "half.npz")


@pytest.mark.parametrize(
    ("file", "sizes"),
    [
        ("hopper/sac_snapshot_04.npz", (11, 3)),
        ("antmaze/ant_navigation.npz", (29, 8)),
        ("pen/dapg_expert.npz", (45, 24)),
    ],
)
def test_shared_policies_load(file, sizes):
    path = DATA / "policies" / file
    if not path.exists():
        pytest.skip("ONEBEAT_DATA does not lead to the policies")
    policy = load_behaviour(path)
    assert (policy.observation_size, policy.action_size) == sizes
    assert np.isfinite(policy.mean(np.zeros(sizes[0]))).all()
