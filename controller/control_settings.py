"""Settings of ``onebeat control``. Reading them needs neither sockets nor keys."""

from __future__ import annotations

import msgspec

from controller.key_settings import NO_CLIENT_KEYS, ClientKeySettings
from controller.ranges import Positive


class ControlConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask a running server to do something, and show its report.

    Attributes:
        verb: of any server ``ready`` and ``stats``; of a policy server also ``swap``,
            ``rollback``, ``canary``, ``promote``, ``abort`` and ``metrics``.
        endpoint: address of the server.
        args: arguments of the verb, as in ``args.bundle=runs/new args.share=0.1``.
        timeout_s: how long it may take; loading a large policy takes its time.
        keys: for a server at an endpoint that has keys.
    """

    verb: str = "stats"
    endpoint: str = "ipc:///tmp/onebeat-policy"
    args: dict[str, str] = {}
    timeout_s: Positive = 60.0
    keys: ClientKeySettings = NO_CLIENT_KEYS
