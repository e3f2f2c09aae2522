"""The replay service: takes rows from actors, gives batches to the learner, weights to actors."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from controller.clock import MonotonicClock
from controller.errors import DataError, WireError
from controller.interfaces import Clock
from controller.keys import ServerKeys
from controller.reception import Delivery, Reception
from controller.replay_messages import Draw, Drawn, Fetch, Files, Insert, Inserted
from controller.spec import Spec
from controller.types import Array
from controller.wire import MAX_FRAME_BYTES, Bye, Control, Reject, one_line
from policies.bundle import read_manifest
from policies.errors import BundleError
from policies.finetuning.replay.desk import Desk
from policies.finetuning.replay.freshness import Newest
from policies.finetuning.replay.limiter import Limiter
from policies.finetuning.replay.store import Store
from policies.manifest import MANIFEST
from policies.serving.counts import Durations

logger = logging.getLogger(__name__)

POLL_NS = 50_000_000
LOOK = 128
"""Messages looked at before each turn: one of every client that may have a session."""
UNCOUNTED = "gate"
"""Name of the client whose draws are no learning."""
MAX_TOLD = 64
"""Actors, and versions, that a report tells of."""
FAREWELL_NS = 50_000_000


class ReplayService:
    """Answers each message in the order of its coming, in one thread.

    What is kept is written every ``save_every_s``; a service that was killed goes on from there,
    and the actors send again what came after.

    Args:
        store: what it keeps.
        spec: the robot.
        limiter: rows against updates.
        endpoint: address to bind.
        clock: time.
        save_every_s: time between two writings.
        keys: needed beyond loopback.

    Attributes:
        endpoint: the bound address.

    Raises:
        ConfigError: see :func:`controller.endpoints.check_endpoint`.
        EndpointInUse: another server is bound there.
    """

    def __init__(
        self, store: Store, spec: Spec, limiter: Limiter, endpoint: str, clock: Clock, *,
        save_every_s: float = 2.0, keys: ServerKeys | None = None,
    ) -> None:  # fmt: skip
        self._store, self._spec, self._limiter, self._clock = store, spec, limiter, clock
        self._reception = Reception(
            endpoint,
            "replay",
            {"": spec},
            clock,
            lambda name: store.publications.version,
            keys=keys,
            max_frame_bytes=MAX_FRAME_BYTES,
        )
        self.endpoint = self._reception.endpoint
        self._desk = Desk(store, spec, {"ready": self.ready, "stats": self.stats})
        self._save_every_ns = round(save_every_s * 1e9)
        self._saved_ns = clock.now_ns()
        self._inserts, self._draws, self._saves = Durations(), Durations(), Durations()
        self._waiting = Newest()
        self._rejected = 0

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Serve until ``should_stop()``, asked at least every 50 ms; then write and leave."""
        gc.collect()
        gc.freeze()
        try:
            while not should_stop():
                self.turn(POLL_NS)
            self._reception.draining = True
            until_ns = _WALL.now_ns() + FAREWELL_NS
            while _WALL.now_ns() < until_ns:
                self.turn(FAREWELL_NS // 10)
        finally:
            self.close()

    def turn(self, patience_ns: int) -> None:
        """Answer what came, waiting up to ``patience_ns`` if nothing did; write when it is time."""
        count = 0
        for delivery in self._reception.deliveries(patience_ns, LOOK):
            count += 1
            self._handle(delivery)
        if count:
            self._waiting.add(np.array([count]))
        began_ns = self._clock.now_ns()
        if began_ns - self._saved_ns >= self._save_every_ns:
            self._saved_ns = began_ns
            self._save(began_ns)

    def ready(self) -> dict[str, Any]:
        """Return that it is, and of what."""
        return {
            "version": self._store.publications.version,
            "spec": self._spec.digest(),
            "task": self._spec.task,
            "rows": len(self._store.ring),
            "finished": self._store.progress.finished,
        }

    def stats(self) -> dict[str, Any]:
        """Return counts since the rows began, and figures of the newest ones."""
        now_ns, store = self._clock.now_ns(), self._store
        return {
            **store.facts(),
            "allowed": self._limiter.allowed(store.ring.count),
            "learner": self._limiter.alive(now_ns),
            "versions": store.publications.told(MAX_TOLD),
            "actors": store.ledger.facts(now_ns, MAX_TOLD),
            "queue": {
                **self._waiting.quantiles("waiting"),
                "insert_us": self._inserts.quantiles_us(),
                "draw_us": self._draws.quantiles_us(),
                "save_us": self._saves.quantiles_us(),
            },
            "sessions": len(self._reception.guests("replay")),
            "malformed": self._reception.malformed,
            "rejected": self._rejected,
            "dropped": self._reception.dropped,
        }

    def close(self) -> None:
        """Free the address and write what is kept; safe to call twice."""
        self._reception.close()
        self._store.close()

    def _save(self, began_ns: int) -> None:
        """Write what is new; on a full disk go on, and try again the next time."""
        if not self._store.stale:
            return
        try:
            self._store.save()
        except DataError as error:
            logger.warning("%s", error)
        else:
            self._saves.add(self._clock.now_ns() - began_ns)

    def _handle(self, delivery: Delivery) -> None:
        identity, message = delivery.identity, delivery.message
        try:
            if isinstance(message, Insert):
                self._insert(delivery, message)
            elif isinstance(message, Draw):
                self._draw(delivery, message)
            elif isinstance(message, Fetch):
                self._fetch(identity, message)
            elif isinstance(message, Control):
                self._control(identity, message)
            elif isinstance(message, Bye):
                self._limiter.leave(identity)
            else:
                name = type(message).__name__
                self._reception.refuse(identity, f"a replay has no use for {name}")
        except (WireError, DataError) as error:
            self._rejected += 1
            code = "malformed" if isinstance(error, WireError) else "storage"
            self._reception.send(identity, Reject(-1, code, one_line(str(error))))

    def _insert(self, delivery: Delivery, message: Insert) -> None:
        store, actor = self._store, message.actor
        rows = store.layout.unpack(delivery.arrays[0], message.rows)
        if len(rows):
            store.insert(actor, message.first, message.versions, rows)
        now_ns = self._clock.now_ns()
        wait_ms = self._limiter.wait_ms(store.ring.count, len(store.ring), now_ns)
        store.ledger.hear(actor, now_ns, wait_ms > 0)
        versions, kept = store.publications, store.ledger.rows_of(actor)
        answer = Inserted(actor, kept, wait_ms, versions.version, versions.bundle)
        self._reception.send(delivery.identity, answer)
        self._inserts.add(self._clock.now_ns() - delivery.arrived_ns)

    def _draw(self, delivery: Delivery, message: Draw) -> None:
        identity, store = delivery.identity, self._store
        inserted, rows, size = store.ring.count, len(store.ring), message.size
        most = self._most(message)
        counted = self._reception.name(identity) != UNCOUNTED
        if counted:
            batches = self._limiter.grant(
                identity, inserted, rows, most, size, message.updates, self._clock.now_ns()
            )
            store.progress.updates = message.updates
        else:
            batches = most if rows else 0
        drawn = (store.draw(batches, size, counted),) if batches else ()
        answer = Drawn(
            batches,
            size,
            inserted,
            rows,
            self._limiter.allowed(inserted),
            store.publications.version,
            store.publications.rollbacks,
            store.progress.finished,
        )
        self._reception.send(identity, answer, drawn)
        self._draws.add(self._clock.now_ns() - delivery.arrived_ns)

    def _most(self, message: Draw) -> int:
        """Return how many of the batches fit into an answer.

        Raises:
            WireError: not one does, or there never are rows for one.
        """
        capacity, row = self._store.ring.capacity, 4 * self._store.layout.width
        if not message.batches:
            return 0
        if not 0 < message.size <= min(capacity, MAX_FRAME_BYTES // row):
            raise WireError(
                f"batches of {message.size} rows, expected 1 to "
                f"{min(capacity, MAX_FRAME_BYTES // row)}: replay.capacity is {capacity}"
            )
        return min(message.batches, MAX_FRAME_BYTES // (row * message.size))

    def _fetch(self, identity: bytes, message: Fetch) -> None:
        root = self._store.publications.bundles.get(message.version)
        names: tuple[str, ...] = ()
        blobs: list[Array] = []
        if root is not None:
            try:
                names, blobs = _files(Path(root))
            except (BundleError, OSError) as error:
                # Old versions may be taken off the disk.
                logger.warning("%s: %s", message.version, error)
        if any(blob.nbytes > MAX_FRAME_BYTES for blob in blobs):
            raise WireError(f"{message.version}: a file is longer than {MAX_FRAME_BYTES} bytes")
        self._reception.send(identity, Files(message.version, names), blobs)

    def _control(self, identity: bytes, message: Control) -> None:
        done, detail = self._desk.serve(message)
        try:
            self._reception.report(identity, message.verb, done, detail)
        except WireError as error:
            reason = {"reason": one_line(str(error))}
            self._reception.report(identity, message.verb, False, reason)


def _files(root: Path) -> tuple[tuple[str, ...], list[Array]]:
    """Return the names and the bytes of the files of a bundle."""
    names = (MANIFEST, *sorted(read_manifest(root).files))
    return names, [np.fromfile(root / name, np.uint8) for name in names]


_WALL = MonotonicClock()  # sockets wait in real time, whatever clock the service lives by
