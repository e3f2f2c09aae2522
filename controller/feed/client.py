"""The replay service from outside: rows go in, batches and weights come out."""

from __future__ import annotations

from collections.abc import Sequence

from controller.clock import MonotonicClock
from controller.errors import PeerTimeout, Refused, WireError
from controller.feed.outbox import Outbox, Parcel
from controller.feed.rows import Float32, RowLayout
from controller.greeting import MAX_DRAIN, Session
from controller.interfaces import Clock
from controller.keys import ClientKeys
from controller.spec import Spec
from controller.types import Array
from controller.wire import Bye, Draw, Drawn, Fetch, Files, Insert, Inserted, Message, Reject

PROBE_NS = 200_000_000
"""After this long without an answer to rows that were sent, the service is asked what it has."""

ANSWER_NS = 2_000_000_000
"""After this long without an answer a draw counts as lost."""

_FINAL = ("protocol", "role", "spec")

Batches = tuple[Drawn, Float32 | None]
"""The answer to a draw, and its rows (batches * size, width), read-only; None without any."""


class ReplayClient:
    """One client of the replay service: an actor, a feeder, the learner or a judge.

    Rows are offered, and go out as the service takes them; what it has not confirmed is kept and
    sent again, whether the service died, was replaced, or lost some. Without a session one is
    sought whenever the client is used. Nothing waits but :meth:`connect`, :meth:`fetch`, and what
    takes a timeout. A client belongs to the thread that uses it.

    Args:
        endpoint: address of the service.
        spec: the robot; the service must have the same.
        clock: the caller's clock.
        name: of this client; of an actor, under which its rows are kept.
        keys: for a service that has keys.
        replays: the rows offered are numbered from 0 at every start of this process, because
            they are read from a log again; those that the service has are passed over. Without
            it they are new ones, and numbered on from those that the service has.

    Attributes:
        outbox: the rows on their way.
        wait_ms: pause that an actor in lockstep should make, by the newest answer.
        version: published version in force, by the newest answer; empty before the first.
        bundle: where its bundle is on the service's disk; empty likewise.
        answered: answers to inserts so far.
        asked: a draw is out that was not answered yet.

    Raises:
        ConfigError: see :func:`controller.endpoints.check_endpoint`; or a row of this robot does
            not fit a message.
    """

    def __init__(
        self,
        endpoint: str,
        spec: Spec,
        clock: Clock,
        name: str,
        keys: ClientKeys | None = None,
        *,
        replays: bool = False,
    ) -> None:
        self.layout = RowLayout.of(spec)
        self.outbox = Outbox(self.layout, replays=replays)
        self.endpoint, self.name = endpoint, name
        self._session = Session(endpoint, "replay", clock, name, spec, keys=keys)
        self.wait_ms, self.version, self.bundle = 0, "", ""
        self.answered = self._malformed = 0
        # Learner and judge insert nothing, and are no actors of whom the service should know.
        self._inserts, self._curious = False, True
        self._heard_ns = self._sent_ns = 0
        self.asked, self._asked_ns = False, 0
        self._drawn: Batches | None = None
        self._files: dict[str, dict[str, bytes]] = {}

    @property
    def ready(self) -> bool:
        """Whether there is a session with the service."""
        return self._session.ready

    @property
    def behind(self) -> int:
        """Rows that were offered and are not confirmed."""
        return self.outbox.behind

    @property
    def room(self) -> int:
        """Rows that can be offered now."""
        return self.outbox.room

    @property
    def malformed(self) -> int:
        """Messages that were not of this protocol, or not of this robot."""
        return self._malformed + self._session.malformed

    def connect(self, timeout_s: float) -> None:
        """Wait for the service's welcome.

        Raises:
            PeerTimeout: nobody answered in time.
            SpecMismatch: the service is of another robot.
            Refused: the service speaks another protocol or is no replay service.
        """
        self._lost()
        self._session.connect(timeout_s)

    def offer(self, rows: Float32, versions: tuple[str, ...]) -> None:
        """Take rows to send, at most as many as there is :attr:`room` for; sends nothing yet.

        Args:
            rows: (n, width); copied.
            versions: those that the rows' column ``version`` counts from 0.

        Raises:
            ValueError: there is no room for as many.
        """
        self._inserts = True
        self.outbox.put(rows, versions)

    def ask(self) -> None:
        """Ask, at the next :meth:`pump`, for what is in force and how many rows are kept."""
        self._inserts = self._curious = True

    def pump(self, timeout_ns: int = 0) -> None:
        """Send what there is to send and take in what has come.

        Args:
            timeout_ns: how long to wait for something to come.

        Raises:
            Refused: the service was replaced by one that does not want this client, or it
                cannot use what was sent.
        """
        self._push()
        for _ in range(MAX_DRAIN):
            if not self._hear(timeout_ns):
                break
            timeout_ns = 0
        self._push()

    def flush(self, timeout_s: float) -> bool:
        """Send until everything is confirmed; return whether it was within the time.

        Raises:
            Refused: see :meth:`pump`.
        """
        until_ns = _WALL.now_ns() + round(timeout_s * 1e9)
        self.pump()
        while self.behind and (left_ns := until_ns - _WALL.now_ns()) > 0:
            self.pump(min(left_ns, PROBE_NS // 4))
        return not self.behind

    def ask_draw(self, batches: int, size: int, updates: int, version: str) -> bool:
        """Ask for batches; False when there is no session, which then is sought.

        Args:
            batches: how many; 0 only tells how far the learner is.
            size: rows of each.
            updates: updates that the learner has done since it began.
            version: version it improves on.

        Raises:
            Refused: see :meth:`pump`.
        """
        self.pump()
        self._drawn = None
        self.asked = self.ready and self._send(Draw(batches, size, updates, version))
        self._asked_ns = _WALL.now_ns()
        return self.asked

    def take_drawn(self, timeout_ns: int) -> Batches | None:
        """Return the answer to :meth:`ask_draw`; None when none came within ``timeout_ns``.

        Once :attr:`asked` is False none will come, for the service died or lost it: ask again.

        Raises:
            Refused: see :meth:`pump`.
        """
        until_ns = _WALL.now_ns() + timeout_ns
        self.pump()
        while self.asked and (left_ns := until_ns - _WALL.now_ns()) > 0:
            self.pump(min(left_ns, PROBE_NS))
            self.asked &= _WALL.now_ns() - self._asked_ns < ANSWER_NS
        found, self._drawn = self._drawn, None
        return found

    def draw(
        self, batches: int, size: int, updates: int, version: str, timeout_ns: int
    ) -> Batches | None:
        """Ask for batches and return them; None when none came within ``timeout_ns``.

        Raises:
            Refused: see :meth:`pump`.
        """
        if not self.ask_draw(batches, size, updates, version):
            self.pump(min(timeout_ns, PROBE_NS))
            return None
        return self.take_drawn(timeout_ns)

    def fetch(self, version: str, timeout_s: float = 10.0) -> dict[str, bytes]:
        """Return the files of a published version by name; none where it is not known.

        Rows go on their way meanwhile.

        Raises:
            PeerTimeout: no answer came in time.
            Refused: see :meth:`pump`.
        """
        until_ns = _WALL.now_ns() + round(timeout_s * 1e9)
        sent_ns = 0
        self._files.clear()
        while (now_ns := _WALL.now_ns()) < until_ns:
            if self.ready and now_ns - sent_ns > ANSWER_NS and self._send(Fetch(version)):
                sent_ns = now_ns
            self.pump(min(until_ns - now_ns, PROBE_NS // 4))
            sent_ns = sent_ns if self.ready else 0
            if version in self._files:
                return self._files.pop(version)
        raise PeerTimeout(
            f"{self.endpoint}: the files of {version} did not come within {timeout_s:g} s"
        )

    def close(self) -> None:
        """Leave the service; safe to call twice."""
        self._session.close(Bye())

    def _push(self) -> None:
        """Send rows as far as the window goes, or look what became of those that were sent."""
        if not self.ready:
            self._session.greet()
            return
        while (parcel := self.outbox.parcel()) is not None:
            if not self._insert(parcel):
                return
            self.outbox.sent(parcel)
        if self._inserts and self._is_due(_WALL.now_ns()):
            self._curious = False
            self._insert(self.outbox.question())

    def _is_due(self, now_ns: int) -> bool:
        """Return whether to ask the service how things are."""
        pause_ns = PROBE_NS if self.outbox.waiting else self.wait_ms * 1_000_000
        silent_ns = now_ns - max(self._heard_ns, self._sent_ns)
        return self._curious or 0 < pause_ns <= silent_ns

    def _insert(self, parcel: Parcel) -> bool:
        self._sent_ns = _WALL.now_ns()
        insert = Insert(self.name, parcel.first, len(parcel.rows), parcel.versions)
        return self._send(insert, (parcel.rows,))

    def _send(self, message: Message, arrays: Sequence[Array] = ()) -> bool:
        sent = self._session.send(message, arrays)
        if not sent:
            self._lost()
        return sent

    def _lost(self) -> None:
        """Take note that the service is gone, and with it what was not answered."""
        self._session.lost()
        self.outbox.ask()
        self.asked, self._curious = False, True

    def _hear(self, timeout_ns: int) -> bool:
        """Take in one message; False when none came within ``timeout_ns``."""
        item = self._session.receive(timeout_ns)
        if item is None:
            return False
        message, frames = item
        try:
            if isinstance(message, Inserted):
                self._confirmed(message)
            elif isinstance(message, Drawn):
                self._answered(message, frames)
            elif isinstance(message, Files):
                self._files[message.version] = dict(zip(message.names, frames, strict=True))
        except (WireError, ValueError):
            self._malformed += 1
        if isinstance(message, Reject):
            self._heed(message)
        elif (refusal := self._session.refusal) is not None and refusal.code in _FINAL:
            raise Refused(f"{self.endpoint}: {refusal.code}: {refusal.detail}")
        return True

    def _heed(self, reject: Reject) -> None:
        if reject.code == "no_session":
            self._lost()
            self._session.greet()
        elif reject.code != "rate":  # What was dropped for want of time is sent again.
            self.asked = False
            raise Refused(f"{self.endpoint}: {reject.code}: {reject.detail}")

    def _confirmed(self, message: Inserted) -> None:
        if message.actor != self.name:
            raise WireError(f"an answer to {message.actor!r}, this is {self.name!r}")
        self._heard_ns = _WALL.now_ns()
        self.answered += 1
        self.wait_ms, self.version, self.bundle = message.wait_ms, message.version, message.bundle
        self.outbox.confirm(message.rows, self._heard_ns)

    def _answered(self, message: Drawn, frames: Sequence[bytes]) -> None:
        if not self.asked:
            return  # Given up meanwhile.
        if bool(frames) != bool(message.batches):
            raise WireError(f"{message.batches} batches in {len(frames)} frames")
        count = message.batches * message.size
        rows = self.layout.unpack(frames[0], count) if frames else None
        self.asked, self._drawn = False, (message, rows)


_WALL = MonotonicClock()  # sockets wait in real time, whatever clock the caller lives by
