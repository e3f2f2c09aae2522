"""Engines: they agree with each other, with the golden actions and across processes."""

import os
import shutil
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import torch

from controller.clock import VirtualClock
from controller.interfaces import Policy
from controller.types import Observation, Request
from policies import bundle, train_state
from policies.engine import NoiseSource, load_policy, make_sampler
from policies.errors import BundleError
from policies.nets import Denoiser
from policies.settings import NetworkSettings, PreconditionSettings, SamplerSettings
from tests.policies.robots import SPEC, toy_bundle, toy_data


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return toy_bundle(tmp_path_factory.mktemp("store"))


def request(tick=5, seed=3, row=None):
    row = toy_data(8).observations[tick % 8] if row is None else row
    arrays = (row[0:2], row[2:4], row[4:6])
    return Request(tick, seed, Observation(arrays, 0), 0, 0)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_it_is_a_policy_that_answers_with_one_action(made, engine):
    policy = load_policy(made, engine, clock=VirtualClock(7))
    assert isinstance(policy, Policy)
    assert (policy.spec, policy.version) == (SPEC, made.name)
    chunk = policy.infer(request(tick=9))
    assert (chunk.tick, chunk.version, chunk.evaluations) == (9, made.name, 1)
    assert chunk.actions.shape == (1, 2)
    assert chunk.actions.dtype == np.float32
    assert (np.abs(chunk.actions) <= 2).all()
    assert chunk.infer_ns == 0
    policy.close()
    policy.close()


def test_the_answer_depends_on_seed_and_tick_and_on_nothing_else(made):
    first, second = load_policy(made), load_policy(made)
    row = toy_data(1).observations[0]
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


@pytest.mark.parametrize("kind", ["edm", "paper"])
@pytest.mark.parametrize("levels", [(80.0,), (80.0, 2.0), (10.0, 3.0, 0.5)])
def test_numpy_and_torch_agree(kind, levels):
    torch.manual_seed(1)
    network = NetworkSettings(hidden=(64, 48, 32))
    weights = train_state.to_arrays(Denoiser(3, 5, network))
    noise = PreconditionSettings(kind=kind)
    about = _About(network, noise, SamplerSettings(levels, 0.7), levels)
    rng = np.random.default_rng(0)
    ours, theirs = (make_sampler(about, weights, engine) for engine in ("numpy", "torch"))
    for _ in range(50):
        condition = rng.standard_normal((1, 5)).astype(np.float32)
        noises = rng.standard_normal((len(levels), 3)).astype(np.float32)
        assert np.abs(ours(condition, noises) - theirs(condition, noises)).max() < 2e-5


class _About(msgspec.Struct):
    network: NetworkSettings
    preconditioning: PreconditionSettings
    sampler: SamplerSettings
    levels: tuple[float, ...]
    algorithm: str = "consistency_bc"


SCRIPT = """
import hashlib, sys
import numpy as np
from policies.engine import load_policy
policy = load_policy(sys.argv[1], sys.argv[2])
assert sys.argv[2] == "torch" or "torch" not in sys.modules
rows = np.random.default_rng(0).standard_normal((200, 1, 6))
acts = b"".join(policy.act(row, 3, tick).tobytes() for tick, row in enumerate(rows))
print(hashlib.sha256(acts).hexdigest())
"""


def bits(made, engine, threads):
    env = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(made), engine],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_same_bits_in_every_process_whatever_the_blas_threads(tmp_path):
    wide = toy_bundle(tmp_path, steps=2, network=NetworkSettings())
    assert len({bits(wide, "numpy", threads) for threads in ("1", "2", "1")}) == 1


@pytest.mark.slow
def test_same_bits_in_every_process_with_torch(made):
    assert len({bits(made, "torch", "1") for _ in range(2)}) == 1


def test_wrong_arrays_are_caught_by_the_golden_actions(made, tmp_path):
    root = shutil.copytree(made, tmp_path / "bundle")
    loaded = bundle.load_bundle(root)
    weights = loaded.weights | {"head.bias": loaded.weights["head.bias"] + np.float32(0.01)}
    swapped = reseal(loaded, weights, tmp_path / "out")
    with pytest.raises(BundleError, match="golden actions differ by"):
        load_policy(swapped)
    weights["head.bias"] = weights["head.bias"] * np.float32("nan")
    with pytest.raises(BundleError, match="actions are not finite"):
        load_policy(reseal(loaded, weights, tmp_path / "out"))


def test_arrays_of_another_network_are_refused(made, tmp_path):
    loaded = bundle.load_bundle(made)
    weights = {k: v for k, v in loaded.weights.items() if k != "layers.1.bias"}
    for engine in ("numpy", "torch"):
        with pytest.raises(BundleError, match=r"weights do not fit.*layers\.1\.bias"):
            load_policy(reseal(loaded, weights, tmp_path / "out"), engine)


def reseal(loaded, weights, out):
    """Save a bundle whose hashes are right but whose weights are others."""
    about = loaded.manifest
    draft = bundle.Draft(
        algorithm=about.algorithm,
        spec=about.spec,
        network=about.network,
        preconditioning=about.preconditioning,
        sampler=about.sampler,
        codec=loaded.codec,
        data=about.data,
        training=about.training,
    )
    return bundle.save_bundle(out, draft, weights, loaded.golden, {})


def test_what_is_not_finite_is_not_hidden(made):
    policy = load_policy(made)
    for value in (np.nan, np.inf):
        row = toy_data(1).observations[0].copy()
        row[0] = value
        with np.errstate(all="ignore"):
            assert not np.isfinite(policy.infer(request(row=row)).actions).all()


def test_devices_are_checked(made):
    with pytest.raises(BundleError, match="numpy runs on cpu, not on cuda: use engine=torch"):
        load_policy(made, "numpy", "cuda")
    if not torch.cuda.is_available():
        with pytest.raises(BundleError, match="finds no GPU here"):
            load_policy(made, "torch", "cuda")


@pytest.mark.gpu
def test_the_gpu_gives_the_same_actions(made):
    cpu, gpu = load_policy(made), load_policy(made, "torch", "cuda")
    for tick in range(50):
        difference = cpu.infer(request(tick)).actions - gpu.infer(request(tick)).actions
        assert np.abs(difference).max() < 1e-4
