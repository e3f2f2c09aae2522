"""Requests to a server: one verb, one report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from controller.clock import MonotonicClock
from controller.errors import PeerTimeout, Refused
from controller.greeting import Session
from controller.keys import ClientKeys
from controller.wire import Bye, Control, Report


def control(
    endpoint: str,
    verb: str,
    args: Mapping[str, str] | None = None,
    timeout_s: float = 5.0,
    keys: ClientKeys | None = None,
) -> dict[str, Any]:
    """Ask the server at ``endpoint`` to do ``verb``, and return its report.

    Args:
        endpoint: address of the server.
        verb: what to do.
        args: with what.
        timeout_s: the longest to wait.
        keys: for a server that has keys.

    Raises:
        PeerTimeout: no server, or no report within ``timeout_s``.
        Refused: the server could not do it; the message says why.
    """
    session = Session(endpoint, "control", _WALL, keys=keys)
    until_ns = _WALL.now_ns() + round(timeout_s * 1e9)
    try:
        session.connect(timeout_s)
        session.send(Control(verb, dict(args or {})))
        while (remaining_ns := until_ns - _WALL.now_ns()) > 0:
            item = session.receive(remaining_ns)
            if item is not None and isinstance(item[0], Report) and item[0].verb == verb:
                return read_report(endpoint, item[0])
    finally:
        session.close(Bye())
    raise PeerTimeout(f"{endpoint}: no report on {verb!r} within {timeout_s:g} s")


def read_report(endpoint: str, report: Report) -> dict[str, Any]:
    """Return what a report says.

    Raises:
        Refused: the server could not do it; or the report is none.
    """
    try:
        detail = msgspec.json.decode(report.detail, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Refused(f"{endpoint}: {report.verb}: the report is not a JSON object") from None
    if not report.ok:
        raise Refused(f"{endpoint}: {report.verb}: {detail.get('reason', 'no reason given')}")
    return detail


_WALL = MonotonicClock()  # requests wait in real time
