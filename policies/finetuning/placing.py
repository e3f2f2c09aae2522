"""Bringing everybody to the version in force: the policy servers, then the replay service."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from controller.clock import MonotonicClock
from controller.errors import Refused
from controller.interfaces import Clock
from policies.bundle import publish
from policies.finetuning.gate_links import Server, Service

log = logging.getLogger(__name__)

RETRY_NS = 2_000_000_000
"""Before a server that did not take a version up is asked again."""
REFUSALS = 3
"""Refusals in a row after which a version is taken for one that servers cannot serve."""


class Placing:
    """Asks each to take the version in force up, and again whoever did not.

    Asking twice does no harm: whoever has the version is passed over.

    Args:
        store: of published versions.
        service: the replay service.
        servers: the policy servers.
        clock: paces the asking again; the machine's by default.

    Attributes:
        owed: whether somebody may not have the version in force.
        refused: why a server refused the version in force, time and again; empty otherwise.
    """

    def __init__(
        self, store: Path, service: Service, servers: Sequence[Server], clock: Clock | None = None
    ) -> None:
        self._store, self._service, self._servers = store, service, list(servers)
        self._clock = clock or MonotonicClock()
        self._lacking: list[Server] = list(servers)
        self._told = False
        self._refusals, self.refused = 0, ""
        self._tried_ns: int | None = None

    @property
    def owed(self) -> bool:
        """Whether somebody may not have the version in force."""
        return bool(self._lacking) or not self._told

    @property
    def due(self) -> bool:
        """Whether it is time to ask who may not have it."""
        waited_ns = self._clock.now_ns() - (self._tried_ns or 0)
        return self.owed and (self._tried_ns is None or waited_ns >= RETRY_NS)

    def begin(self) -> None:
        """Take it that nobody has the version in force."""
        self._lacking, self._told = list(self._servers), False
        self._refusals, self.refused = 0, ""
        self._tried_ns = None

    def swap(self, version: str, *, back: bool) -> float | None:
        """Ask everybody to take up a version that was not in force, servers first.

        Args:
            version: of the store.
            back: it comes by a rollback.

        Returns:
            Milliseconds from the asking of the first server to the report of the last; None where
            one did not.

        Raises:
            PeerTimeout: the replay service did not answer; everybody else was asked.
            Refused: it refused.
        """
        self.begin()
        return self._ask(version, back=back, again=False)

    def catch_up(self, version: str, *, back: bool) -> float | None:
        """Ask whoever may not have the version in force; see :meth:`swap`.

        What lies in the store, and is its current version, is seen to as well.
        """
        publish(self._store / version, self._store)
        return self._ask(version, back=back, again=True)

    def _ask(self, version: str, *, back: bool, again: bool) -> float | None:
        began_ns = self._tried_ns = self._clock.now_ns()
        bundle = self._store / version
        self._lacking = [
            one for one in self._lacking if not self._takes(one, version, bundle, again=again)
        ]
        took_ms = (self._clock.now_ns() - began_ns) / 1e6
        if not self._told:
            self._tell(version, bundle, back=back, again=again)
        return None if self.owed else took_ms

    def _takes(self, server: Server, version: str, bundle: Path, *, again: bool) -> bool:
        """Return whether a server has taken the version up."""
        try:
            if not again or server.version() != version:
                server.swap(bundle)
        except Refused as error:
            log.warning("%s", error)
            self._refusals += 1
            self.refused = str(error) if self._refusals >= REFUSALS else ""
            return False
        except TimeoutError as error:
            log.warning("%s", error)
            return False
        return True

    def _tell(self, version: str, bundle: Path, *, back: bool, again: bool) -> None:
        if not again or self._service.stats().get("version") != version:
            tell = self._service.rollback if back else self._service.publish
            tell(bundle)
        self._told = True
