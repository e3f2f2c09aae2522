"""The control requests of a policy server: readiness, figures, and changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from controller.arguments import nearest
from controller.wire import Control
from policies.serving.canary import Terms
from policies.serving.changes import CannotChange, Changes
from policies.serving.service import Service

_TERMS = tuple(field.name for field in msgspec.structs.fields(Terms))
VERBS: dict[str, tuple[str, ...]] = {
    "ready": (),
    "stats": (),
    "swap": ("bundle",),
    "rollback": (),
    "canary": _TERMS,
    "promote": (),
    "abort": (),
    "metrics": (),
}
"""Each verb with its arguments; ``policy`` is one more of every verb, ``bundle`` must be there
where it is one."""

Facts = Callable[[Service], dict[str, Any]]


class Desk:
    """Does what control requests ask for.

    Args:
        services: policies by name; the first is meant where none is named.
        changes: does the changes.
        report: sends a report: identity, verb, whether it was done, detail.
        facts: what ``ready``, ``stats`` and ``metrics`` tell of a service.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        changes: Changes,
        report: Callable[[bytes, str, bool, dict[str, Any]], None],
        facts: Mapping[str, Facts],
    ) -> None:
        self._services, self._changes = services, changes
        self._report, self._facts = report, facts

    def serve(self, identity: bytes, message: Control) -> None:
        """Answer one control request now, or once the loading it began has ended."""
        verb = message.verb
        try:
            args = _checked(verb, message.args)
            service = self._service(args.pop("policy", ""))
            detail = self._do(identity, verb, service, args)
        except CannotChange as error:
            self._changes.refuse(identity, verb, str(error))
        else:
            if detail is not None:
                self._report(identity, verb, True, detail)

    def _do(
        self, identity: bytes, verb: str, service: Service, args: dict[str, str]
    ) -> dict[str, Any] | None:
        if verb in self._facts:
            return self._facts[verb](service)
        if verb == "rollback":
            return self._changes.roll_back(service)
        if verb == "promote":
            return self._changes.promote(service)
        if verb == "abort":
            return self._changes.abort(service)
        terms = _terms(args) if verb == "canary" else None
        self._changes.begin(identity, service, args["bundle"], terms)
        return None

    def _service(self, name: str) -> Service:
        if name and name not in self._services:
            raise CannotChange(f"no policy {name!r} here; {nearest(name, self._services)}")
        return self._services[name or next(iter(self._services))]


def _checked(verb: str, args: Mapping[str, str]) -> dict[str, str]:
    if verb not in VERBS:
        raise CannotChange(f"unknown verb {verb!r}, expected {', '.join(VERBS)}")
    known = (*VERBS[verb], "policy")
    if not set(args) <= set(known) or ("bundle" in known and "bundle" not in args):
        got = ", ".join(args) or "none"
        raise CannotChange(f"arguments: {got}; expected {', '.join(known)}")
    return dict(args)


def _terms(args: Mapping[str, str]) -> Terms:
    try:
        return msgspec.convert(args, Terms, strict=False)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$.")
        raise CannotChange(f"{where.rstrip('`') or 'arguments'}: {message}") from None
