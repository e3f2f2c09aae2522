"""How far a run is, by what lies on disk."""

import msgspec
import pytest

from policies.errors import BundleError
from policies.reproduction import standing
from policies.reproduction.plan import expand
from policies.train import train
from policies.train_state import exclusive
from tests.policies.reproduction.made import plan
from tests.policies.robots import SPEC, toy_config, toy_data


def stopped_after(count):
    """Return what says to stop after so many updates."""
    asked = []
    return lambda: asked.append(None) or len(asked) >= count


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of 4 updates."""
    out = tmp_path_factory.mktemp("whole")
    train(toy_config(log_every=2), toy_data(), SPEC, out)
    return out


@pytest.fixture
def half(tmp_path):
    """A run that was stopped after 2 of 4 updates."""
    train(toy_config(log_every=2), toy_data(), SPEC, tmp_path, should_stop=stopped_after(2))
    return tmp_path


def test_a_finished_run_is_trained_and_not_begun(whole):
    assert standing.trained(whole, toy_config())
    assert not standing.begun(whole)
    assert standing.last_step(whole) == 4


def test_a_stopped_run_is_begun_and_not_trained(half):
    assert not standing.trained(half, toy_config())
    assert standing.begun(half)
    assert standing.last_step(half) == 2


def test_nothing_is_neither(tmp_path):
    assert not standing.trained(tmp_path, toy_config())
    assert not standing.begun(tmp_path)
    assert not standing.busy(tmp_path)
    assert standing.last_step(tmp_path) == 0


def test_a_state_that_cannot_be_read_is_no_run_to_go_on_with(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / standing.STATE).write_bytes(b"nonsense")
    assert not standing.begun(tmp_path)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (toy_config(5), "it has optimiser.steps=4, the plan 5"),
        (toy_config(normalise=False), "it has normalise=True, the plan False"),
        (toy_config(algorithm="diffusion_bc"), "it has algorithm=consistency_bc, the plan diff"),
    ],
)
def test_a_finished_run_of_other_settings_is_told(whole, config, told):
    with pytest.raises(BundleError, match=told):
        standing.trained(whole, config)


def test_settings_that_do_not_decide_the_weights_may_differ(whole):
    config = toy_config(save_every=7, data="elsewhere", out="x", seed=3)
    assert standing.trained(whole, config)


def test_settings_that_one_of_both_does_not_know_are_no_difference():
    assert standing.clash({"a": 1, "b": {"c": 2}}, {"b": {"c": 2, "d": 5}, "e": None}) == ""
    assert standing.clash({"b": {"c": 2}}, {"b": {"c": 3}}) == "it has b.c=2, the plan 3"


def test_a_store_is_busy_while_a_process_trains_there(tmp_path):
    with exclusive(tmp_path):
        assert standing.busy(tmp_path)
    assert not standing.busy(tmp_path)


def test_a_line_of_metrics_that_is_being_written_does_not_count(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [msgspec.json.encode({"step": n, "loss": 0.5}) for n in range(1, 1001)]
    file.write_bytes(b"\n".join(lines) + b'\n{"step": 1001, "lo')
    assert standing.last_step(tmp_path) == 1000
    file.write_bytes(b'{"step": 10')
    assert standing.last_step(tmp_path) == 0


@pytest.mark.parametrize(
    ("step", "told"),
    [(None, "not run"), (1250, "at update 1,250 of 5,000"), (5000, "trained, not scored")],
)
def test_how_far_it_is_in_words(tmp_path, step, told):
    cell = expand(plan())[0]
    store = cell.store(tmp_path)
    store.mkdir(parents=True)
    if step is not None:
        (store / "metrics.jsonl").write_text(f'{{"step": {step}}}\n')
    assert standing.in_words(cell, tmp_path, 5000) == told
