"""Seeded faults in lockstep, against what they must do by hand; see test_held and test_server."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.conformance import check_plant
from controller.fault_settings import FaultsConfig
from controller.spec import ArraySpec, Spec
from controller.testing import FakePlant, example_spec
from controller.types import Observation
from sim.errors import ActionMismatch
from sim.faults import Channel, FaultyPlant, Sensors, faulty
from sim.registry import make_plant

S = 1_000_000_000
EVERYTHING = FaultsConfig(
    observation_delay_s=0.02,
    action_delay_s=0.01,
    jitter_s=0.03,
    observation_loss=0.2,
    action_loss=0.2,
    noise=0.01,
    relative_noise=0.05,
    freeze=0.05,
    freeze_s=0.05,
    seed=4,
)


def test_without_faults_the_plant_is_the_bare_one():
    plant = FakePlant()
    assert faulty(plant, FaultsConfig(freeze_s=3.0, seed=9)) is plant
    assert FaultsConfig(seed=9).facts() == {}
    assert isinstance(faulty(plant, FaultsConfig(noise=0.1)), FaultyPlant)


def test_settings_as_words_and_facts():
    config = FaultsConfig(action_delay_s=0.02, freeze=0.1, seed=3)
    assert config.words() == ["faults.action_delay_s=0.02", "faults.freeze=0.1", "faults.seed=3"]
    assert config.facts() == {"action_delay_s": 0.02, "freeze": 0.1, "freeze_s": 0.5, "seed": 3}
    assert FaultsConfig().words() == []


# A line.


def line(delay_s=0.0, jitter_s=0.0, loss=0.0, grid_ns=1, seed=0):
    channel = Channel(delay_s, jitter_s, loss, grid_ns)
    channel.begin(np.random.default_rng(seed))
    return channel


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0, 2), st.floats(0, 2), st.lists(st.integers(0, S), max_size=30), st.integers(0, 99)
)
def test_nothing_overtakes_and_nothing_is_early_or_too_late(delay_s, jitter_s, gaps_ns, seed):
    channel, sent = line(delay_s, jitter_s, seed=seed), np.cumsum(gaps_ns, dtype=np.int64).tolist()
    arrived, latest_ns = [], 0
    for number, now_ns in enumerate(sent):
        channel.send(number, now_ns)
        while channel.next_ns is not None and channel.next_ns <= now_ns:
            latest_ns = max(latest_ns, channel.next_ns)
            arrived += [(one, latest_ns) for one in channel.arrived(latest_ns)]
    while channel.next_ns is not None:
        assert list(channel.arrived(channel.next_ns - 1)) == []
        latest_ns = max(latest_ns, channel.next_ns)
        arrived += [(one, latest_ns) for one in channel.arrived(latest_ns)]
    assert [number for number, _ in arrived] == list(range(len(sent)))
    before_ns = 0
    for number, at_ns in arrived:
        under_way_ns = at_ns - sent[number]
        assert under_way_ns >= round(delay_s * S) - 1
        assert under_way_ns <= round((delay_s + jitter_s) * S) + 1 or at_ns == before_ns
        before_ns = at_ns


def test_jitter_is_even_and_losses_are_as_often_as_said():
    channel, count = line(0.1, 0.2, 0.25), 4000
    under_way = []
    for number in range(count):
        channel.send(number, number * S)
        due_ns = channel.next_ns
        if due_ns is not None:
            under_way.append((due_ns - number * S) / S)
            channel.clear()
    assert channel.lost == pytest.approx(count / 4, abs=4 * np.sqrt(count * 3 / 16))
    assert len(under_way) == count - channel.lost
    assert 0.1 <= min(under_way) <= max(under_way) <= 0.3
    assert np.mean(under_way) == pytest.approx(0.2, abs=4 * 0.2 / np.sqrt(12 * len(under_way)))


@pytest.mark.parametrize(
    ("delay_s", "steps"), [(0.0, 0), (0.004, 0), (0.006, 1), (0.01, 1), (0.024, 2), (0.026, 3)]
)
def test_in_lockstep_delays_are_rounded_to_steps(delay_s, steps):
    channel = line(delay_s, grid_ns=10_000_000)
    channel.send("x", 50_000_000)
    assert channel.next_ns == 50_000_000 + steps * 10_000_000


def test_one_fault_more_does_not_change_when_the_others_strike():
    """The same messages are lost with jitter and without."""

    def lost(jitter_s):
        channel = line(0.0, jitter_s, 0.5)
        for number in range(100):
            channel.send(number, number * S)
        return set(range(100)) - set(channel.arrived(10**12))

    assert 30 < len(lost(0.0)) < 70
    assert lost(0.0) == lost(0.3)


# Sensors.


def sensors(spec=None, **config):
    made = Sensors(FaultsConfig(**config), spec or example_spec())
    made.begin(np.random.default_rng(1), np.random.default_rng(2))
    return made


def test_noise_has_the_spread_that_was_asked_for():
    """0.3 in the unit of the number and a fifth of its magnitude add in quadrature."""
    made, true = sensors(noise=0.3, relative_noise=0.2), (np.array([0.0, 2.0]), np.zeros(2))
    read = np.array([made.read(true)[0] for _ in range(4000)])
    spread = np.array([0.3, np.hypot(0.3, 0.4)])
    assert read.std(axis=0) == pytest.approx(spread, rel=4 / np.sqrt(2 * 4000))
    assert read.mean(axis=0) == pytest.approx([0.0, 2.0], abs=4 * 0.5 / np.sqrt(4000))


def test_noise_keeps_type_shape_and_limits():
    spec = Spec(
        task="x",
        observation=(
            ArraySpec("picture", (2, 2), "uint8"),
            ArraySpec("small", (3,), "float32", low=(-0.1,) * 3, high=(0.1,) * 3),
            ArraySpec("height", (), "float64"),
        ),
        action=ArraySpec("a", (1,)),
        rate_hz=10.0,
    )
    true = (np.full((2, 2), 250, np.uint8), np.full(3, 0.1, np.float32), np.array(1.0))
    made = sensors(spec, noise=20.0)
    for _ in range(50):
        for read, array, wanted in zip(made.read(true), true, spec.observation, strict=True):
            assert (read.dtype, read.shape) == (array.dtype, array.shape)
            assert not read.flags.writeable
            low, high = wanted.bounds()
            assert ((read >= low) & (read <= high)).all()
    assert len(np.unique([made.read(true)[0] for _ in range(20)])) > 10


def test_frozen_sensors_repeat_what_they_showed_last():
    """At 100 Hz and freeze_s=0.05 every freeze shows one reading six times."""
    made = sensors(freeze=0.05, freeze_s=0.05)
    shown = [float(made.read((np.full(2, n), np.zeros(2)))[0][0]) for n in range(2000)]
    changes = np.flatnonzero(np.diff(shown)) + 1
    runs = np.diff(np.concatenate([[0], changes, [2000]]))
    assert set(runs.tolist()[:-1]) <= {1, 6, 11, 16, 21}
    frozen = sum(run > 1 for run in runs)
    assert frozen == pytest.approx(2000 * 0.05 / (1 + 0.05 * 5), abs=4 * np.sqrt(80))
    assert shown[0] == 0.0, "there is nothing to repeat at first"


# A plant.


class Echo:
    """Observes the number of its step; rewards with the action it got."""

    spec = Spec("echo", (ArraySpec("step", (1,)),), ArraySpec("a", (1,), low=(1.0,)), 100.0)

    def __init__(self):
        self.now, self.got = None, []

    def reset(self, seed=None):
        episode = 0 if self.now is None else self.now.episode + 1
        self.now = Observation((np.zeros(1),), 0, episode)

    def observe(self):
        return self.now

    def command(self, action, tick):
        self.got.append((tick, float(action[0])))
        step = self.now.step + 1
        self.now = Observation(
            (np.array([float(step)]),), step * 10_000_000, self.now.episode, step,
            float(action[0]), self.now.episode_return + float(action[0]), applied_tick=tick,
        )  # fmt: skip

    def close(self):
        pass


def driven(steps, **config):
    plant = FaultyPlant(Echo(), FaultsConfig(**config))
    plant.reset(5)
    seen = [plant.observe()]
    for tick in range(steps):
        plant.command(np.array([10.0 + tick]), tick)
        seen.append(plant.observe())
    return plant, seen


def test_a_delayed_action_acts_whole_steps_later_and_the_rest_before_it():
    plant, seen = driven(6, action_delay_s=0.02)
    assert plant._plant.got == [(-1, 1.0), (-1, 1.0), (0, 10.0), (1, 11.0), (2, 12.0), (3, 13.0)]
    assert [one.applied_tick for one in seen] == [-1, -1, -1, 0, 1, 2, 3]
    assert [one.reward for one in seen[1:]] == [1.0, 1.0, 10.0, 11.0, 12.0, 13.0]


def test_a_delayed_observation_is_old_but_the_referee_is_not():
    _, seen = driven(6, observation_delay_s=0.03)
    assert [float(one.arrays[0][0]) for one in seen] == [0, 0, 0, 0, 1, 2, 3]
    assert [one.stamp_ns // 10_000_000 for one in seen] == [0, 0, 0, 0, 1, 2, 3]
    assert [one.step for one in seen] == list(range(7))
    assert [one.reward for one in seen[1:]] == [10.0 + tick for tick in range(6)]


def test_the_first_observation_of_an_episode_is_always_there():
    plant, _ = driven(5, observation_delay_s=0.5, observation_loss=0.9)
    plant.reset(6)
    assert plant.observe().episode == 1
    assert (plant.observe().step, plant.observe().arrays[0]) == (0, 0.0)


def test_nothing_survives_a_reset():
    plant, _ = driven(5, action_delay_s=0.03)
    plant.reset(6)
    plant.command(np.array([99.0]), 50)
    assert plant._plant.got[-1] == (-1, 1.0)


def test_a_lost_action_leaves_the_one_before_it():
    _, seen = driven(300, action_loss=0.5)
    applied = [one.applied_tick for one in seen[1:]]
    assert applied == sorted(applied)
    kept = sum(now == tick for tick, now in enumerate(applied))
    assert kept == pytest.approx(150, abs=4 * np.sqrt(75))


def test_a_bad_action_is_refused_when_it_is_given():
    plant, _ = driven(0, action_delay_s=0.05)
    for bad in (np.zeros(2), np.array([np.nan])):
        with pytest.raises(ActionMismatch, match="expected finite numbers of shape"):
            plant.command(bad, 0)


@pytest.mark.parametrize(
    "config",
    [EVERYTHING]
    + [
        FaultsConfig(**{name: getattr(EVERYTHING, name), "freeze_s": 0.05, "seed": 4})
        for name in ("action_delay_s", "jitter_s", "action_loss", "noise", "freeze")
    ],
)
def test_the_same_seed_gives_the_same_faults_bit_for_bit(config):
    check_plant(lambda: faulty(FakePlant(), config), prompt=False, steps=60)


def test_a_simulated_task_under_every_fault_is_a_plant():
    make = lambda: faulty(make_plant("pointmaze-medium", episode_steps=20), EVERYTHING)  # noqa: E731
    check_plant(make, prompt=False, steps=40)


@pytest.mark.parametrize("change", [{"seed": 5}, {"noise": 0.02}])
def test_another_seed_or_setting_gives_other_faults(change):
    def trace(config):
        plant = faulty(FakePlant(), config)
        plant.reset(1)
        for tick in range(15):
            plant.command(np.ones(2, np.float32), tick)
        return plant.observe().arrays[0].tolist()

    assert trace(EVERYTHING) == trace(EVERYTHING)
    assert trace(EVERYTHING) != trace(msgspec.structs.replace(EVERYTHING, **change))


def test_episodes_without_seeds_have_faults_of_their_own():
    plant = FaultyPlant(Echo(), FaultsConfig(noise=1.0))
    shown = []
    for _ in range(3):
        plant.reset()
        shown.append(float(plant.observe().arrays[0][0]))
    assert len(set(shown)) == 3
