"""Presets of fine-tuning: the paper's numbers, the robust ones, and what lies over them."""

import subprocess
import sys

import pytest

from controller.config import load, to_yaml
from controller.errors import ConfigError
from policies.finetuning.settings import FinetuneConfig
from policies.learning import NEWEST, Averaging
from policies.model import CriticSettings


def settings(*words):
    return load(FinetuneConfig, None, words)


def test_paper_is_the_online_form_of_the_published_code():
    config = settings("preset=paper")
    learn = config.learn
    assert (learn.imitation, learn.eta, learn.q_loss) == (0.0, 1.0, "coin")
    assert (learn.actor_rate, learn.critic_rate, learn.batch) == (1e-5, 3e-4, 256)
    assert (learn.offline_share, learn.warmup_steps, learn.critic_updates) == (0.0, 0, 0)
    assert learn.critic is None
    assert (learn.subset, learn.value.aggregate, learn.value.q_norm) == (0, "min", False)
    assert (learn.value.discount, learn.value.tau, learn.value.max_q) == (0.99, 0.005, 1)
    # An update in 4 steps of 3 robots.
    assert 12 * learn.updates_per_step == pytest.approx(1.0)
    assert learn.slow == Averaging(decay=0.995, every=5, after=1000, grow=False)
    assert learn.served.every == 0
    assert config.replay.capacity == 100_000
    assert not config.gate.on
    assert (learn.steps, config.act.steps) == (5, 5)
    assert (config.act.candidates, config.act.select) == (50, "softmax")
    assert (config.explore.start, config.explore.end) == (1.0, 0.01)


@pytest.mark.parametrize(
    ("words", "ticks"),
    [
        ([], 100_000),
        (["steps=1000000"], 100_000),
        (["steps=60000", "num_actors=3"], 2_000),
        (["num_actors=4"], 25_000),
        (["steps=3", "num_actors=64"], 1),
    ],
)
def test_epsilon_decays_over_a_tenth_of_the_steps_of_all_actors(words, ticks):
    explore = settings("preset=paper", *words).explore
    assert explore.decay == ticks
    assert explore.chance(0) == 1.0
    assert explore.chance(ticks) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("word", "clip", "max_q"),
    [
        ("offline=hopper-medium-v2", 9.0, 1),
        ("offline=runs/data/walker2d-medium-regen.hdf5", 1.0, 1),
        ("task=antmaze-large-diverse", 7.0, 10),
        ("parent=runs/hopper", None, 1),
    ],
)
def test_paper_knows_the_clipping_and_the_backup_of_its_tasks(word, clip, max_q):
    learn = settings("preset=paper", word).learn
    assert (learn.grad_clip, learn.value.max_q) == (clip, max_q)


def test_robust_keeps_what_there_is():
    config = settings()
    learn = config.learn
    assert config.preset == "robust"
    assert learn.offline_share == 0.5
    assert learn.imitation > 0.0
    assert learn.critic.layer_norm
    assert learn.critic.count > 2 >= learn.subset > 0
    assert learn.warmup_steps > 0
    assert learn.critic_updates > learn.lesson_updates > 0
    assert not config.explore.active
    assert config.gate.on


def test_sac_from_scratch_is_plain():
    config = settings("learn.algorithm=sac", "num_actors=2")
    learn = config.learn
    assert learn.critic == CriticSettings(2, (256, 256), "relu", layer_norm=False)
    assert (learn.subset, learn.batch, learn.updates_per_step) == (0, 256, 1.0)
    assert (learn.actor_rate, learn.critic_rate, learn.grad_clip) == (3e-4, 3e-4, None)
    assert (learn.warmup_steps, learn.critic_updates) == (5_000, 0)
    assert learn.network.hidden == (256, 256)
    assert learn.served.every == NEWEST.every
    chances = [config.explore.chance(tick) for tick in (0, 2_499, 2_500)]
    assert chances == [1.0, 1.0, 0.0]
    assert config.act.temperature == 1.0
    assert (config.gate.on, config.gate.every) == (False, 250)


def test_sac_with_offline_data_is_rlpd():
    learn = settings("learn.algorithm=sac", "offline=hopper-medium-v2").learn
    assert learn.critic == CriticSettings(10, (256, 256), "relu", layer_norm=True)
    assert (learn.subset, learn.offline_share) == (2, 0.5)


def test_sac_from_a_bundle_does_not_begin_at_random():
    config = settings("learn.algorithm=sac", "parent=runs/sac/bundles")
    assert not config.explore.active
    assert config.gate.on
    assert config.learn.critic_updates > 0


@pytest.mark.parametrize("preset", ["paper", "robust"])
def test_what_is_written_lies_over_the_preset(preset):
    config = settings(
        f"preset={preset}",
        "learn.steps=3",
        "learn.value.tau=0.1",
        "explore.start=0.2",
        "explore.end=0.2",
    )
    assert (config.learn.steps, config.learn.value.tau, config.explore.end) == (3, 0.1, 0.2)
    assert config.learn.eta == settings(f"preset={preset}").learn.eta
    assert settings(f"preset={preset}", "learn.critic.count=7").learn.critic.count == 7


@pytest.mark.parametrize(
    "words",
    [["preset=paper", "steps=5000"], [], ["learn.algorithm=sac"], ["preset=paper", "act.steps=1"]],
)
def test_resolved_settings_are_read_back_as_they_are(words, tmp_path):
    file = tmp_path / "finetune.yaml"
    config = settings(*words)
    file.write_text(to_yaml(config))
    assert load(FinetuneConfig, file) == config


def test_paper_has_no_sac():
    with pytest.raises(ConfigError, match=r"preset paper.*learn.algorithm=sac; valid: consist"):
        settings("preset=paper", "learn.algorithm=sac")


@pytest.mark.parametrize("word", ["learn=3", "steps=many", "num_actors=0", "preset=bold"])
def test_what_is_wrong_is_said_by_those_who_check_it(word):
    with pytest.raises(ConfigError):
        settings("preset=paper", word)


def test_presets_need_no_torch():
    code = "import sys, policies.finetuning.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
