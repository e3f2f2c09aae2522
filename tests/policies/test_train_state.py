"""States: whole or not at all, everything that decides what follows, one run in a directory."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch

from policies.algos.learner import Sizes
from policies.disk import replace_file
from policies.errors import BundleError
from policies.learners import make_learner
from policies.train_state import (
    ABOUT,
    STATE,
    exclusive,
    read_state,
    restore,
    write_state,
)
from tests.policies.robots import toy_config

SIZES = Sizes(2, 4, (0, 1))


def learner(algorithm="consistency_ac", sizes=SIZES):
    return make_learner(toy_config(algorithm=algorithm), sizes)


def shaken(made):
    """Give every number of a learner a value of its own."""
    for network in made.networks.values():
        network.flat.uniform_(-1.0, 1.0)
    for optimiser in made.optimisers.values():
        optimiser.begin()
        for value in optimiser.state().values():
            value.uniform_(1.0, 2.0)
    made.noise(3)
    return made


@pytest.mark.parametrize(
    "algorithm", ["consistency_bc", "consistency_ac", "diffusion_bc", "diffusion_ql"]
)
def test_everything_comes_back(tmp_path, algorithm):
    before, after = shaken(learner(algorithm)), learner(algorithm)
    write_state(tmp_path, before, {"step": 7, "losses": [0.5, 0.25]})
    coming = before.noise(5), torch.rand(5)
    saved = read_state(tmp_path)
    assert saved.about == {"step": 7, "losses": [0.5, 0.25]}
    restore(saved, after)
    for name, network in before.networks.items():
        assert torch.equal(network.flat, after.networks[name].flat), name
    for name, optimiser in before.optimisers.items():
        for key, value in optimiser.state().items():
            assert torch.equal(value, after.optimisers[name].state()[key]), (name, key)
    assert torch.equal(coming[0], after.noise(5))
    assert torch.equal(coming[1], torch.rand(5))


def test_what_is_restored_is_what_is_trained(tmp_path):
    before, after = shaken(learner()), learner()
    write_state(tmp_path, before, {})
    restore(read_state(tmp_path), after)
    for made in (before, after):
        for name, optimiser in made.optimisers.items():
            optimiser.set_rate(0.1)
            optimiser.parameters.grad.fill_(0.5)
            optimiser.step()
            assert optimiser.state()["step"] > 2.0 - 1e-6, name
    for name, network in before.networks.items():
        assert torch.equal(network.flat, after.networks[name].flat), name


def test_an_optimiser_that_took_no_step_yet_has_none_after_it_either(tmp_path):
    before, after = learner(), learner()
    before.optimisers["critic"].begin()
    before.optimisers["critic"].state()["step"].fill_(3.0)
    write_state(tmp_path, before, {"step": 3})
    restore(read_state(tmp_path), after)
    assert float(after.optimisers["critic"].state()["step"]) == 3.0
    assert not after.optimisers["actor"].state()


def test_without_a_state_there_is_none(tmp_path):
    assert read_state(tmp_path) is None


def test_the_state_of_another_network_is_refused(tmp_path):
    write_state(tmp_path, shaken(learner("consistency_bc")), {})
    with pytest.raises(BundleError, match="cannot resume: the state is of another run"):
        restore(read_state(tmp_path), learner("consistency_ac"))
    with pytest.raises(BundleError, match="cannot resume: the state is of another run"):
        restore(read_state(tmp_path), learner("consistency_bc", Sizes(2, 5, (0, 1))))


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"not a state",
        safetensors.numpy.save({"x": np.zeros(1)}),
        safetensors.numpy.save({"x": np.zeros(1)}, metadata={ABOUT: "{"}),
    ],
    ids=["empty", "noise", "foreign", "half"],
)
def test_a_damaged_state_is_told_in_one_line(tmp_path, blob):
    replace_file(tmp_path / STATE, blob)
    with pytest.raises(BundleError, match=r"run\.safetensors: cannot go on from it") as error:
        read_state(tmp_path)
    assert "\n" not in str(error.value)


def test_a_cut_state_is_told_in_one_line(tmp_path):
    write_state(tmp_path, shaken(learner()), {"step": 1})
    blob = (tmp_path / STATE).read_bytes()
    replace_file(tmp_path / STATE, blob[: len(blob) // 2])
    with pytest.raises(BundleError, match="cannot go on from it"):
        read_state(tmp_path)


def test_a_write_that_fails_leaves_the_state_from_before(tmp_path, monkeypatch):
    write_state(tmp_path, shaken(learner()), {"step": 1})
    before = (tmp_path / STATE).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("policies.disk.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_state(tmp_path, shaken(learner()), {"step": 2})
    assert (tmp_path / STATE).read_bytes() == before
    assert read_state(tmp_path).about == {"step": 1}


def test_it_says_in_its_header_what_it_is_of(tmp_path):
    write_state(tmp_path, learner(), {"step": 3})
    with (tmp_path / STATE).open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    assert json.loads(header["__metadata__"][ABOUT]) == {"step": 3}


def test_one_run_at_a_time(tmp_path):
    with exclusive(tmp_path / "new"):
        with (
            pytest.raises(BundleError, match="another run is at work there"),
            exclusive(tmp_path / "new"),
        ):
            pass
        with exclusive(tmp_path / "other"):
            pass
    with exclusive(tmp_path / "new"):
        pass


def test_a_place_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(BundleError, match="Not a directory: choose another out"),
        exclusive(tmp_path / "file"),
    ):
        pass
