"""What the gate talks to: the replay service, and the policy servers that take up its versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from controller.clock import MonotonicClock
from controller.control import read_report
from controller.errors import PeerTimeout
from controller.feed.client import ReplayClient
from controller.greeting import Session
from controller.interfaces import Clock
from controller.keys import ClientKeys
from controller.spec import Spec
from controller.types import Array
from controller.wire import Bye, Control, Reject, Report

NAME = "gate"
"""Of the client: the replay service neither limits nor counts what it draws."""
ANSWER_S = 5.0
LOOK_NS = 100_000_000
"""Between two looks at whether the time is up."""
SWAP_S = 10.0
"""The longest that a server may take to load a version on a busy machine."""


class Service(Protocol):
    """The replay service, as the gate uses it."""

    def stats(self) -> dict[str, Any]:
        """Return its counters."""
        ...

    def episodes(self, since: int) -> dict[str, Any]:
        """Return the episodes that ended since an index."""
        ...

    def publish(self, bundle: Path) -> None:
        """Tell it that a version is in force."""
        ...

    def rollback(self, bundle: Path) -> None:
        """Tell it that a version is in force again, and the learner has to begin there."""
        ...

    def restart(self) -> None:
        """Tell it that the learner has to begin again at the version in force."""
        ...

    def observations(self, rows: int) -> Array | None:
        """Return (rows, D) of what it holds; None where it does not hold as many."""
        ...


class Server(Protocol):
    """A policy server, as the gate uses it."""

    endpoint: str

    def swap(self, bundle: Path) -> None:
        """Have it answer with a version."""
        ...

    def version(self) -> str:
        """Return the version that answers."""
        ...


class Asking:
    """Control requests to one server over one session, which is kept.

    ``controller.control`` begins a session for each, which takes 11 ms where this takes 0.1, and
    five times the processor's time.

    Args:
        endpoint: address of the server.
        keys: for a server that has keys.
    """

    def __init__(self, endpoint: str, keys: ClientKeys | None) -> None:
        self._endpoint, self._keys = endpoint, keys
        self._session: Session | None = None

    def ask(self, verb: str, args: dict[str, str], timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """Ask for ``verb`` and return the report.

        Raises:
            PeerTimeout: no server, or no report in time.
            Refused: the server could not do it.
        """
        until_ns = _WALL.now_ns() + round(timeout_s * 1e9)
        try:
            while (left_ns := until_ns - _WALL.now_ns()) > 0:
                report = self._report(self._begun(left_ns / 1e9), Control(verb, args), until_ns)
                if report is not None:
                    return read_report(self._endpoint, report)
        except PeerTimeout:
            self.close()
            raise
        # A report that comes late would be taken for the answer to the next request.
        self.close()
        raise PeerTimeout(f"{self._endpoint}: no report on {verb!r} within {timeout_s:g} s")

    def close(self) -> None:
        """Leave the server; safe to call twice."""
        if self._session is not None:
            self._session.close(Bye())
        self._session = None

    def _begun(self, timeout_s: float) -> Session:
        """Return the session, greeted."""
        if self._session is None:
            self._session = Session(self._endpoint, "control", _WALL, NAME, keys=self._keys)
        if not self._session.ready:
            self._session.connect(timeout_s)
        return self._session

    @staticmethod
    def _report(session: Session, request: Control, until_ns: int) -> Report | None:
        """Return the report; None where the server was replaced meanwhile, or none came."""
        if not session.send(request):
            session.lost()
            return None
        while (left_ns := until_ns - _WALL.now_ns()) > 0:
            item = session.receive(min(left_ns, LOOK_NS))
            if item is None:
                continue
            if isinstance(item[0], Report) and item[0].verb == request.verb:
                return item[0]
            if isinstance(item[0], Reject) and item[0].code == "no_session":
                session.lost()
                return None
        return None


class ReplayService:
    """The replay service at an address.

    Args:
        endpoint: its address.
        spec: the robot.
        keys: for a service that has keys.
        clock: time.
    """

    def __init__(
        self, endpoint: str, spec: Spec, keys: ClientKeys | None, clock: Clock | None = None
    ) -> None:
        self._endpoint, self._asking = endpoint, Asking(endpoint, keys)
        self._client = ReplayClient(endpoint, spec, clock or _WALL, NAME, keys)

    def stats(self) -> dict[str, Any]:
        """Return its counters."""
        return self._asking.ask("stats", {})

    def episodes(self, since: int) -> dict[str, Any]:
        """Return the episodes that ended since an index."""
        return self._asking.ask("episodes", {"since": str(since)})

    def publish(self, bundle: Path) -> None:
        """Tell it that a version is in force."""
        self._asking.ask("publish", {"bundle": str(bundle)})

    def rollback(self, bundle: Path) -> None:
        """Tell it that a version is in force again, and the learner has to begin there."""
        self._asking.ask("rollback", {"bundle": str(bundle)})

    def restart(self) -> None:
        """Tell it that the learner has to begin again at the version in force."""
        self._asking.ask("restart", {})

    def observations(self, rows: int) -> Array | None:
        """Return (rows, D) drawn evenly of what it holds; None where it does not hold as many."""
        if int(self.stats().get("rows", 0)) < rows:
            return None
        client, until_ns = self._client, _WALL.now_ns() + round(ANSWER_S * 1e9)
        # A service that was replaced lets go of the first request.
        while (left_ns := until_ns - _WALL.now_ns()) > 0:
            drawn = client.draw(1, rows, 0, "", left_ns)
            if drawn is not None:
                return None if drawn[1] is None else client.layout.split(drawn[1])["observation"]
        raise PeerTimeout(f"{self._endpoint}: no rows within {ANSWER_S:g} s")

    def close(self) -> None:
        """Leave the service; safe to call twice."""
        self._asking.close()
        self._client.close()


class PolicyServerAt:
    """The policy server at an address.

    Args:
        endpoint: its address.
        keys: for a server that has keys.
    """

    def __init__(self, endpoint: str, keys: ClientKeys | None = None) -> None:
        self.endpoint, self._asking = endpoint, Asking(endpoint, keys)

    def swap(self, bundle: Path) -> None:
        """Have it answer with a version, once it is loaded and tried."""
        self._asking.ask("swap", {"bundle": str(bundle)}, SWAP_S)

    def version(self) -> str:
        """Return the version that answers."""
        return str(self._asking.ask("ready", {}).get("version", ""))

    def close(self) -> None:
        """Leave the server; safe to call twice."""
        self._asking.close()


def servers_at(endpoints: str) -> Sequence[PolicyServerAt]:
    """Return the servers at addresses with commas between them; none for empty text."""
    return [PolicyServerAt(one.strip()) for one in endpoints.split(",") if one.strip()]


_WALL = MonotonicClock()  # requests wait in real time
