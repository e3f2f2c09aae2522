"""Restarting what died."""

import sys
import time
from itertools import pairwise

import pytest

from controller.keeper import Backoff, Keeper
from controller.process import Child, Supervisor


@pytest.mark.parametrize(
    ("lives_s", "pauses_s"),
    [
        ([0.0], [0.05]),
        ([1.0, 1.0, 1.0, 1.0], [0.05, 0.1, 0.2, 0.4]),
        ([0.0] * 9, [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]),
        ([1.0, 1.0, 60.0, 1.0], [0.05, 0.1, 0.05, 0.1]),
    ],
    ids=["first", "doubles", "bounded", "health is remembered"],
)
def test_pauses(lives_s, pauses_s):
    backoff = Backoff()
    assert [backoff.pause_s(lived) for lived in lives_s] == pytest.approx(pauses_s)


def test_pauses_stay_bounded_however_often_it_dies():
    backoff = Backoff(deaths=100_000)
    assert backoff.pause_s(0.0) == backoff.longest_s


def sleeper(seconds: float) -> Child:
    return Child([sys.executable, "-c", f"import time; time.sleep({seconds})"], "sleeper")


def died(keeper: Keeper) -> None:
    keeper.child.kill()
    assert keeper.child.wait(10.0) is not None


def test_it_is_started_again_after_the_pause_and_not_before():
    with Supervisor() as supervisor:
        keeper = Keeper(supervisor, lambda: sleeper(60))
        first = keeper.child
        keeper.look(0.0)
        died(keeper)
        keeper.look(1.0)
        keeper.look(1.049)
        assert keeper.child is first
        keeper.look(1.051)
        assert keeper.child is not first
        assert keeper.child.poll() is None
        assert keeper.restarts == 1
        assert supervisor.children == [keeper.child]
    assert keeper.child.poll() is not None


def test_one_that_dies_at_once_is_tried_ever_more_rarely():
    made: list[float] = []
    now = 0.0

    def make() -> Child:
        made.append(now)
        return Child([sys.executable, "-c", ""], "stillborn")

    with Supervisor() as supervisor:
        keeper = Keeper(supervisor, make)
        for _ in range(60):
            while keeper.child.poll() is None:
                time.sleep(0.001)
            now += 0.025
            keeper.look(now)
    gaps = [b - a for a, b in pairwise(made)]
    assert gaps == sorted(gaps)
    assert len(made) <= 6
