"""What surrounds a run of learning: how fast it goes, and torch's own settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from controller.interfaces import Clock


class Stopwatch:
    """Updates per second since it was made.

    Args:
        clock: measures.
        count: updates done before.
    """

    def __init__(self, clock: Clock, count: int = 0) -> None:
        self._clock, self._count, self._start_ns = clock, count, clock.now_ns()
        self._out_ns = 0

    def rate(self, count: int) -> float:
        """Return updates per second, 0 before any time has passed."""
        elapsed_ns = self._clock.now_ns() - self._start_ns - self._out_ns
        return (count - self._count) / (elapsed_ns / 1e9) if elapsed_ns > 0 else 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens inside: a bundle, an evaluation."""
        start_ns = self._clock.now_ns()
        yield
        self._out_ns += self._clock.now_ns() - start_ns


@contextmanager
def torch_settings(seed: int, threads: int) -> Iterator[None]:
    """Seed torch and set its threads inside; leave both as they were outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
