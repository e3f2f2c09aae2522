"""The common way to use a policy server: ask, wait, command, and ask again."""

from __future__ import annotations

from dataclasses import dataclass

from controller.clock import VirtualClock
from controller.interfaces import Plant, Policy
from controller.loop import episode_seed
from controller.types import Observation, Request

NEVER_NS = 2**62


@dataclass(frozen=True, slots=True)
class Played:
    """One episode: its last observation, and how many requests it took."""

    last: Observation
    requests: int


def play_blocking(
    plant: Plant, policy: Policy, clock: VirtualClock, seed: int, episodes: int
) -> list[Played]:
    """Play episodes on a plant whose time goes on while the policy thinks.

    Every row of an answer acts for one period of the plant, the last one until the next answer
    comes. The first command of an episode comes with its first answer; the plant holds until
    then.

    Args:
        plant: follows ``clock``.
        policy: its ``infer`` takes time on ``clock``.
        clock: virtual time.
        seed: of the episodes and of the policy's noise.
        episodes: how many.
    """
    period_ns = plant.spec.period_ns
    played: list[Played] = []
    tick = 0
    for number in range(episodes):
        awaited = plant.observe().episode + 1
        plant.reset(episode_seed(seed, number))
        while (seen := plant.observe()).episode < awaited:
            clock.advance(period_ns)
        requests = 0
        while not seen.done:
            chunk = policy.infer(Request(tick, seed, seen, 0, NEVER_NS))
            assert chunk is not None, "a policy in this process answers in the end"
            requests += 1
            for action in chunk.actions:
                plant.command(action, tick)
                clock.advance(period_ns)
                tick += 1
            seen = plant.observe()
        played.append(Played(seen, requests))
    return played
