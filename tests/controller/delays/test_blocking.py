"""Ask, wait, command: how often, and what acts meanwhile."""

import math

import numpy as np
import pytest

from controller.clock import VirtualClock
from controller.delayed import DelayedPolicy
from controller.delays.blocking import play_blocking
from controller.types import ActionChunk
from sim.twin import TwinPlant
from tests.sim.plants import SPEC, Integrator

PERIOD = SPEC.period_ns
HOLD = 0.25
STEPS = 100


class Rows:
    """Answers with rows 1, 2, ... and remembers what it was asked about."""

    spec, version = SPEC, "rows"

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self.seen: list[tuple[int, int]] = []

    def infer(self, request):
        self.seen.append((request.observation.episode, request.observation.step))
        rows = np.arange(1.0, 1.0 + self.horizon).reshape(-1, 1)
        return ActionChunk(request.tick, rows, self.version)

    def close(self):
        pass


def play(delay_ns: int, horizon: int = 1, episodes: int = 1):
    clock, policy = VirtualClock(), Rows(horizon)
    plant = Integrator(episode_steps=STEPS)
    twin = TwinPlant(plant, clock)
    slow = DelayedPolicy(policy, clock, delay_ns)
    played = play_blocking(twin, slow, clock, seed=3, episodes=episodes)
    return played, plant, policy


def test_without_delay_every_step_has_its_own_answer():
    (played,), plant, policy = play(0)
    assert played.requests == STEPS
    assert played.last.truncated
    assert [step for _, step in policy.seen] == list(range(STEPS))
    assert [value for _, value in plant.taken] == [1.0] * STEPS


@pytest.mark.parametrize("periods", [1, 2, 5])
def test_a_delay_of_whole_periods_makes_it_slower_by_them(periods):
    (played,), plant, policy = play(periods * PERIOD)
    assert played.requests == math.ceil(STEPS / (periods + 1))
    assert [step for _, step in policy.seen][:3] == [0, periods + 1, 2 * (periods + 1)]
    assert [value for _, value in plant.taken][: periods + 2] == [HOLD] * periods + [1.0, 1.0]


def test_all_rows_of_a_chunk_act_and_the_last_holds_while_it_thinks():
    _, plant, _ = play(2 * PERIOD, horizon=3)
    values = [value for _, value in plant.taken]
    assert values[:12] == [HOLD, HOLD, 1.0, 2.0, 3.0, 3.0, 3.0, 1.0, 2.0, 3.0, 3.0, 3.0]


def test_episodes_have_seeds_of_their_own():
    played, plant, policy = play(0, episodes=3)
    assert len(played) == 3
    assert plant.seeds == [None, 3, 4, 5]
    assert {episode for episode, _ in policy.seen} == {1, 2, 3}
