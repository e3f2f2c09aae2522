"""The yardstick acts as the engines do: the same network, steps and units."""

import numpy as np
import pytest
import torch

from controller.acting import ActSettings
from controller.clock import VirtualClock
from controller.latency.baseline import answer, answered, question
from controller.latency.endpoints import resting
from policies.baseline_server import EagerPolicy, eager
from policies.bundle import load_bundle
from policies.engine import load_policy
from policies.errors import BundleError
from policies.model import SamplerSettings
from policies.sampling import numpy_draws
from policies.untrained import untrained_bundle
from tests.policies.weights import CRITICS_OF, MODELS, bundle_of


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("steps", [None, 2])
def test_modules_draw_what_the_numpy_engine_draws(tmp_path, name, steps):
    if steps and not name.startswith(("consistency", "diffusion")):
        pytest.skip("one step")
    bundle = load_bundle(bundle_of(tmp_path, MODELS[name]))
    policy = EagerPolicy(bundle, "cpu", ActSettings(steps=steps))
    draw = numpy_draws(bundle.manifest.model, bundle.weights)(SamplerSettings(steps=steps))
    rng = np.random.default_rng(0)
    for _ in range(5):
        condition = rng.standard_normal((1, 5)).astype(np.float32)
        noise = rng.standard_normal((policy({"state": np.zeros(5)})[1], 1, 3)).astype(np.float32)
        expected = draw(condition, noise)
        got = policy.draw(torch.from_numpy(condition), torch.from_numpy(noise)).numpy()
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_middle_drawn_without_noise_is_the_policys(tmp_path):
    still = ActSettings(temperature=0.0)
    path = untrained_bundle(tmp_path, "consistency", 1)
    policy = load_policy(path, act=still)
    observation = resting(policy.spec)
    actions, evaluations = eager(str(path), act=still)({"state": observation.arrays[0]})
    assert (actions.shape, actions.dtype, evaluations) == ((1, 6), np.float32, 1)
    np.testing.assert_allclose(actions, policy.act(observation.arrays, 0, 0), atol=1e-5)


@pytest.mark.parametrize(("kind", "steps"), [("consistency", 2), ("diffusion", 7)])
def test_untrained_bundles_take_the_steps_they_are_to(tmp_path, kind, steps):
    path = untrained_bundle(tmp_path, kind, steps)
    policy = load_policy(path)
    assert eager(str(path))({"state": np.zeros(17)})[1] == steps
    assert policy.act((np.zeros(17),), 0, 0).shape == (1, 6)
    assert untrained_bundle(tmp_path, kind, steps) == path


def test_a_question_over_the_wire_is_answered_in_plant_units(tmp_path):
    act = eager(str(untrained_bundle(tmp_path, "consistency", 1)), act=ActSettings(temperature=0.0))
    spec = act.bundle.spec
    frame = answer(question(spec.observation, resting(spec).arrays), act, VirtualClock())
    fields = answered(frame)
    assert (fields["evaluations"], fields["infer_ns"]) == (1, 0)
    np.testing.assert_array_equal(fields["action"], act({"state": np.zeros(17)})[0])


def test_a_choice_among_candidates_is_refused(tmp_path):
    path = bundle_of(tmp_path, MODELS["consistency-mish"], critic=CRITICS_OF["mish"])
    with pytest.raises(BundleError, match=r"draws one candidate, not 3; .* baseline=false"):
        eager(str(path), act=ActSettings(candidates=3))
