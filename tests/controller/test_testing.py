"""The conformance kits must pass what is right and catch each single fault."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from controller.clock import VirtualClock
from controller.errors import PlantLost, Refused
from controller.interfaces import Plant, Policy, Sink
from controller.testing import (
    FakePlant,
    FakePolicy,
    FakeRealTimePlant,
    ListSink,
    check_plant,
    check_policy,
    example_spec,
)
from controller.types import Request

MS = 1_000_000


def observation():
    plant = FakePlant()
    plant.reset(0)
    return plant.observe()


def test_fakes_are_of_the_types_they_stand_for():
    assert isinstance(FakePlant(), Plant)
    assert isinstance(FakeRealTimePlant(VirtualClock()), Plant)
    assert isinstance(FakePolicy(), Policy)
    assert isinstance(ListSink(), Sink)


@pytest.mark.parametrize("options", [{}, {"episode_steps": 4}, {"terminate_at": 3}])
def test_the_fake_plant_conforms(options):
    check_plant(lambda: FakePlant(**options))


def test_the_fake_real_time_plant_conforms():
    clock = VirtualClock()

    class Moving(FakeRealTimePlant):
        def observe(self):
            clock.advance(10 * MS)
            return super().observe()

    check_plant(lambda: Moving(clock), lockstep=False)


@pytest.mark.parametrize("horizon", [1, 4])
def test_the_fake_policy_conforms(horizon):
    check_policy(FakePolicy(horizon=horizon), observation())


def test_dynamics_by_hand():
    plant = FakePlant(episode_steps=2)
    plant.reset(5)
    start = plant.observe()
    plant.command(np.array([0.5, -1.0], np.float32), 7)
    after = plant.observe()
    assert np.allclose(after.arrays[0] - start.arrays[0], [0.005, -0.01])
    assert after.reward == -np.linalg.norm(after.arrays[0] - after.arrays[1])
    assert (after.step, after.applied_tick, after.done) == (1, 7, False)
    plant.command(np.zeros(2, np.float32), 8)
    assert plant.observe().truncated
    assert plant.observe().episode_return == pytest.approx(2 * after.reward)


def test_faults_of_the_fake_plant():
    plant = FakePlant(faults={1: "lost", 2: "stall", 3: "nan", 4: "drop"})
    plant.reset(0)
    plant.observe()
    move = np.ones(2, np.float32)
    plant.command(move, 0)
    with pytest.raises(PlantLost):
        plant.observe()
    plant.command(move, 1)
    assert plant.observe().step == 0
    plant.command(move, 2)
    assert np.isnan(plant.observe().arrays[0]).all()
    plant.command(move, 3)
    plant.command(move, 4)
    assert plant.observe().step == 4
    assert [tick for tick, _ in plant.commands] == [0, 1, 2, 3, 4]


def test_the_fake_real_time_plant_follows_the_clock():
    clock = VirtualClock()
    plant = FakeRealTimePlant(clock, episode_steps=5, reset_periods=3)
    clock.advance(25 * MS)
    observation = plant.observe()
    assert (observation.step, observation.stamp_ns) == (3, 20 * MS)
    clock.advance(100 * MS)
    assert (plant.observe().step, plant.observe().done) == (5, True)
    plant.reset(1)
    clock.advance(29 * MS)
    assert plant.observe().episode == 0
    clock.advance(6 * MS)
    assert (plant.observe().episode, plant.observe().step) == (1, 0)


def test_policy_noise_is_a_function_of_seed_and_tick():
    seen = observation()
    policy, other = FakePolicy(), FakePolicy()
    actions = [
        p.infer(Request(tick, seed, seen, 0, 0)).actions.tobytes()
        for p, seed, tick in [(policy, 1, 2), (other, 1, 2), (policy, 1, 3), (policy, 2, 2)]
    ]
    assert actions[0] == actions[1]
    assert len(set(actions)) == 3


def test_a_full_sink_drops():
    sink = ListSink(capacity=0)
    assert sink.tick(None) is False


class Wrong(FakePlant):
    """A plant with one fault in its observations or its behaviour."""

    fault = ""

    def observe(self):
        right = super().observe()
        changed = {
            "extra array": lambda: replace(right, arrays=(*right.arrays, np.zeros(1))),
            "shape": lambda: replace(right, arrays=(np.zeros(3), right.arrays[1])),
            "dtype": lambda: replace(
                right, arrays=tuple(a.astype(np.float32) for a in right.arrays)
            ),
            "writeable": lambda: replace(right, arrays=tuple(a.copy() for a in right.arrays)),
            "both flags": lambda: replace(right, terminated=True, truncated=True),
            "step": lambda: replace(right, step=2 * right.step),
            "first step": lambda: replace(right, step=right.step + 1),
            "episode": lambda: replace(right, episode=0),
            "return": lambda: replace(right, episode_return=1.0 + right.step),
            "reward": lambda: replace(right, reward=np.nan),
            "success": lambda: replace(right, success=right.step % 2 == 0),
            "applied": lambda: replace(right, applied_tick=-1),
            "random": lambda: replace(right, arrays=self._shaken(right.arrays)),
            "not finite": lambda: replace(right, arrays=self._shaken(right.arrays, np.nan)),
        }
        return changed.get(self.fault, lambda: right)()

    def _shaken(self, arrays, size=1e-9):
        moved = arrays[0] + size * id(self)
        moved.flags.writeable = False
        return (moved, arrays[1])

    def command(self, action, tick):
        if self.fault == "writes into the action":
            action[:] = 0.0
        if self.fault == "aliasing" and self._now is not None:
            self._now.arrays[0].flags.writeable = True
            self._now.arrays[0][:] += 1.0
            self._now.arrays[0].flags.writeable = False
        super().command(action, tick)

    def close(self):
        if self.fault == "close" and self._closed:
            raise RuntimeError("closed twice")
        super().close()


PLANT_FAULTS = {
    "extra array": "has 3 arrays, expected 2",
    "shape": r"position has shape \(3,\), expected \(2,\)",
    "dtype": "position is float32, expected float64",
    "writeable": "position is not read-only",
    "both flags": "both terminated and truncated",
    "step": "step is 2 after a command at 0",
    "first step": "step is 1 after a reset",
    "episode": "episode is 0 after the reset of 0",
    "return": "return is not 0 after a reset",
    "reward": "reward not finite",
    "success": "success was lost",
    "applied": "applied_tick is -1, expected 0",
    "random": "another plant went another way",
    "not finite": "position is not finite",
    "aliasing": "a step changed the observation before it",
}


@pytest.mark.parametrize(("fault", "message"), PLANT_FAULTS.items())
def test_the_kit_finds_a_wrong_plant(fault, message):
    kind = type("WrongPlant", (Wrong,), {"fault": fault})
    made = []  # Kept alive, so that no two have the same id.
    with pytest.raises(AssertionError, match=message):
        check_plant(lambda: made.append(kind(episode_steps=7)) or made[-1])


def test_the_kit_finds_an_observation_beyond_its_limits():
    spec = example_spec()
    position = msgspec.structs.replace(spec.observation[0], low=(0.99, None))
    narrow = msgspec.structs.replace(spec, observation=(position, spec.observation[1]))
    with pytest.raises(AssertionError, match="position leaves its limits"):
        check_plant(lambda: FakePlant(narrow))


@pytest.mark.parametrize(
    ("fault", "error"), [("writes into the action", ValueError), ("close", RuntimeError)]
)
def test_the_kit_lets_a_plant_run_into_its_own_error(fault, error):
    kind = type("WrongPlant", (Wrong,), {"fault": fault})
    with pytest.raises(error):
        check_plant(kind)


class Forgetful(FakePolicy):
    def infer(self, request):
        return super().infer(replace(request, seed=len(self.requests)))


class Nameless(FakePolicy):
    def infer(self, request):
        return replace(super().infer(request), version="")


class Meddling(FakePolicy):
    def infer(self, request):
        answer = super().infer(request)
        array = request.observation.arrays[0]
        array.flags.writeable = True
        array[:] += 1.0
        return replace(answer, actions=np.zeros((1, 2), np.float32))


class Undead(FakePolicy):
    def close(self):
        pass


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (FakePolicy(outcomes={3: "late"}), "no answer to tick 3"),
        (FakePolicy(outcomes={4: "tick"}), "answer to tick 3, asked at 4"),
        (FakePolicy(outcomes={3: "nan"}), "not finite"),
        (FakePolicy(outcomes={1000: "shape"}), r"expected \(horizon, \*\(2,\)\) float32"),
        (FakePolicy(outcomes={3: "dtype"}), "float64, expected"),
        (Forgetful(), "two answers to the same observation, seed and tick differ"),
        (Nameless(), "carries no version"),
        (Meddling(), "changed the observation"),
        (Undead(), "a closed policy answered"),
    ],
)
def test_the_kit_finds_a_wrong_policy(policy, message):
    with pytest.raises(AssertionError, match=message):
        check_policy(policy, observation())


def test_a_closed_policy_refuses():
    policy = FakePolicy()
    policy.close()
    with pytest.raises(Refused):
        policy.infer(Request(0, 0, observation(), 0, 0))


def test_the_example_spec_takes_any_rate():
    assert example_spec(50.0).period_ns == 20 * MS
