"""An actor's way to the replay service: rows go there, and what is in force comes back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from controller.errors import ControllerError, PeerTimeout
from controller.feed.client import ReplayClient
from controller.feed.rows import Float32
from controller.tuning.fetched import fetched, is_bundle

log = logging.getLogger(__name__)

BEHIND = 512
"""Rows without a confirmation at which an actor waits: more would be of a policy that is gone."""
POLL_S = 0.05
"""The longest that a wait goes on without a look at whether it should end."""
FETCH_S = 5.0
"""Time that the files of a version may take."""
FETCH_AGAIN_S = 10.0
"""Between two tries to get the files of a version."""


class Courier:
    """Brings rows to the replay service, waits where it says so, and tells new versions.

    Args:
        client: of the service.
        bundles: where versions are put that are not on this disk.
        should_stop: whether to wait no longer.

    Attributes:
        paused_s: time waited for the learner, or for the service.
        unsent: rows that nobody had confirmed when the end came; the log has them.
    """

    def __init__(
        self, client: ReplayClient, bundles: Path, should_stop: Callable[[], bool]
    ) -> None:
        self._client, self._bundles, self._should_stop = client, bundles, should_stop
        self._told = ""
        self._fetch_at_s = 0.0
        self.paused_s = 0.0
        self.unsent = 0

    def first_bundle(self, timeout_s: float) -> tuple[str, str] | None:
        """Wait for the version in force, and return it and where its bundle is.

        None where the wait should end.

        Raises:
            PeerTimeout: no service, or no version, within ``timeout_s``.
            SpecMismatch: the service is of another robot.
            Refused: it wants no such client.
        """
        until_s = time.monotonic() + timeout_s
        why = ""
        while time.monotonic() < until_s:
            if self._should_stop():
                return None
            try:
                if not self._client.ready:
                    self._client.connect(4 * POLL_S)
                self._client.ask()
                self._client.pump(round(POLL_S * 1e9))
                if found := self.newer():
                    return found
                why = "it has no version in force yet"
            except PeerTimeout as error:
                why = str(error)
            time.sleep(POLL_S / 5)
        raise PeerTimeout(f"{self._client.endpoint}: nothing to act with in {timeout_s:g} s: {why}")

    def deliver(self, rows: Float32, versions: tuple[str, ...]) -> None:
        """Send rows, heed what the service says, and wait as long as it wants.

        Raises:
            Refused: the service was replaced by one that does not want this client.
        """
        client = self._client
        if len(rows):
            client.offer(rows, versions)
        client.pump()
        if client.wait_ms or client.behind > BEHIND:
            self._pause()

    def newer(self) -> tuple[str, str] | None:
        """Return another version that is in force, and the path of its bundle, once.

        None where there is none, or its bundle cannot be had for now.
        """
        version = self._client.version
        if not version or version == self._told:
            return None
        path = self._path(version, Path(self._client.bundle))
        if path is None:
            return None
        self._told = version
        return version, str(path)

    def finish(self, rows: Float32, versions: tuple[str, ...], timeout_s: float) -> None:
        """Send the last rows, for as long as the service takes them within a time."""
        client = self._client
        try:
            if len(rows) <= client.room:
                client.offer(rows, versions)
            if client.ready:
                client.flush(timeout_s)
        except ControllerError as error:
            log.warning("the last rows did not arrive: %s", error)
        self.unsent = client.behind

    def _pause(self) -> None:
        """Wait until the learner has caught up, and until the service has what was sent."""
        client, begun_s = self._client, time.monotonic()
        while (client.wait_ms or client.behind > BEHIND) and not self._should_stop():
            if client.wait_ms:
                time.sleep(min(client.wait_ms / 1e3, POLL_S))
            client.ask()
            client.pump(round(POLL_S * 1e9))
        self.paused_s += time.monotonic() - begun_s

    def _path(self, version: str, bundle: Path) -> Path | None:
        """Return where the bundle of a version is on this disk; None where it cannot be had."""
        if is_bundle(bundle):
            return bundle
        if time.monotonic() < self._fetch_at_s:
            return None
        try:
            path = fetched(self._bundles, version, lambda: self._client.fetch(version, FETCH_S))
        except (ControllerError, OSError) as error:
            log.warning("version %s could not be had: %s", version, error)
            self._fetch_at_s = time.monotonic() + FETCH_AGAIN_S
            return None
        return path
