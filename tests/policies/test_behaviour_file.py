"""Behaviour files: what the generator of datasets reads is the policy that was written."""

import numpy as np
import torch

from policies.algos.sac import squash
from policies.behaviour_file import write_behaviour
from sim.generate.behaviour import load_behaviour
from tests.policies.test_sac import learner


def test_the_generator_draws_the_actions_of_the_learner(tmp_path):
    sac = learner()
    write_behaviour(tmp_path / "hopper" / "sac_snapshot_00.npz", sac.policy_arrays())
    policy = load_behaviour(tmp_path / "hopper" / "sac_snapshot_00.npz")
    assert (policy.observation_size, policy.action_size, policy.squashed) == (3, 2, True)
    rng = np.random.default_rng(0)
    for seen in np.random.default_rng(1).standard_normal((20, 3)):
        noise = np.random.default_rng(0)
        noise.bit_generator.state = rng.bit_generator.state
        action = policy.act(seen, rng)
        drawn = torch.tensor(noise.standard_normal(2), dtype=torch.float32)[None]
        row = torch.tensor(seen, dtype=torch.float32)[None]
        expected = squash(sac.actor.forward(row)[-1][0], drawn)
        np.testing.assert_allclose(action, expected.action[0], atol=1e-5)
        np.testing.assert_allclose(policy.mean(seen), sac.act(row)[0], atol=1e-5)


def test_it_has_the_entries_of_the_published_files_and_no_code(tmp_path):
    file = tmp_path / "a.npz"
    write_behaviour(file, learner().policy_arrays())
    with np.load(file, allow_pickle=False) as entries:
        shapes = {name: entries[name].shape for name in entries.files}
        assert str(entries["nonlinearity"]) == "relu"
        assert str(entries["output_distribution"]) == "tanh_gaussian"
    assert shapes == {
        "fc0.weight": (8, 3),
        "fc0.bias": (8,),
        "fc1.weight": (8, 8),
        "fc1.bias": (8,),
        "last_fc.weight": (2, 8),
        "last_fc.bias": (2,),
        "last_fc_log_std.weight": (2, 8),
        "last_fc_log_std.bias": (2,),
        "nonlinearity": (),
        "output_distribution": (),
    }


def test_the_same_policy_gives_the_same_bytes(tmp_path):
    files = [tmp_path / name for name in ("a.npz", "b.npz")]
    for file in files:
        write_behaviour(file, learner().policy_arrays())
    assert files[0].read_bytes() == files[1].read_bytes()
    assert sorted(tmp_path.iterdir()) == files
