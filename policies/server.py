"""A server that answers observations with actions, and changes its policy between requests."""

from __future__ import annotations

import gc
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from controller.errors import WireError
from controller.interfaces import Clock, Policy
from controller.reception import Delivery, Reception
from controller.types import ActionChunk, Array, Observation, Request
from controller.wire import Answer, Ask, Bye, Control, Reject, one_line, unpack
from policies.swap import BadAnswer, Candidate, checked_actions, try_out

logger = logging.getLogger(__name__)

POLL_NS = 50_000_000
SWAP_POLL_NS = 2_000_000
BATCH = 64
SAMPLES = 4096
HISTORY = 100

VERBS = ("ready", "stats", "swap", "rollback")


class PolicyServer:
    """Answers requests one by one, in the order they came, each client's newest only.

    A request whose budget has run out is rejected rather than answered: late data looks like
    fresh data. A policy that fails costs its client that tick, and nobody else anything.

    Args:
        policy: answers at first.
        endpoint: address to bind.
        clock: time.
        load: makes a policy from the path of a bundle, for ``swap``; called in a thread.

    Attributes:
        endpoint: the bound address.

    Raises:
        ConfigError: see :func:`controller.transport.check_endpoint`.
        EndpointInUse: another server is bound there.
    """

    def __init__(
        self, policy: Policy, endpoint: str, clock: Clock, load: Callable[[str], Policy]
    ) -> None:
        self._policy = policy
        self._previous: Policy | None = None
        self._spec = policy.spec
        self._clock = clock
        self._load = load
        self._candidate: tuple[bytes, Candidate] | None = None
        self._pending: dict[bytes, Delivery] = {}
        self._last_arrays = tuple(array.resting() for array in policy.spec.observation)
        self._requests = 0
        self._answered = 0
        self._rejected: Counter[str] = Counter()
        self._versions: deque[list[Any]] = deque(maxlen=HISTORY)
        self._queue_ns: deque[int] = deque(maxlen=SAMPLES)
        self._infer_ns: deque[int] = deque(maxlen=SAMPLES)
        self._enter_version()
        self._reception = Reception(endpoint, "policy", policy.spec, clock, self._version)
        self.endpoint = self._reception.endpoint

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Serve until ``should_stop()``, asked at least every 50 ms; then free the address.

        The policies in use are closed at the end.
        """
        try:
            self._warm_up()
            while not should_stop():
                for delivery in self._reception.deliveries(self._patience_ns(), BATCH):
                    self._handle(delivery)
                self._finish_swap()
                if self._pending:
                    self._answer(self._pending.pop(next(iter(self._pending))))
        finally:
            self._reception.close()
            for policy in (self._policy, self._previous):
                if policy is not None:
                    policy.close()

    def stats(self) -> dict[str, Any]:
        """Return counters and figures since the start; the latter of the last 4096 answers."""
        return {
            "version": self._version(),
            "requests": self._requests,
            "answered": self._answered,
            "rejected": dict(self._rejected),
            "malformed": self._reception.malformed,
            "versions": list(self._versions),
            "queue_us": _quantiles_us(self._queue_ns),
            "infer_us": _quantiles_us(self._infer_ns),
        }

    def _version(self) -> str:
        return self._policy.version[:200]

    def _patience_ns(self) -> int:
        if self._pending:
            return 0
        return SWAP_POLL_NS if self._candidate else POLL_NS

    def _warm_up(self) -> None:
        try:
            try_out(self._policy, self._last_arrays, self._clock)
        except Exception as error:  # It may still answer real observations.
            logger.warning("warm-up: %s", one_line(f"{type(error).__name__}: {error}"))
        # What was loaded so far lives as long as the server: a collection need not look at it.
        gc.collect()
        gc.freeze()

    def _handle(self, delivery: Delivery) -> None:
        identity, message = delivery.identity, delivery.message
        if isinstance(message, Ask):
            self._requests += 1
            older = self._pending.get(identity)
            # The newer request takes the older one's place in the queue: a client that asks
            # faster than it is served still gets its turn.
            self._pending[identity] = delivery
            if older is not None and isinstance(older.message, Ask):
                self._reject(identity, older.message.tick, "superseded", "a newer request came")
        elif isinstance(message, Control):
            self._control(identity, message)
        elif isinstance(message, Bye):
            self._pending.pop(identity, None)
        else:
            self._reception.refuse(identity, f"a policy has no use for {type(message).__name__}")

    def _reject(self, identity: bytes, tick: int, code: str, detail: str) -> None:
        self._rejected[code] += 1
        self._reception.send(identity, Reject(tick, code, one_line(detail)))

    def _answer(self, delivery: Delivery) -> None:
        ask = delivery.message
        assert isinstance(ask, Ask)
        began_ns = self._clock.now_ns()
        queue_ns = began_ns - delivery.arrived_ns
        if queue_ns >= ask.budget_ns:
            detail = f"waited {queue_ns / 1e6:.1f} ms of {ask.budget_ns / 1e6:.1f} ms"
            self._reject(delivery.identity, ask.tick, "late", detail)
            return
        try:
            chunk, actions = self._infer(ask, delivery)
        except BadAnswer as error:
            self._reject(delivery.identity, ask.tick, error.code, str(error))
        except WireError as error:
            self._reject(delivery.identity, ask.tick, "malformed", str(error))
        except Exception as error:  # A failing policy must not stop the server.
            logger.debug("inference failed", exc_info=True)
            self._reject(delivery.identity, ask.tick, "failed", f"{type(error).__name__}: {error}")
        else:
            infer_ns = self._clock.now_ns() - began_ns
            self._send_answer(delivery.identity, chunk, actions, queue_ns, infer_ns)

    def _infer(self, ask: Ask, delivery: Delivery) -> tuple[ActionChunk, Array]:
        arrays = unpack(delivery.arrays, self._spec.observation)
        stamp_ns = delivery.arrived_ns - ask.age_ns
        observation = Observation(arrays, stamp_ns, ask.episode, ask.step)
        deadline_ns = delivery.arrived_ns + ask.budget_ns
        request = Request(ask.tick, ask.seed, observation, ask.age_ns, deadline_ns)
        chunk = self._policy.infer(request)
        if chunk is None:
            raise BadAnswer("late", "the policy had no answer in time")
        actions = checked_actions(chunk, ask.tick, self._spec)
        self._last_arrays = arrays
        return chunk, actions

    def _send_answer(
        self, identity: bytes, chunk: ActionChunk, actions: Array, queue_ns: int, infer_ns: int
    ) -> None:
        answer = Answer(
            tick=chunk.tick,
            version=chunk.version[:200],
            evaluations=max(0, int(chunk.evaluations)),
            queue_ns=max(0, queue_ns),
            infer_ns=max(0, infer_ns),
            horizon=len(actions),
        )
        self._answered += 1
        self._versions[-1][2] += 1
        self._queue_ns.append(queue_ns)
        self._infer_ns.append(infer_ns)
        self._reception.send(identity, answer, (actions,))

    def _control(self, identity: bytes, message: Control) -> None:
        verb = message.verb
        if verb == "ready":
            detail = {"version": self._version(), "spec": self._spec.digest()}
            self._reception.report(identity, verb, True, {**detail, "task": self._spec.task})
        elif verb == "stats":
            self._reception.report(identity, verb, True, self.stats())
        elif verb == "swap":
            self._begin_swap(identity, message.args)
        elif verb == "rollback":
            self._roll_back(identity)
        else:
            self._fail(identity, verb, f"unknown verb {verb!r}, expected {', '.join(VERBS)}")

    def _fail(self, identity: bytes, verb: str, reason: str) -> None:
        logger.warning("%s refused: %s", verb, reason)
        self._reception.report(identity, verb, False, {"reason": reason})

    def _begin_swap(self, identity: bytes, args: dict[str, str]) -> None:
        if set(args) != {"bundle"}:
            got = ", ".join(args) or "none"
            self._fail(identity, "swap", f"arguments: {got}; expected bundle")
        elif self._candidate is not None:
            self._fail(identity, "swap", f"still loading {self._candidate[1].path}")
        else:
            candidate = Candidate(
                self._load, args["bundle"], self._spec, self._last_arrays, self._clock
            )
            self._candidate = (identity, candidate)

    def _finish_swap(self) -> None:
        if self._candidate is None or not self._candidate[1].done:
            return
        identity, candidate = self._candidate
        self._candidate = None
        if candidate.policy is None:
            self._fail(identity, "swap", f"{candidate.reason}; {self._version()} keeps serving")
            return
        before = self._version()
        retired, self._previous, self._policy = self._previous, self._policy, candidate.policy
        self._enter_version()
        detail = {"before": before, "after": self._version(), "load_ms": candidate.load_ms}
        logger.info("swapped %s for %s", before, self._version())
        self._reception.report(identity, "swap", True, detail)
        if retired is not None and retired not in (self._policy, self._previous):
            retired.close()

    def _roll_back(self, identity: bytes) -> None:
        if self._previous is None:
            self._fail(identity, "rollback", f"there is no policy before {self._version()}")
            return
        before = self._version()
        self._policy, self._previous = self._previous, self._policy
        self._enter_version()
        detail = {"before": before, "after": self._version()}
        self._reception.report(identity, "rollback", True, detail)

    def _enter_version(self) -> None:
        self._versions.append([self._policy.version[:200], self._clock.now_ns(), 0])


def _quantiles_us(durations_ns: Iterable[int]) -> dict[str, float]:
    values = np.fromiter(durations_ns, dtype=np.float64)
    if not values.size:
        return {}
    p50, p99 = np.percentile(values, (50, 99), method="higher") / 1e3
    return {"p50": float(p50), "p99": float(p99)}
