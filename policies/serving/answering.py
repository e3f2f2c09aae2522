"""Answering a batch: one computation, one answer or reason to each who asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from controller.interfaces import Clock
from controller.reception import Reception
from controller.types import ActionChunk, Array
from controller.wire import Answer, Reject, one_line
from policies.serving.clients import Clients
from policies.serving.schedule import Schedule, Waiting
from policies.serving.service import Lane, Service
from policies.serving.trials import NoAnswer, answers_to, checked_actions

logger = logging.getLogger(__name__)

ISOLATION_NS = 10_000_000_000
"""A client whose request broke a batch is answered alone for so long."""


class Answering:
    """Computes, checks and sends answers, and counts what became of each request.

    Args:
        reception: where the clients are.
        schedule: where a client that breaks batches is set apart.
        clients: the counts of each.
        clock: time.
    """

    def __init__(
        self, reception: Reception, schedule: Schedule, clients: Clients, clock: Clock
    ) -> None:
        self._reception, self._schedule = reception, schedule
        self._clients, self._clock = clients, clock

    def answer(self, batch: Sequence[Waiting]) -> None:
        """Answer requests of one version, together; one by one where that fails."""
        lane = _lane_of(batch[0])
        began_ns = self._clock.now_ns()
        try:
            chunks = answers_to(lane.policy, [waiting.request for waiting in batch])
        except Exception as error:  # A failing policy must not stop the server.
            logger.debug("inference failed", exc_info=True)
            if len(batch) == 1:
                self._fail(batch[0], lane, error)
            else:
                self._answer_apart(batch)
            return
        infer_ns = max(0, self._clock.now_ns() - began_ns)
        sent: list[tuple[Waiting, Answer, int]] = []
        for waiting, chunk in zip(batch, chunks, strict=True):
            queue_ns = max(0, began_ns - waiting.arrived_ns)
            try:
                if chunk is None:
                    raise NoAnswer("late", "the policy had no answer in time")
                actions = checked_actions(chunk, waiting.request.tick, lane.service.spec)
                answer = _answer_of(chunk, actions, queue_ns, infer_ns)
            except Exception as error:
                self._fail(waiting, lane, error)
            else:
                self._reception.send(waiting.client, answer, (actions,))
                sent.append((waiting, answer, self._clock.now_ns()))
        # Nobody waits for the books.
        counts = lane.service.counts
        counts.batches[len(batch)] += 1
        counts.infer.add(infer_ns)
        for waiting, answer, sent_ns in sent:
            self._count(waiting, lane, answer, sent_ns)
            self._observe(waiting, lane)

    def shed(self, waiting: Waiting) -> None:
        """Turn away a request whose deadline cannot be met."""
        now_ns, arrived_ns = self._clock.now_ns(), waiting.arrived_ns
        budget_ns = waiting.deadline_ns - arrived_ns
        missing_ns = max(0, now_ns + waiting.lane.expected_ns(1) - waiting.deadline_ns)
        self._clients.of(waiting.client).shed += 1
        detail = (
            f"waited {(now_ns - arrived_ns) / 1e6:.1f} ms of {budget_ns / 1e6:.1f} ms, "
            f"{missing_ns / 1e6:.1f} ms are missing"
        )
        service = _lane_of(waiting).service
        self.reject(service, waiting.client, waiting.request.tick, "late", detail)

    def reject(self, service: Service, identity: bytes, tick: int, code: str, detail: str) -> None:
        """Tell a client why there is no answer, and count it."""
        service.counts.rejected[code] += 1
        self._reception.send(identity, Reject(tick, code, one_line(detail)))

    def refuse(self, service: Service, identity: bytes, tick: int, code: str, detail: str) -> None:
        """Reject a request for what it is, not for want of time."""
        self._clients.of(identity).refused += 1
        self.reject(service, identity, tick, code, detail)

    def _answer_apart(self, batch: Sequence[Waiting]) -> None:
        """Answer requests that broke their batch; who did so is kept apart for a while."""
        for waiting in batch:
            if self._clock.now_ns() >= waiting.deadline_ns:
                self.shed(waiting)
                continue
            client = self._clients.of(waiting.client)
            refused = client.refused
            self.answer([waiting])
            if client.refused > refused:
                self._schedule.isolate(waiting.client, self._clock.now_ns() + ISOLATION_NS)

    def _fail(self, waiting: Waiting, lane: Lane, error: Exception) -> None:
        """Tell a client that there is no action, unless a version on trial owes it one."""
        service = lane.service
        code = error.code if isinstance(error, NoAnswer) else "failed"
        detail = str(error) if isinstance(error, NoAnswer) else f"{type(error).__name__}: {error}"
        service.counts.note(lane.version, code)
        if lane is service.lane:
            self.refuse(service, waiting.client, waiting.request.tick, code, detail)
            return
        answered = service.counts.answered
        waiting.lane = service.lane
        self.answer([waiting])
        if service.canary is not None and service.counts.answered > answered:
            service.canary.fail(one_line(detail))

    def _count(self, waiting: Waiting, lane: Lane, answer: Answer, sent_ns: int) -> None:
        counts, client = lane.service.counts, self._clients.of(waiting.client)
        late = sent_ns > waiting.deadline_ns
        counts.answered += 1
        counts.late += late
        client.answered += 1
        client.late += late
        counts.queue.add(answer.queue_ns)
        counts.note(answer.version, "answered")
        if lane is lane.service.lane:
            counts.versions[-1][2] += 1

    def _observe(self, waiting: Waiting, lane: Lane) -> None:
        service, canary = lane.service, lane.service.canary
        service.arrays = waiting.request.observation.arrays
        if canary is not None:
            canary.answered += lane is service.canary_lane
            canary.offer(waiting.request)


def _answer_of(chunk: ActionChunk, actions: Array, queue_ns: int, infer_ns: int) -> Answer:
    return Answer(
        tick=chunk.tick,
        version=str(chunk.version)[:200],
        evaluations=max(0, int(chunk.evaluations)),
        queue_ns=queue_ns,
        infer_ns=infer_ns,
        horizon=len(actions),
        candidates=max(0, int(chunk.candidates)),
        batch=max(0, int(chunk.batch)),
        prefix=max(0, int(chunk.prefix)),
    )


def _lane_of(waiting: Waiting) -> Lane:
    """Return what is to answer; the version that stays where the one meant has gone."""
    lane = waiting.lane
    assert isinstance(lane, Lane)
    return lane if lane in (lane.service.lane, lane.service.canary_lane) else lane.service.lane
