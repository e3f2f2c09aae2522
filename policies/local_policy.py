"""A policy that computes its answers in this process, one or several at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from controller.acting import AS_BUNDLED, ActSettings
from controller.interfaces import Clock
from controller.spec import Spec
from controller.transitions import flatten
from controller.types import ActionChunk, Array, Observation, Request
from policies.anytime import CostModel, Option, between, options_of
from policies.codec import Codec
from policies.make_sampler import Samplers
from policies.manifest import Draft, Manifest
from policies.model import ConsistencyModel, DiffusionModel
from policies.prefix import fits, known_of
from policies.way import Way

MAX_BATCH = 64
SIZES = (1, 4, 16, 64, 256, 1024)
"""Batches whose time is measured; that of others lies straight between."""
CALLS = 3
LONG_NS = 5_000_000
"""When one takes longer than this, larger batches are taken to be in proportion."""
CACHE_BYTES = 4 << 20
"""Written over before a time is measured: a loop asks when others have used the caches."""


class LocalPolicy:
    """A :class:`controller.interfaces.BatchPolicy`. Not for two threads at once.

    Args:
        about: what the policy is.
        codec: normalisation and limits.
        samplers: draw its actions.
        clock: measures ``infer_ns``, and is that of the requests' deadlines.
        act: how an action is chosen, where that is not left to the bundle.
        max_batch: most requests to be answered at once.

    Raises:
        BundleError: the policy cannot act as asked.
    """

    def __init__(
        self,
        about: Manifest | Draft,
        codec: Codec,
        samplers: Samplers,
        clock: Clock,
        act: ActSettings = AS_BUNDLED,
        max_batch: int = MAX_BATCH,
    ) -> None:
        self._spec, self._codec, self._clock = about.spec, codec, clock
        self._version = about.version if isinstance(about, Manifest) else ""
        self.horizon, self._max_batch = about.horizon, max_batch
        self._size = about.horizon * codec.action_size
        walks = about.horizon > 1 and isinstance(about.model, ConsistencyModel | DiffusionModel)
        self._members = act.prefix_draws if walks else 1
        self._samplers, self._settings = samplers, about.sampler.changed(act)
        best = samplers.of(self._settings)
        self._best = Option(best.steps, best.candidates)
        self._ways = {self._best: Way(0, best, self._size, self._members)}
        options: tuple[Option, ...] = (self._best,)
        if act.anytime:
            options = options_of(self._best, Option(act.min_steps, act.min_candidates))
        for place, option in enumerate(options[1:], 1):
            self._ways[option] = self._way(option, place)
        self._options = [self._ways[option] for option in options]
        self._reserve_ns = act.reserve_ms * 1e6
        # Costs stand in two columns: of the options without a prefix, and with one.
        self._costs = CostModel([[1.0]] * 2 * len(options))
        self._column = 0
        self._flat = len(about.spec.observation) == 1

    @property
    def spec(self) -> Spec:
        """The robot it was made for."""
        return self._spec

    @property
    def version(self) -> str:
        """Version of the policy."""
        return self._version

    @property
    def max_batch(self) -> int:
        """Most requests that it takes at once."""
        return self._max_batch

    @property
    def options(self) -> tuple[Option, ...]:
        """What it chooses from when time is short, best first."""
        return tuple(way.option for way in self._options)

    def expected_ns(self, batch: int) -> int:
        """Return how long the cheapest answer to ``batch`` requests is expected to take.

        With or without a prefix, as the request had that was answered last.
        """
        return int(self._costs.expected_ns(self._column + len(self._options) - 1, batch))

    def act(self, observation: Array | tuple[Array, ...], seed: int, tick: int) -> Array:
        """Return (H, *action shape) in plant units for one observation, flat or in arrays."""
        return self._act(self._options[0], observation, seed, tick, None)

    def is_clear(self, observation: Array, seed: int, tick: int) -> bool:
        """Return whether another engine is sure to take the same candidate."""
        best, condition = self._options[0], self._codec.encode_observation(observation)
        return best.sampler.is_clear(condition, *best.random(seed, tick))

    def infer(self, request: Request) -> ActionChunk:
        """Answer ``request``. Not finite where the observation is not.

        Raises:
            BundleError: it asks for steps or candidates that the policy does not have.
            DataError: its prefix holds no actions of this robot.
        """
        start_ns = self._clock.now_ns()
        way = self._chosen(request, request.deadline_ns, 1, start_ns)
        seen = request.observation.arrays
        actions = self._act(way, seen, request.seed, request.tick, request.prefix)
        took_ns = self._learn(way, 1, start_ns)
        return self._answer(request, actions, way.option, 1, took_ns)

    def infer_batch(self, requests: Sequence[Request]) -> list[ActionChunk | None]:
        """Answer 1 to ``max_batch`` requests in one computation, each with its own noise.

        One alone is answered as :meth:`infer` does, to the bit; rows of a batch agree with
        it to rounding. Requests that ask for steps or candidates, or bring a prefix, are
        computed apart. None answers a prefix that holds no actions of this robot.

        Raises:
            ValueError: no request, or more than ``max_batch``.
            BundleError: one asks for steps or candidates that the policy does not have.
        """
        if not 1 <= len(requests) <= self._max_batch:
            raise ValueError(f"{len(requests)} requests, expected 1 to {self._max_batch}")
        answers: list[ActionChunk | None] = [None] * len(requests)
        for way, places, start_ns in self._together(requests):
            some = [requests[place] for place in places]
            actions = self._act_all(way, some)
            took_ns = self._learn(way, len(some), start_ns)
            for place, request, rows in zip(places, some, actions, strict=True):
                answers[place] = self._answer(request, rows, way.option, len(some), took_ns)
        return answers

    def warm_up(self, calls: int = 20) -> None:
        """Answer made-up requests in every way, and learn what the ways cost.

        Args:
            calls: answers to one request, after which the first real one is not slow.
        """
        arrays = tuple(np.zeros(a.shape, a.dtype) for a in self._spec.observation)
        blank = Request(0, 0, Observation(arrays, 0), 0, 0)
        for tick in range(calls):
            self.infer(replace(blank, tick=tick))
        spans = [self._measured(way, blank) for way in self._options]
        if self.horizon > 1:
            rows = np.zeros((1, *self._codec.action_shape), self._codec.action_dtype)
            blank = replace(blank, prefix=rows)
            spans += [self._measured(way, blank) for way in self._options]
        self._costs, self._column = CostModel(spans), 0

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _measured(self, way: Way, blank: Request) -> list[float]:
        """Return nanoseconds for a batch of 1, 2, ... by one way."""
        others, times = np.zeros(CACHE_BYTES, np.uint8), []
        sizes = [size for size in SIZES if size < self._max_batch] + [self._max_batch]
        for size in sizes:
            requests, taken = [blank] * size, []
            self._act_all(way, requests)
            for _ in range(CALLS):
                others += 1
                start_ns = self._clock.now_ns()
                self._act_all(way, requests)
                taken.append(self._clock.now_ns() - start_ns)
            times.append(float(np.median(taken)))
            if times[-1] > LONG_NS:
                break
        return between(sizes[: len(times)], times)

    def _chosen(self, request: Request, deadline_ns: int, batch: int, now_ns: int) -> Way:
        count, begun = len(self._options), request.prefix is not None and len(request.prefix) > 0
        self._column = count if begun and self.horizon > 1 else 0
        if request.steps or request.candidates:
            return self._asked(request)
        if count == 1:
            return self._options[0]
        left_ns = deadline_ns - now_ns - self._reserve_ns
        among = range(self._column, self._column + count)
        return self._options[self._costs.best(left_ns, batch, among) - self._column]

    def _learn(self, way: Way, batch: int, start_ns: int) -> int:
        """Return what it took, having learned from it."""
        took_ns = self._clock.now_ns() - start_ns
        if way.place >= 0:
            self._costs.observe(self._column + way.place, batch, took_ns)
        return took_ns

    def _asked(self, request: Request) -> Way:
        best = self._best
        option = Option(request.steps or best.steps, request.candidates or best.candidates)
        if option not in self._ways:
            self._ways[option] = self._way(option, -1)
        return self._ways[option]

    def _way(self, option: Option, place: int) -> Way:
        settings = msgspec.structs.replace(self._settings, candidates=option.candidates)
        if option.steps != self._best.steps:
            settings = msgspec.structs.replace(settings, steps=option.steps, levels=None)
        return Way(place, self._samplers.of(settings), self._size, self._members)

    def _together(self, requests: Sequence[Request]) -> Iterator[tuple[Way, list[int], int]]:
        """Give the ways of answering, the requests answered by each, and when it begins."""
        groups: dict[tuple[int, int, bool], list[int]] = {}
        for place, request in enumerate(requests):
            prefix = request.prefix
            if prefix is None or fits(prefix, self._codec):
                begun = prefix is not None and len(prefix) > 0
                key = request.steps, request.candidates, begun
                groups.setdefault(key, []).append(place)
        for places in groups.values():
            start_ns, first = self._clock.now_ns(), requests[places[0]]
            deadline_ns = min(requests[place].deadline_ns for place in places)
            yield self._chosen(first, deadline_ns, len(places), start_ns), places, start_ns

    def _act(
        self,
        way: Way,
        observation: Array | tuple[Array, ...],
        seed: int,
        tick: int,
        prefix: Array | None,
    ) -> Array:
        codec = self._codec
        if self._flat and isinstance(observation, tuple):
            observation = observation[0].reshape(1, -1)
        condition = codec.encode_observation(observation)
        known = None if prefix is None else known_of([prefix], codec, self.horizon)
        if known is None:
            encoded = way.sampler(condition, *way.random(seed, tick))
        else:
            encoded = way.draw_each(condition, [(seed, tick)], known)
        if self.horizon > 1:
            encoded = encoded.reshape(self.horizon, -1)
        return _begun(codec.decode_action(encoded), prefix)

    def _act_all(self, way: Way, requests: Sequence[Request]) -> Array:
        """Return (B, H, *action shape)."""
        codec = self._codec
        seen = np.stack([flatten(request.observation.arrays) for request in requests])
        keys = [(request.seed, request.tick) for request in requests]
        known = known_of([request.prefix for request in requests], codec, self.horizon)
        encoded = way.draw_each(codec.encode_observation(seen), keys, known)
        actions = codec.decode_chunk(encoded)
        for rows, request in zip(actions, requests, strict=True):
            _begun(rows, request.prefix)
        return actions

    def _answer(
        self, request: Request, actions: Array, option: Option, batch: int, took_ns: int
    ) -> ActionChunk:
        prefix = request.prefix
        return ActionChunk(
            tick=request.tick,
            actions=actions,
            version=self._version,
            evaluations=option.steps,
            candidates=option.candidates,
            batch=batch,
            prefix=0 if prefix is None else min(len(prefix), self.horizon),
            infer_ns=took_ns,
        )


def _begun(actions: Array, prefix: Array | None) -> Array:
    """Return actions (H, ...) that begin with the rows of ``prefix`` themselves."""
    if prefix is not None and len(prefix):
        actions[: len(prefix)] = prefix[: len(actions)]
    return actions
