"""The control requests of a replay service."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from controller.arguments import nearest
from controller.errors import ControllerError, DataError
from controller.spec import Spec
from controller.wire import MAX_HEADER_BYTES, Control, one_line
from policies.bundle import load_bundle
from policies.errors import BundleError
from policies.finetuning.replay.ledger import Episode
from policies.finetuning.replay.store import Store

logger = logging.getLogger(__name__)

VERBS: dict[str, tuple[str, ...]] = {
    "ready": (),
    "stats": (),
    "publish": ("bundle",),
    "rollback": ("bundle",),
    "restart": (),
    "episodes": ("since",),
    "finish": (),
}
"""Each verb with its arguments, all of which must be there."""

ROOM = MAX_HEADER_BYTES - 4096
"""Bytes of a report on episodes."""

Facts = Callable[[], dict[str, Any]]


class CannotDo(ControllerError, ValueError):
    """A control request that makes no sense here; the message says why."""


class Desk:
    """Does what control requests ask for.

    Args:
        store: what the service keeps.
        spec: the robot whose bundles may be published.
        facts: what ``ready`` and ``stats`` tell.
    """

    def __init__(self, store: Store, spec: Spec, facts: Mapping[str, Facts]) -> None:
        self._store, self._spec, self._facts = store, spec, facts

    def serve(self, message: Control) -> tuple[bool, dict[str, Any]]:
        """Return whether a control request was done, and the report."""
        try:
            args = _checked(message.verb, message.args)
            return True, self._do(message.verb, args)
        except (BundleError, CannotDo, DataError) as error:
            logger.warning("%s refused: %s", message.verb, error)
            return False, {"reason": one_line(str(error))}

    def _do(self, verb: str, args: Mapping[str, str]) -> dict[str, Any]:
        if verb in self._facts:
            return self._facts[verb]()
        if verb == "episodes":
            return _episodes(*self._store.ledger.since(_number(args["since"])))
        if verb == "finish":
            self._store.progress.finished = True
            self._store.save()
            return {"finished": True, "inserted": self._store.ring.count}
        if verb == "restart":
            # Counted like a rollback, upon which the learner begins at the version in force.
            self._store.publications.rollbacks += 1
            self._store.save()
            return {"rollbacks": self._store.publications.rollbacks}
        return self._enter(args["bundle"], back=verb == "rollback")

    def _enter(self, path: str, back: bool) -> dict[str, Any]:
        """Put a bundle in force; the same once more changes nothing."""
        bundle, publications = load_bundle(path), self._store.publications
        if bundle.spec != self._spec:
            raise CannotDo(
                f"{path}: is of {bundle.spec.describe()}, expected {self._spec.describe()}"
            )
        before, root = publications.version, str(bundle.path.resolve())
        entered = publications.enter(bundle.version, root, back)
        # A service that starts again must not go back to an older version than actors were told.
        self._store.save()
        if entered:
            logger.info("%s is in force, %s before", bundle.version, before or "none")
        return {
            "version": publications.version,
            "before": before,
            "bundle": publications.bundle,
            "rollbacks": publications.rollbacks,
        }


def _checked(verb: str, args: Mapping[str, str]) -> Mapping[str, str]:
    if verb not in VERBS:
        raise CannotDo(f"unknown verb {verb!r}; {nearest(verb, VERBS)}")
    if set(args) != set(VERBS[verb]):
        got, known = (", ".join(names) or "none" for names in (args, VERBS[verb]))
        raise CannotDo(f"arguments of {verb}: {got}; expected {known}")
    return args


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise CannotDo(f"since: {text!r}, expected the number of an episode, from 0")
    return int(text)


def _episodes(episodes: list[Episode], following: int) -> dict[str, Any]:
    """Return a report on the newest episodes that fit into one."""
    sizes = [len(msgspec.json.encode(episode)) + 1 for episode in episodes]
    room, first = ROOM, len(episodes)
    while first and sizes[first - 1] <= room:
        first -= 1
        room -= sizes[first]
    return {"episodes": [msgspec.to_builtins(one) for one in episodes[first:]], "next": following}
