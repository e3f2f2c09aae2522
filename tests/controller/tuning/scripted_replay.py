"""A replay service that does what a test says, for tests of those that insert rows."""

import threading

import numpy as np

from controller.clock import MonotonicClock
from controller.feed.rows import RowLayout
from controller.reception import Reception
from controller.wire import MAX_FRAME_BYTES, Bye, Fetch, Files, Insert, Inserted

POLL_NS = 2_000_000


class ScriptedReplay:
    """Takes the rows of every actor in order, each once, as the protocol says.

    ``wait_ms``, ``version``, ``bundle`` and ``files`` may be set at any time. ``script``, given
    the service, is called after each insert, in the service's thread.
    """

    def __init__(self, endpoint, spec, *, version="", bundle="", script=None):
        self.endpoint, self.spec = endpoint, spec
        self.layout = RowLayout.of(spec)
        self.wait_ms, self.version, self.bundle = 0, version, bundle
        self.files, self.fetched = {}, []
        self.script = script or (lambda service: None)
        self.parts, self.counts = {}, {}
        self.twice = 0
        self._stop = threading.Event()
        self.begin()

    def begin(self):
        """Come up, or come back with the rows that are there."""
        self._stop.clear()
        self._reception = Reception(
            self.endpoint,
            "replay",
            {"": self.spec},
            MonotonicClock(),
            max_frame_bytes=MAX_FRAME_BYTES,
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self):
        """Go away without a word."""
        self._stop.set()
        self._thread.join(20)
        self._reception.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    @property
    def actors(self):
        return list(self.parts)

    def count(self, actor=None):
        """Rows of an actor, or of all."""
        counts = self.counts
        return sum(list(counts.values())) if actor is None else counts[actor]

    def rows(self, actor=None):
        """All rows of an actor, the only one by default, and the version of each."""
        actor = actor or next(iter(self.parts))
        parts = self.parts[actor]
        rows = np.concatenate([rows for rows, _ in parts])
        return rows, [name for _, names in parts for name in names]

    def forget(self, actor, count):
        """Lose the newest rows, as a service that was killed does."""
        self.counts[actor] -= count
        while count > 0:
            rows, names = self.parts[actor].pop()
            count -= len(rows)
        if count < 0:
            self.parts[actor].append((rows[:-count], names[:-count]))

    def _run(self):
        while not self._stop.is_set():
            for delivery in self._reception.deliveries(POLL_NS, 8):
                message = delivery.message
                if isinstance(message, Insert):
                    self._insert(delivery)
                elif isinstance(message, Fetch):
                    self._give(delivery)
                else:
                    assert isinstance(message, Bye), message

    def _insert(self, delivery):
        message = delivery.message
        parts = self.parts.setdefault(message.actor, [])
        have = self.counts.setdefault(message.actor, 0)
        if message.rows:
            rows = self.layout.unpack(delivery.arrays[0], message.rows)
            numbers = rows[:, self.layout.number("version")].astype(int)
            skip = have - message.first
            self.twice += min(max(skip, 0), message.rows)
            if 0 <= skip < message.rows:
                names = [message.versions[number] for number in numbers[skip:]]
                parts.append((rows[skip:].copy(), names))
                self.counts[message.actor] = have + len(names)
        self.script(self)
        have = self.count(message.actor)
        answer = Inserted(message.actor, have, self.wait_ms, self.version, self.bundle)
        self._reception.send(delivery.identity, answer)

    def _give(self, delivery):
        version = delivery.message.version
        self.fetched.append(version)
        files = self.files.get(version, {})
        frames = [np.frombuffer(blob, np.uint8) for blob in files.values()]
        self._reception.send(delivery.identity, Files(version, tuple(files)), frames)
