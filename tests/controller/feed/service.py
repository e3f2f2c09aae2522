"""A replay service that keeps rows in lists and does what a test says, for tests of clients."""

import threading

import numpy as np

from controller.clock import MonotonicClock
from controller.feed.rows import RowLayout
from controller.reception import Reception
from controller.wire import MAX_FRAME_BYTES, Draw, Drawn, Fetch, Files, Insert, Inserted, Reject

CLOCK = MonotonicClock()


class Service:
    """Takes rows as the service does: those that come next, and no others.

    Args:
        endpoint: address.
        spec: the robot.
        kept: rows by actor, to go on from: lists of (version, row).

    Attributes:
        kept: the same.
        messages: what came.
        deaf: messages to drop without an answer, or a function that says of one whether to.
        files: of bundles, by version.
        wait_ms, version: told in every answer.
    """

    def __init__(self, endpoint, spec, kept=None):
        self.layout = RowLayout.of(spec)
        self.kept = kept if kept is not None else {}
        self.messages, self.files = [], {}
        self.deaf = lambda message: False
        self.wait_ms, self.version, self.finished = 0, "", False
        self._reception = Reception(
            endpoint, "replay", {"": spec}, CLOCK, max_frame_bytes=MAX_FRAME_BYTES
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def rows(self, actor):
        """Return (n, width) what is kept of an actor."""
        return np.array([row for _, row in self.kept.get(actor, [])])

    def versions(self, actor):
        return [version for version, _ in self.kept.get(actor, [])]

    def inserts(self):
        return [message for message in self.messages if isinstance(message, Insert)]

    def close(self):
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._reception.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _run(self):
        while not self._stop.is_set():
            for delivery in self._reception.deliveries(2_000_000, 16):
                if self._stop.is_set():
                    return
                message = delivery.message
                self.messages.append(message)
                if not self.deaf(message):
                    answer, frames = self._answer(message, delivery.arrays)
                    if answer is not None:
                        self._reception.send(delivery.identity, answer, frames)

    def _answer(self, message, frames):
        if isinstance(message, Insert):
            kept = self.kept.setdefault(message.actor, []) if message.rows else []
            kept = self.kept.get(message.actor, kept)
            rows = self.layout.unpack(frames[0], message.rows)
            column = self.layout.number("version")
            if message.rows and message.first <= len(kept):
                for row in rows[len(kept) - message.first :]:
                    kept.append((message.versions[int(row[column])], row.copy()))
            told = (self.wait_ms, self.version, f"bundles/{self.version}")
            return Inserted(message.actor, len(kept), *told), ()
        if isinstance(message, Draw) and message.size > 100:
            return Reject(-1, "malformed", "batches of too many rows"), ()
        if isinstance(message, Draw):
            count = message.batches * message.size
            rows = np.arange(count * self.layout.width, dtype=np.float32)
            frames = (rows.reshape(count, -1),) if count else ()
            told = (message.batches, message.size, 10, 10, 5, self.version, 0, self.finished)
            return Drawn(*told), frames
        if isinstance(message, Fetch):
            found = self.files.get(message.version, {})
            blobs = [np.frombuffer(blob, np.uint8) for blob in found.values()]
            return Files(message.version, tuple(found)), blobs
        return None, ()
