"""Doing updates: one by one, or on CUDA as captured graphs; and noticing when they go wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from policies.algos.learner import Figures, Learner, Variant
from policies.table import Table

log = logging.getLogger(__name__)

WARM_UPS = 3
"""Updates that are done before one is captured: libraries choose their algorithms in them."""


class Stepper(Protocol):
    """Does updates."""

    @property
    def rows(self) -> Tensor:
        """(R, B) rows of the last update."""
        ...

    def __call__(self, step: int) -> Figures:
        """Do update ``step`` and return its figures; they are overwritten by the next."""
        ...


class Plain:
    """Operation by operation.

    Args:
        learner: learns.
        table: from this.
        batch: B.
    """

    def __init__(self, learner: Learner, table: Table, batch: int) -> None:
        self.learner, self._table = learner, table
        self._rows = torch.zeros(
            (len(learner.sizes.seeds), batch), dtype=torch.int64, device=learner.sizes.device
        )

    @property
    def rows(self) -> Tensor:
        """(R, B) rows of the last update."""
        return self._rows

    def __call__(self, step: int) -> Figures:
        """Do update ``step``."""
        return self.update(self.learner.prepare(step))

    def update(self, variant: Variant) -> Figures:
        """Draw rows and do an update of this variant."""
        rows, generator = self._rows, self.learner.generator
        torch.randint(len(self._table), rows.shape, generator=generator, out=rows)
        return self.learner.update(self._table.take(rows), variant)


class Captured:
    """Whole updates as CUDA graphs, one for each variant: the host launches one thing.

    At these sizes a GPU waits for the launches of hundreds of small operations otherwise.

    Args:
        plain: does the updates to capture.
    """

    def __init__(self, plain: Plain) -> None:
        self._plain = plain
        self._graphs: dict[Variant, tuple[torch.cuda.CUDAGraph, Figures]] = {}
        self._seen: dict[Variant, int] = {}
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    @property
    def rows(self) -> Tensor:
        """(R, B) rows of the last update."""
        return self._plain.rows

    def __call__(self, step: int) -> Figures:
        """Do update ``step``."""
        variant = self._plain.learner.prepare(step)
        known = self._graphs.get(variant)
        if known is not None:
            known[0].replay()
            return known[1]
        seen = self._seen.get(variant, 0)
        self._seen[variant] = seen + 1
        if seen < WARM_UPS:
            return self._aside(lambda: self._plain.update(variant))
        self._graphs[variant] = self._capture(variant)
        graph, figures = self._graphs[variant]
        graph.replay()
        return figures

    def _aside(self, act: Callable[[], Figures]) -> Figures:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            figures = act()
        torch.cuda.current_stream().wait_stream(self._stream)
        return figures

    def _capture(self, variant: Variant) -> tuple[torch.cuda.CUDAGraph, Figures]:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._plain.learner.generator)
        with torch.cuda.graph(graph, stream=self._stream):
            figures = self._plain.update(variant)
        return graph, figures


def make_stepper(learner: Learner, table: Table, batch: int) -> Stepper:
    """Return what does the updates of ``learner`` best where it lives."""
    plain = Plain(learner, table, batch)
    return Captured(plain) if learner.sizes.device == "cuda" else plain
