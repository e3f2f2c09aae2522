"""Engines: they agree with each other, with the golden actions and across processes."""

import os
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import torch

from controller.acting import ActSettings
from controller.clock import VirtualClock
from controller.interfaces import Policy
from controller.types import Observation, Request
from policies import bundle
from policies.engine import load_policy
from policies.errors import BundleError
from policies.make_sampler import make_sampler
from policies.manifest import CRITICS
from policies.model import (
    ConsistencyModel,
    CriticSettings,
    DiffusionModel,
    GaussianModel,
    NetworkSettings,
    SamplerSettings,
)
from policies.noise import NoiseSource
from tests.policies.weights import CRITICS_OF, MODELS, NETWORKS, bundle_of, robot

SPEC = robot()
SEEN = np.random.default_rng(0).standard_normal((8, 5))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A consistency policy that draws one action, with critics beside it."""
    out = tmp_path_factory.mktemp("store")
    return bundle_of(out, MODELS["consistency-mish"], critic=CRITICS_OF["mish"])


def request(tick=5, seed=3, row=None):
    row = SEEN[tick % 8] if row is None else row
    return Request(tick, seed, Observation((row,), 0), 0, 0)


@pytest.mark.parametrize("engine", ["numpy", "torch", "onnx"])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_a_policy_that_answers_with_one_action(name, engine, tmp_path):
    root = bundle_of(tmp_path, MODELS[name])
    policy = load_policy(root, engine, clock=VirtualClock(7))
    assert isinstance(policy, Policy)
    assert (policy.spec, policy.version) == (SPEC, root.name)
    chunk = policy.infer(request(tick=9))
    assert (chunk.tick, chunk.version) == (9, root.name)
    assert chunk.evaluations == (5 if name.startswith("diffusion") else 1)
    assert chunk.actions.shape == (1, 3)
    assert chunk.actions.dtype == np.float32
    low, high = SPEC.action.bounds()
    assert ((low <= chunk.actions) & (chunk.actions <= high)).all()
    assert chunk.infer_ns == 0
    policy.close()
    policy.close()


@pytest.mark.parametrize("engine", ["numpy", "torch", "onnx"])
@pytest.mark.parametrize("select", ["argmax", "softmax"])
def test_the_answer_depends_on_seed_and_tick_and_on_nothing_else(made, engine, select):
    act = ActSettings(candidates=4, select=select)
    first, second = (load_policy(made, engine, act=act) for _ in range(2))
    row = SEEN[0]
    second.infer(request(tick=1))
    same = [p.infer(request(5, 3, row)).actions for p in (first, second, first)]
    assert np.array_equal(same[0], same[1])
    assert np.array_equal(same[0], same[2])
    assert not np.array_equal(same[0], first.infer(request(6, 3, row)).actions)
    assert not np.array_equal(same[0], first.infer(request(5, 4, row)).actions)


def test_noise_is_that_of_a_fresh_philox():
    source = NoiseSource((2, 3))
    for seed, tick in [(0, 0), (3, 5), (2**32 - 1, 10**7), (3, 5)]:
        fresh = np.random.Generator(np.random.Philox(key=[seed, tick]))
        expected = fresh.standard_normal((2, 3), dtype=np.float32)
        assert np.array_equal(source.draw(seed, tick), expected)
        assert source.uniform() == fresh.random()


def test_noise_of_one_candidate_is_that_of_no_candidates():
    one = NoiseSource((2, 1, 3)).draw(4, 9)
    assert np.array_equal(one[:, 0], NoiseSource((2, 3)).draw(4, 9))


@pytest.mark.parametrize("select", ["argmax", "softmax"])
def test_one_philox_gives_the_noise_and_then_the_choice(made, select):
    act = ActSettings(steps=2, candidates=8, select=select)
    policy, loaded = load_policy(made, act=act), bundle.load_bundle(made)
    sampler = make_sampler(loaded.manifest, loaded.weights, loaded.critics(), act=act)
    for tick in range(40):
        fresh = np.random.Generator(np.random.Philox(key=[3, tick]))
        noise = fresh.standard_normal((2, 8, 3), dtype=np.float32)
        condition = loaded.codec.encode_observation(SEEN[:1])
        expected = loaded.codec.decode_action(sampler(condition, noise, fresh.random(1)))
        assert np.array_equal(policy.act(SEEN[:1], 3, tick), expected)


def test_settings_of_use_come_before_those_of_the_bundle(made):
    row = SEEN[0]
    plain, two = load_policy(made), load_policy(made, act=ActSettings(steps=2))
    assert (plain.infer(request()).evaluations, two.infer(request()).evaluations) == (1, 2)
    middle = load_policy(made, act=ActSettings(temperature=0.0))
    answers = {middle.infer(request(tick, row=row)).actions.tobytes() for tick in range(4)}
    assert len(answers) == 1
    assert plain.infer(request(row=row)).actions.tobytes() not in answers


def test_a_bundle_says_itself_how_many_candidates(tmp_path):
    model, critic = MODELS["diffusion-relu"], CRITICS_OF["normed"]
    many = bundle_of(tmp_path, model, SamplerSettings(candidates=8), critic)
    asked = load_policy(bundle_of(tmp_path, model, critic=critic), act=ActSettings(candidates=8))
    for tick in range(4):
        answers = [p.infer(request(tick)).actions for p in (load_policy(many), asked)]
        assert np.array_equal(*answers)


SCRIPT = """
import hashlib, sys
import numpy as np
from controller.acting import ActSettings
from policies.engine import load_policy
act = ActSettings(candidates=int(sys.argv[3]))
policy = load_policy(sys.argv[1], sys.argv[2], act=act)
assert sys.argv[2] == "torch" or "torch" not in sys.modules
rows = np.random.default_rng(0).standard_normal((200, 1, 5))
acts = b"".join(policy.act(row, 3, tick).tobytes() for tick, row in enumerate(rows))
print(hashlib.sha256(acts).hexdigest())
"""


def bits(made, engine, threads, candidates=1):
    env = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(made), engine, str(candidates)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("model", "candidates"),
    [
        (ConsistencyModel(), 1),
        (GaussianModel(), 1),
        pytest.param(ConsistencyModel(), 50, marks=pytest.mark.slow),
        pytest.param(DiffusionModel(NetworkSettings("ln_resnet")), 1, marks=pytest.mark.slow),
    ],
    ids=["consistency", "gaussian", "candidates", "diffusion"],
)
def test_same_bits_in_every_process_whatever_the_blas_threads(tmp_path, model, candidates):
    wide = bundle_of(tmp_path, model, critic=CriticSettings())
    assert len({bits(wide, "numpy", threads, candidates) for threads in ("1", "2", "1")}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_same_bits_in_every_process_with_other_engines(made, engine):
    assert len({bits(made, engine, "1") for _ in range(2)}) == 1


@pytest.mark.parametrize("name", ["consistency-mish", "diffusion-blocks", "gaussian-mean"])
def test_wrong_arrays_are_caught_by_the_golden_actions(name, tmp_path):
    root = bundle_of(tmp_path, MODELS[name], critic=CRITICS_OF["mish"])
    loaded = bundle.load_bundle(root)
    key = "last_fc.bias" if name.startswith("gaussian") else "head.bias"
    weights = loaded.weights | {key: loaded.weights[key] + np.float32(0.05)}
    swapped = reseal(loaded, weights, tmp_path / "out")
    with pytest.raises(BundleError, match="golden actions differ by"):
        load_policy(swapped)
    with pytest.raises(BundleError, match="golden actions differ by"):
        load_policy(swapped, act=ActSettings(steps=1, candidates=2))
    weights[key] = weights[key] * np.float32("nan")
    with pytest.raises(BundleError, match="actions are not finite"):
        load_policy(reseal(loaded, weights, tmp_path / "out"))


@pytest.mark.parametrize("engine", ["numpy", "torch", "onnx"])
def test_arrays_of_another_network_are_refused(made, tmp_path, engine):
    loaded = bundle.load_bundle(made)
    weights = {k: v for k, v in loaded.weights.items() if k != "layers.1.bias"}
    with pytest.raises(BundleError, match=r"weights do not fit.*layers\.1\.bias"):
        load_policy(reseal(loaded, weights, tmp_path / "out"), engine)
    weights = loaded.weights | {"layers.1.weight": loaded.weights["layers.1.weight"][:, 1:]}
    with pytest.raises(BundleError, match="weights do not fit"):
        load_policy(reseal(loaded, weights, tmp_path / "out"), engine)


def reseal(loaded, weights, out):
    """Save a bundle whose hashes are right but whose weights are others."""
    about = loaded.manifest
    draft = bundle.Draft(
        algorithm=about.algorithm,
        spec=about.spec,
        model=about.model,
        sampler=about.sampler,
        codec=loaded.codec,
        data=about.data,
        training=about.training,
        critic=about.critic,
    )
    critics = loaded.critics()
    extra = {} if critics is None else {CRITICS: critics}
    return bundle.save_bundle(out, draft, weights, loaded.golden, extra)


@pytest.mark.parametrize("engine", ["numpy", "torch", "onnx"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_not_finite_is_not_hidden(name, engine, tmp_path):
    policy = load_policy(bundle_of(tmp_path, MODELS[name]), engine)
    for value in (np.nan, np.inf, -np.inf):
        row = SEEN[0].copy()
        row[0] = value
        with np.errstate(all="ignore"):
            acted = policy.infer(request(row=row)).actions
        if np.isnan(value):
            assert not np.isfinite(acted).all()
        assert np.isnan(acted).any() or np.isfinite(acted).all()


def test_devices_are_checked(made):
    for engine in ("numpy", "onnx"):
        with pytest.raises(
            BundleError, match=f"{engine} runs on cpu, not on cuda: use engine=torch"
        ):
            load_policy(made, engine, "cuda")
    if not torch.cuda.is_available():
        with pytest.raises(BundleError, match="finds no GPU here"):
            load_policy(made, "torch", "cuda")


@pytest.mark.parametrize(
    ("name", "act", "message"),
    [
        ("diffusion-mish", ActSettings(steps=6), r"act.steps=6.*chain of this policy has 5"),
        ("gaussian-mean", ActSettings(steps=2), r"act.steps=2.*takes one"),
        ("deterministic", ActSettings(steps=2), r"act.steps=2.*takes one"),
        ("consistency-mish", ActSettings(candidates=2), r"candidates=2: .* no critics .*valid: 1"),
    ],
)
def test_what_a_policy_cannot_do_is_said_in_one_line(name, act, message, tmp_path):
    root = bundle_of(tmp_path, MODELS[name])
    with pytest.raises(BundleError, match=message) as caught:
        load_policy(root, act=act)
    assert "\n" not in str(caught.value)


def test_one_action_per_observation_leaves_no_choice(tmp_path):
    root = bundle_of(tmp_path, MODELS["deterministic"], critic=CRITICS_OF["mish"])
    with pytest.raises(BundleError, match="candidates=2: this policy knows one action"):
        load_policy(root, act=ActSettings(candidates=2))


def test_a_chosen_level_may_not_lie_below_the_lowest(tmp_path):
    model = ConsistencyModel(NETWORKS["mish"])
    levels = (80.0, model.noise.sigma_min / 2)
    with pytest.raises(BundleError, match=r"level.*0\.001.*0\.002"):
        bundle_of(tmp_path, model, SamplerSettings(levels=levels))


def test_critics_of_other_sizes_are_refused(made, tmp_path):
    loaded = bundle.load_bundle(made)
    about = loaded.manifest
    critic = msgspec.structs.replace(about.critic, hidden=(20, 16, 16))
    draft = bundle.Draft(
        about.algorithm, about.spec, about.model, about.sampler, loaded.codec, (), {}, critic
    )
    critics = loaded.critics()
    assert critics is not None
    root = bundle.save_bundle(tmp_path, draft, loaded.weights, loaded.golden, {CRITICS: critics})
    for engine in ("numpy", "torch"):
        with pytest.raises(BundleError, match=r"do not fit.*layers\.2"):
            load_policy(root, engine, act=ActSettings(candidates=2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", MODELS)
def test_the_gpu_gives_the_same_actions(name, tmp_path):
    root = bundle_of(tmp_path, MODELS[name], critic=CRITICS_OF["mish"])
    for act in (ActSettings(), ActSettings(candidates=8)):
        if act.candidates and name == "deterministic":
            continue
        cpu, gpu = load_policy(root, act=act), load_policy(root, "torch", "cuda", act=act)
        for tick in range(20):
            difference = cpu.infer(request(tick)).actions - gpu.infer(request(tick)).actions
            assert np.abs(difference).max() < 1e-4
