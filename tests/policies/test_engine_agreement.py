"""Every engine gives what torch gives, for every policy, step count and number of candidates.

The torch engine walks ``multi_step`` and ``ancestral`` and is itself held to the networks that
are trained; numpy and ONNX Runtime fold constants, so that they share little with it.
"""

import msgspec
import numpy as np
import pytest
import torch

from controller.acting import ActSettings
from policies import nets
from policies.algos.sac import LOG_STD_MAX, LOG_STD_MIN
from policies.engine_shapes import critic_shapes, policy_shapes
from policies.engine_torch import torch_draws, torch_values
from policies.make_sampler import make_sampler
from policies.model import (
    ConsistencyModel,
    DeterministicModel,
    DiffusionModel,
    GaussianModel,
    NetworkSettings,
    PreconditionSettings,
    SamplerSettings,
)
from policies.sampling import BLOCK, NumpyCritics
from tests.policies.weights import (
    ACTION,
    CRITICS_OF,
    MODELS,
    NETWORKS,
    OBSERVATION,
    PLAIN,
    critics_of,
    draft_of,
    weights_of,
)

TOLERANCE = 1e-5
RAW = PreconditionSettings(kind="paper")
CASES = MODELS | {
    "consistency-raw": ConsistencyModel(NETWORKS["mish"], RAW),
    "consistency-raw-blocks": ConsistencyModel(NETWORKS["blocks"], RAW),
}


def drawn(rows, steps, seed=0):
    """Return conditions, noise and uniform numbers."""
    rng = np.random.default_rng(seed)
    condition = rng.standard_normal((rows, OBSERVATION)).astype(np.float32)
    noise = rng.standard_normal((steps, rows, ACTION)).astype(np.float32)
    return condition, noise


def sampler_of(model, engine, act, critic="mish", sampler=PLAIN):
    about = draft_of(model, sampler, CRITICS_OF[critic])
    return make_sampler(about, weights_of(model), critics_of(CRITICS_OF[critic]), engine, act=act)


@pytest.mark.parametrize("engine", ["numpy", "onnx"])
@pytest.mark.parametrize("candidates", [1, 8])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", CASES)
def test_engines_agree_with_torch(name, steps, candidates, engine):
    model = CASES[name]
    several = isinstance(model, ConsistencyModel | DiffusionModel)
    if steps > 1 and not several:
        pytest.skip("takes one step")
    if candidates > 1 and isinstance(model, DeterministicModel):
        pytest.skip("knows one action")
    for select, critic in (("argmax", "normed"), ("softmax", "mish")):
        act = ActSettings(steps, candidates, select, 0.7)
        ours, theirs = (sampler_of(model, each, act, critic) for each in (engine, "torch"))
        for rows in (1, 3):
            condition, _ = drawn(rows, 1)
            noise = drawn(rows * candidates, steps, seed=1)[1]
            uniform = np.random.default_rng(2).random(rows)
            got = ours(condition, noise, uniform)
            assert got.shape == (rows, ACTION)
            assert got.dtype == np.float32
            assert np.abs(got - theirs(condition, noise, uniform)).max() < TOLERANCE


@pytest.mark.parametrize("engine", ["numpy", "onnx"])
@pytest.mark.parametrize(
    "sampler",
    [
        SamplerSettings(steps=3, grid="released"),
        SamplerSettings(steps=3, grid="paper"),
        SamplerSettings(levels=(40.0, 2.0, 0.5)),
        SamplerSettings(temperature=0.0),
    ],
    ids=["released", "paper", "levels", "middle"],
)
def test_engines_agree_on_every_grid(sampler, engine):
    model = ConsistencyModel(NETWORKS["mish"])
    ours, theirs = (sampler_of(model, e, ActSettings(), sampler=sampler) for e in (engine, "torch"))
    condition, noise = drawn(4, ours.steps)
    assert np.abs(ours(condition, noise) - theirs(condition, noise)).max() < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["numpy", "onnx"])
@pytest.mark.parametrize("steps", [20, 50])
def test_engines_agree_on_long_chains(steps, engine):
    base = DiffusionModel(NetworkSettings())
    model = msgspec.structs.replace(base, chain=msgspec.structs.replace(base.chain, steps=50))
    ours, theirs = (sampler_of(model, each, ActSettings(steps)) for each in (engine, "torch"))
    for seed in range(5):
        condition, noise = drawn(2, steps, seed)
        assert np.abs(ours(condition, noise) - theirs(condition, noise)).max() < TOLERANCE


@pytest.mark.parametrize("engine", ["numpy", "torch", "onnx"])
@pytest.mark.parametrize("name", MODELS)
def test_rows_do_not_see_each_other(name, engine):
    draw = sampler_of(MODELS[name], engine, ActSettings())
    condition, noise = drawn(4, draw.steps)
    alone = [draw(condition[i : i + 1], noise[:, i : i + 1]) for i in range(4)]
    np.testing.assert_allclose(draw(condition, noise), np.concatenate(alone), atol=1e-6)


@pytest.mark.parametrize("rows", [BLOCK, BLOCK + 1, 2 * BLOCK + 88])
@pytest.mark.parametrize("name", ["consistency-mish", "diffusion-blocks", "gaussian-mean"])
def test_many_rows_are_worked_on_in_blocks(name, rows):
    ours, theirs = (
        sampler_of(MODELS[name], engine, ActSettings()) for engine in ("numpy", "torch")
    )
    condition, noise = drawn(rows, ours.steps)
    got = ours(condition, noise)
    assert got.shape == (rows, ACTION)
    assert np.abs(got - theirs(condition, noise)).max() < TOLERANCE


@pytest.mark.parametrize("rows", [1, BLOCK, 2 * BLOCK + 88])
@pytest.mark.parametrize("name", CRITICS_OF)
def test_numpy_critics_agree_with_torch(name, rows):
    settings = CRITICS_OF[name]
    arrays = critics_of(settings)
    condition, noise = drawn(rows, 1)
    got = NumpyCritics(arrays, settings)(condition, noise[0])
    assert got.shape == (rows,)
    assert np.abs(got - torch_values(arrays, settings, "cpu")(condition, noise[0])).max() < 2e-6


@pytest.mark.parametrize("engine", ["numpy", "torch", "onnx"])
def test_answers_are_arrays_of_their_own(engine):
    for name in MODELS:
        draw = sampler_of(MODELS[name], engine, ActSettings())
        condition, noise = drawn(1, draw.steps)
        first = draw(condition, noise)
        kept, given = first.copy(), (condition.copy(), noise.copy())
        draw(-condition, noise[::-1].copy())
        assert np.array_equal(first, kept)
        assert np.array_equal(condition, given[0])
        assert np.array_equal(noise, given[1])


@pytest.mark.parametrize("name", NETWORKS)
def test_torch_computes_the_network_that_is_trained(name):
    net = NETWORKS[name]
    model = ConsistencyModel(net)
    weights = weights_of(model)
    trained = nets.Denoiser(ACTION, OBSERVATION, net)
    views = {key: torch.from_numpy(array)[None] for key, array in weights.items()}
    condition, noise = drawn(6, 1)
    got = torch_draws(model, weights, "cpu")(PLAIN)(condition, noise)
    # One step from T: f = c_skip x + c_out F(c_in x, 250 ln T, s), x = T z.
    s, z, top, data, low = torch.from_numpy(condition), torch.from_numpy(noise[0]), 80.0, 0.5, 0.002
    label = torch.full((1, 1, 1), 250.0 * np.log(top))
    x = top * z
    inner = trained(views, (x / np.hypot(top, data))[None], label, s[None])[0]
    skip = data**2 / ((top - low) ** 2 + data**2)
    expected = skip * x + data * (top - low) / np.hypot(top, data) * inner
    np.testing.assert_allclose(got, expected.clamp(-1, 1), atol=2e-6)


@pytest.mark.parametrize("name", CRITICS_OF)
def test_torch_computes_the_critics_that_are_trained(name):
    settings = CRITICS_OF[name]
    arrays = critics_of(settings)
    condition, noise = drawn(6, 1)
    views = {key: torch.from_numpy(array)[None] for key, array in arrays.items()}
    trained = nets.Critics(ACTION, OBSERVATION, settings)
    q = trained(views, torch.from_numpy(condition)[None], torch.from_numpy(noise))[0]
    got = torch_values(arrays, settings, "cpu")(condition, noise[0])
    np.testing.assert_allclose(got, q.amin(0), atol=2e-6)


@pytest.mark.parametrize("name", MODELS)
def test_shapes_are_those_of_the_networks_that_are_trained(name):
    model = MODELS[name]
    ours = policy_shapes(model, OBSERVATION, ACTION)
    if isinstance(model, ConsistencyModel | DiffusionModel):
        assert ours == nets.Denoiser(ACTION, OBSERVATION, model.network).shapes
    else:
        spread = "state" if isinstance(model, GaussianModel) else "none"
        assert ours == nets.Heads(OBSERVATION, ACTION, model.hidden, spread).shapes
    assert ours == {key: array.shape for key, array in weights_of(model).items()}


@pytest.mark.parametrize("name", CRITICS_OF)
def test_shapes_of_critics_are_those_that_are_trained(name):
    settings = CRITICS_OF[name]
    ours = critic_shapes(settings, OBSERVATION, ACTION)
    assert ours == nets.Critics(ACTION, OBSERVATION, settings).shapes
    assert ours == {key: array.shape for key, array in critics_of(settings).items()}


def mean_and_spread(model, weights, condition):
    """Return what a Gaussian's network gives, in double precision."""
    h, w = condition.astype(np.float64), weights
    for index in range(len(model.hidden)):
        h = np.maximum(h @ w[f"fc{index}.weight"].T + w[f"fc{index}.bias"], 0.0)
    log_std = h @ w["last_fc_log_std.weight"].T + w["last_fc_log_std.bias"]
    limited = np.clip(log_std, model.log_std_min, model.log_std_max)
    return h @ w["last_fc.weight"].T + w["last_fc.bias"], np.exp(limited)


@pytest.mark.parametrize("engine", ["numpy", "torch", "onnx"])
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("squash", ["action", "mean"])
def test_gaussians_by_hand(squash, temperature, engine):
    model = GaussianModel(hidden=(24, 20), squash=squash, log_std_min=-0.1, log_std_max=0.1)
    condition, noise = drawn(40, 1)
    mean, spread = mean_and_spread(model, weights_of(model), condition)
    assert (spread > np.exp(-0.0999)).any()
    assert (spread < np.exp(-0.0999)).any()
    step = temperature * spread * noise[0]
    if squash == "action":
        expected = np.tanh(mean + step)
    else:
        expected = np.clip(np.tanh(mean) + step, -1.0, 1.0)
    got = sampler_of(model, engine, ActSettings(temperature=temperature))(condition, noise)
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_a_gaussian_is_limited_as_sac_limits_it():
    assert (GaussianModel().log_std_min, GaussianModel().log_std_max) == (LOG_STD_MIN, LOG_STD_MAX)
