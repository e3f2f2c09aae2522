"""A server that answers observations with actions, for many robots and of several policies."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from typing import Any

from controller.array_frames import unpack, unpack_chunk
from controller.clock import MonotonicClock
from controller.errors import WireError
from controller.interfaces import Clock, Policy
from controller.keys import ServerKeys
from controller.reception import MAX_RATE_HZ, Delivery, Reception
from controller.safety import is_finite
from controller.types import Array, Observation, Request
from controller.wire import Ask, Bye, Control, one_line
from policies.serving.answering import Answering
from policies.serving.changes import Changes
from policies.serving.clients import Clients
from policies.serving.counts import BOUNDS_NS
from policies.serving.desk import Desk
from policies.serving.schedule import Schedule
from policies.serving.service import Service
from policies.serving.swap import Load
from policies.serving.trials import NoAnswer, try_out

logger = logging.getLogger(__name__)

POLL_NS = 50_000_000
SWAP_POLL_NS = 2_000_000
LOOK = 128
"""Messages looked at before each turn: one of every client that may have a session."""
FAREWELL_NS = 50_000_000
"""After the last answer, for the sockets to send it and for newcomers to be told."""


class PolicyServer:
    """Answers each client's newest request, the earliest deadline first, several at once.

    A request that cannot be met is rejected rather than answered: late data looks like fresh
    data. A policy that fails costs its client that tick, and nobody else anything.

    Args:
        policies: what answers at first, by the names that clients use; the first answers those
            that name none.
        endpoint: address to bind.
        clock: time.
        load: makes a policy from the path of a bundle, for ``swap`` and ``canary``; called in a
            thread.
        keys: needed beyond loopback.
        max_rate_hz: messages per second and client; what is more is dropped.

    Attributes:
        endpoint: the bound address.

    Raises:
        ConfigError: see :func:`controller.endpoints.check_endpoint`.
        EndpointInUse: another server is bound there.
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        endpoint: str,
        clock: Clock,
        load: Load,
        *,
        keys: ServerKeys | None = None,
        max_rate_hz: float = MAX_RATE_HZ,
    ) -> None:
        self._clock, self._began_ns = clock, clock.now_ns()
        self._services = {name: Service(name, one, clock) for name, one in policies.items()}
        self._reception = Reception(
            endpoint,
            "policy",
            {name: service.spec for name, service in self._services.items()},
            clock,
            lambda name: self._services[name].version,
            keys=keys,
            max_rate_hz=max_rate_hz,
        )
        self.endpoint = self._reception.endpoint
        self._schedule, self._clients = Schedule(), Clients(self._reception.name)
        self._changes = Changes(self._schedule, load, clock, self._report)
        self._answering = Answering(self._reception, self._schedule, self._clients, clock)
        facts = {"ready": self._ready, "stats": self._stats, "metrics": self._metrics}
        self._desk = Desk(self._services, self._changes, self._report, facts)

    def run(self, should_stop: Callable[[], bool], drain_s: float = 2.0) -> None:
        """Serve until ``should_stop()``, asked at least every 50 ms; then leave in order.

        What waits then is answered, new requests and sessions are turned away with
        ``draining``, and the address is free within ``drain_s``. All policies are closed.
        """
        try:
            self.warm_up()
            while not should_stop():
                self.turn(POLL_NS)
            self._drain(round(drain_s * 1e9))
        finally:
            self.close()

    def warm_up(self) -> None:
        """Have every policy answer a few made-up requests before the first real one."""
        for service in self._services.values():
            try:
                try_out(service.lane.policy, service.arrays, self._clock, service.post.batches)
            except Exception as error:  # It may still answer real observations.
                reason = one_line(f"{type(error).__name__}: {error}")
                logger.warning("warm-up: %s", reason)
        # What was loaded so far lives as long as the server: a collection need not look at it.
        gc.collect()
        gc.freeze()

    def turn(self, patience_ns: int) -> None:
        """Take in what came, waiting up to ``patience_ns`` if nothing is to do; answer once."""
        curious = self._curious()
        if len(self._schedule) or curious:
            patience_ns = 0
        elif self._changes.loading:
            patience_ns = min(patience_ns, SWAP_POLL_NS)
        for delivery in self._reception.deliveries(patience_ns, LOOK):
            self._handle(delivery)
        self._changes.finish()
        for service in self._services.values():
            if service.canary is not None:
                self._changes.judge(service)
        if len(self._schedule):
            turn = self._schedule.take(self._clock.now_ns())
            for waiting in turn.shed:
                self._answering.shed(waiting)
            if turn.batch:
                self._answering.answer(turn.batch)
        elif curious is not None and curious.canary is not None:
            curious.canary.compare(curious.lane.policy)

    def stats(self, policy: str = "") -> dict[str, Any]:
        """Return counters since the start and figures of the newest requests of one policy."""
        return self._stats(self._services[policy or next(iter(self._services))])

    def close(self) -> None:
        """Free the address and release all policies; safe to call twice."""
        self._reception.close()
        for service in self._services.values():
            service.close()

    def _drain(self, limit_ns: int) -> None:
        self.turn(0)
        self._reception.draining = True
        until_ns = _WALL.now_ns() + limit_ns
        farewell_ns = _WALL.now_ns() + FAREWELL_NS
        while (now_ns := _WALL.now_ns()) < min(farewell_ns, until_ns):
            if len(self._schedule):
                farewell_ns = now_ns + FAREWELL_NS
            self.turn(FAREWELL_NS // 10)

    def _curious(self) -> Service | None:
        """Return a policy with a version on trial that wants to be compared."""
        for service in self._services.values():
            if service.canary is not None and service.canary.curious:
                return service
        return None

    def _handle(self, delivery: Delivery) -> None:
        identity, message = delivery.identity, delivery.message
        if isinstance(message, Ask):
            self._take(message, delivery)
        elif isinstance(message, Control):
            self._desk.serve(identity, message)
        elif isinstance(message, Bye):
            self._schedule.drop(identity)
        else:
            self._reception.refuse(identity, f"a policy has no use for {type(message).__name__}")

    def _take(self, ask: Ask, delivery: Delivery) -> None:
        identity, service = delivery.identity, self._services[delivery.policy]
        client = self._clients.of(identity)
        client.asked += 1
        service.counts.requests += 1
        try:
            if self._reception.draining:
                raise NoAnswer("draining", "the server is about to end")
            request = _request(ask, delivery, service)
        except (NoAnswer, WireError) as error:
            code = error.code if isinstance(error, NoAnswer) else "malformed"
            self._answering.refuse(service, identity, ask.tick, code, str(error))
            return
        lane = service.lane_for(identity, delivery.arrived_ns)
        older = self._schedule.put(identity, lane, request, delivery.arrived_ns)
        if older is not None:
            client.superseded += 1
            detail = "a newer request came"
            self._answering.reject(service, identity, older.request.tick, "superseded", detail)

    def _report(self, identity: bytes, verb: str, ok: bool, detail: dict[str, Any]) -> None:
        try:
            self._reception.report(identity, verb, ok, detail)
        except WireError as error:
            self._reception.report(identity, verb, False, {"reason": one_line(str(error))})

    def _ready(self, service: Service) -> dict[str, Any]:
        return {
            "version": service.version,
            "spec": service.spec.digest(),
            "task": service.spec.task,
            "policy": service.name,
            "policies": {name: one.version for name, one in self._services.items()},
            "draining": self._reception.draining,
        }

    def _stats(self, service: Service) -> dict[str, Any]:
        return {
            **service.facts(),
            "malformed": self._reception.malformed,
            "dropped": self._reception.dropped,
            "sessions": len(self._reception.guests("policy")),
            "policies": {name: one.version for name, one in self._services.items()},
            "fairness": self._clients.fairness(),
            "clients": self._clients.facts(),
        }

    def _metrics(self, service: Service) -> dict[str, Any]:
        return {
            "up_ns": self._clock.now_ns() - self._began_ns,
            "sessions": len(self._reception.guests("policy")),
            "malformed": self._reception.malformed,
            "dropped": self._reception.dropped,
            "draining": self._reception.draining,
            "fairness": self._clients.fairness(),
            "bounds_ns": BOUNDS_NS,
            "policies": {name: one.numbers() for name, one in self._services.items()},
        }


def _request(ask: Ask, delivery: Delivery, service: Service) -> Request:
    """Return the question behind an ask.

    Raises:
        WireError: its arrays are not of the spec.
        NoAnswer: they are not finite, so no answer would be.
    """
    frames, prefix = delivery.arrays, None
    if ask.prefix:
        *frames, last = frames
        prefix = unpack_chunk(last, service.spec.action, ask.prefix)
        _require_finite("prefix", prefix)
    arrays = unpack(frames, service.spec.observation)
    for array, spec in zip(arrays, service.spec.observation, strict=True):
        _require_finite(spec.name, array)
    stamp_ns = delivery.arrived_ns - ask.age_ns
    observation = Observation(arrays, stamp_ns, ask.episode, ask.step)
    deadline_ns = delivery.arrived_ns + ask.budget_ns
    return Request(ask.tick, ask.seed, observation, ask.age_ns, deadline_ns, prefix)


def _require_finite(name: str, array: Array) -> None:
    if not is_finite(array):
        raise NoAnswer("nonfinite", f"{name} of the request is not finite")


_WALL = MonotonicClock()  # sockets wait in real time, whatever clock the server lives by
