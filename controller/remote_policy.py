"""A policy behind a policy server."""

from __future__ import annotations

from collections import deque

from controller.array_frames import require_arrays, unpack_chunk
from controller.errors import Refused, WireError
from controller.greeting import MAX_DRAIN, Session
from controller.interfaces import Clock
from controller.keys import ClientKeys
from controller.spec import Spec
from controller.types import ActionChunk, Reason, Rejected, Request
from controller.wire import Answer, Ask, Bye, Refusal, Reject, Welcome

ASKED = 64
"""Newest requests whose time of asking is kept."""


class RemotePolicy:
    """A policy behind a policy server.

    Args:
        endpoint: address of the server.
        spec: the robot; the server must have the same.
        clock: clock of the caller's deadlines.
        client_name: name for the server's log.
        connect_timeout_s: default of :meth:`connect`.
        policy: name of the policy that is wanted; empty for the server's first.
        keys: for a server that has keys.

    Attributes:
        newest_chunk: the valid answer to the newest tick, also when it came late.
        late: answers that came after their request had been given up.
    """

    def __init__(
        self,
        endpoint: str,
        spec: Spec,
        clock: Clock,
        *,
        client_name: str = "",
        connect_timeout_s: float = 5.0,
        policy: str = "",
        keys: ClientKeys | None = None,
    ) -> None:
        self._session = Session(endpoint, "policy", clock, client_name, spec, policy, keys)
        self._spec = spec
        self._clock = clock
        self._connect_timeout_s = connect_timeout_s
        self._version = ""
        self._malformed = 0
        self._asked_ns: deque[tuple[int, int]] = deque(maxlen=ASKED)
        self._newest_tick = -1
        self.newest_chunk: ActionChunk | None = None
        self.late = 0

    @property
    def spec(self) -> Spec:
        """The robot."""
        return self._spec

    @property
    def version(self) -> str:
        """Version that the last answer or welcome named; empty before."""
        return self._version

    @property
    def ready(self) -> bool:
        """Whether there is a session with the server."""
        return self._session.ready

    @property
    def offset_ns(self) -> int:
        """Server's clock minus the caller's."""
        return self._session.offset_ns

    @property
    def malformed(self) -> int:
        """Messages that were not of this protocol, or not of this spec."""
        return self._malformed + self._session.malformed

    def connect(self, timeout_s: float | None = None) -> None:
        """Wait for the server's welcome.

        Raises:
            PeerTimeout: nobody answered in time.
            SpecMismatch: the server's policy is for another robot.
            Refused: the server speaks another protocol or is no policy server.
        """
        self._session.connect(self._connect_timeout_s if timeout_s is None else timeout_s)
        self._heed_welcome()

    def infer(self, request: Request) -> ActionChunk | None:
        """Ask, and wait for the answer until the deadline.

        Without a session the result is None at once, and one is sought again without waiting.

        Raises:
            Refused: the server answered, and it has no action: the policy failed, or the
                server was replaced by one for another robot.
            SpecMismatch: the observation is not of the spec.
        """
        if not self.submit(request):
            return None
        tick = request.tick
        for _ in range(MAX_DRAIN):
            answer = self._next(request.deadline_ns - self._clock.now_ns())
            if answer is None:
                return None
            if answer.tick != tick:
                continue
            if isinstance(answer, ActionChunk):
                return answer
            if answer.reason is Reason.REFUSED:
                raise Refused(answer.detail)
            return None
        return None

    def submit(self, request: Request) -> bool:
        """Ask without waiting; False without a session, which then is sought.

        Answers to earlier requests that have arrived stay for :meth:`poll`.

        Raises:
            Refused: the server was replaced by one for another robot.
            SpecMismatch: the observation is not of the spec.
        """
        require_arrays(request.observation.arrays, self._spec.observation)
        session = self._session
        if not session.ready:
            self._rejoin()
        if session.ready and self._ask(request):
            return True
        if session.ready:
            session.lost()
        return False

    def poll(self) -> ActionChunk | Rejected | None:
        """Return the next answer that has arrived, to whichever request; None without one."""
        return self._next(0)

    def close(self) -> None:
        """Leave the server; safe to call twice."""
        self._session.close(Bye())

    def _ask(self, request: Request) -> bool:
        observation, prefix, now_ns = request.observation, request.prefix, self._clock.now_ns()
        ask = Ask(
            tick=request.tick,
            seed=request.seed,
            episode=observation.episode,
            step=observation.step,
            age_ns=request.age_ns,
            budget_ns=max(0, request.deadline_ns - now_ns),
            prefix=0 if prefix is None else len(prefix),
        )
        self._asked_ns.append((request.tick, now_ns))
        self._newest_tick = request.tick
        arrays = observation.arrays
        if prefix is not None and ask.prefix:
            arrays = (*arrays, prefix)
        return self._session.send(ask, arrays)

    def _next(self, timeout_ns: int) -> ActionChunk | Rejected | None:
        """Return the next valid answer within ``timeout_ns``."""
        until_ns = self._clock.now_ns() + timeout_ns if timeout_ns > 0 else 0
        for count in range(MAX_DRAIN):
            if count and timeout_ns > 0:
                timeout_ns = until_ns - self._clock.now_ns()
            item = self._session.receive(max(0, timeout_ns))
            if item is None:
                return None
            message, frames = item
            if isinstance(message, Answer):
                chunk = self._take(message, frames[0])
                if chunk is not None:
                    return chunk
            elif isinstance(message, Reject):
                return self._heed_reject(message)
            elif isinstance(message, Welcome):
                self._heed_welcome()
            elif isinstance(message, Refusal) and self._session.refusal is not None:
                return Rejected(self._newest_tick, Reason.UNREACHABLE)
        return None

    def _heed_reject(self, reject: Reject) -> Rejected:
        if reject.code == "no_session":
            if reject.tick == self._newest_tick:
                self._session.lost()
                self._session.greet()
            return Rejected(reject.tick, Reason.UNREACHABLE)
        if reject.code in ("late", "superseded"):
            return Rejected(reject.tick, Reason.LATE)
        detail = f"{self._session.endpoint}: {reject.code}: {reject.detail}"
        return Rejected(reject.tick, Reason.REFUSED, detail)

    def _rejoin(self) -> None:
        self._session.greet()
        for _ in range(MAX_DRAIN):
            if self._next(0) is None or self._session.ready:
                break
        if self._session.ready:
            self._heed_welcome()
        elif self._session.refusal is not None:
            refusal = self._session.refusal
            raise Refused(f"{self._session.endpoint}: {refusal.code}: {refusal.detail}")

    def _heed_welcome(self) -> None:
        if self._session.welcome is not None:
            self._version = self._session.welcome.version

    def _take(self, answer: Answer, frame: bytes) -> ActionChunk | None:
        """Return an answer that is valid, and keep it where it is the newest."""
        try:
            actions = unpack_chunk(frame, self._spec.action, answer.horizon)
            tick = answer.tick
            if tick > self._newest_tick:
                raise WireError(f"answer to tick {tick}, which was not asked yet")
        except WireError:
            self._malformed += 1
            return None
        chunk = ActionChunk(
            tick=tick,
            actions=actions,
            version=answer.version,
            evaluations=answer.evaluations,
            queue_ns=answer.queue_ns,
            infer_ns=answer.infer_ns,
            candidates=answer.candidates,
            batch=answer.batch,
            prefix=answer.prefix,
            rtt_ns=self._since_asked_ns(tick),
        )
        if self.newest_chunk is None or tick >= self.newest_chunk.tick:
            self.newest_chunk = chunk
            self._version = answer.version
        self.late += tick != self._newest_tick
        return chunk

    def _since_asked_ns(self, tick: int) -> int:
        now_ns = self._clock.now_ns()
        for when, asked_ns in reversed(self._asked_ns):
            if when == tick:
                return now_ns - asked_ns
        return -1
