"""Addresses of servers: which ones may be used, and with which protection."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from controller.errors import ConfigError, EndpointInUse

MAX_IPC_PATH = 107
_TCP = re.compile(r"tcp://(?P<host>\[[0-9A-Za-z:.%]+\]|[0-9A-Za-z._-]+|\*):(?P<port>\d{1,5}|\*)")
_LOOPBACK = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "[::1]": "[::1]"}
_EVERYWHERE = ("*", "0.0.0.0", "[::]")


def endpoint_for(directory: Path | str, name: str) -> str:
    """Return the ipc endpoint of socket ``name`` in ``directory``.

    Raises:
        ConfigError: the path is longer than a socket path may be.
    """
    return check_endpoint(f"ipc://{Path(directory).resolve() / name}")


def check_endpoint(endpoint: str, bind: bool = False, keys: bool = False) -> str:
    """Return ``endpoint`` as the messaging library wants it.

    Args:
        endpoint: what was asked for.
        bind: a server will bind it; else a client will connect.
        keys: the connection will be encrypted, and both sides know each other's key.

    Raises:
        ConfigError: not an address; an ipc path that is too long; a tcp address beyond loopback
            without keys; keys for inproc, which has no connection to protect.
    """
    scheme, _, address = endpoint.partition("://")
    if scheme == "ipc" and address and address[0] not in "@*":
        if len(os.fsencode(address)) > MAX_IPC_PATH:
            raise ConfigError(
                f"{endpoint}: socket path of {len(os.fsencode(address))} bytes, "
                f"at most {MAX_IPC_PATH} are allowed; choose a shorter directory"
            )
        return endpoint
    if scheme == "inproc" and address:
        if keys:
            raise ConfigError(f"{endpoint}: keys are for ipc and tcp; inproc stays in one process")
        return endpoint
    if match := _TCP.fullmatch(endpoint):
        return _check_tcp(endpoint, match["host"], match["port"], bind, keys)
    raise ConfigError(
        f"{endpoint}: not an endpoint; expected ipc://PATH, tcp://HOST:PORT or inproc://NAME"
    )


def bind_error(endpoint: str, number: int | None, text: str | None) -> ConfigError | EndpointInUse:
    """Return what to raise when ``endpoint`` could not be bound, given the system's error."""
    if number in (errno.EADDRINUSE, errno.EWOULDBLOCK):
        return EndpointInUse(f"{endpoint}: in use by another server")
    if number == errno.ENOENT:
        return ConfigError(f"{endpoint}: the directory does not exist")
    if number in (errno.ENODEV, errno.EADDRNOTAVAIL):
        return ConfigError(
            f"{endpoint}: not an address of this machine; expected one of its IP addresses, the "
            "name of a network interface, or * for all"
        )
    return ConfigError(f"{endpoint}: cannot be bound: {text or number}")


def beyond_loopback(address: str) -> bool:
    """Return whether a checked address leads over a network."""
    match = _TCP.fullmatch(address)
    return match is not None and match["host"] not in _LOOPBACK


def _check_tcp(endpoint: str, host: str, port: str, bind: bool, keys: bool) -> str:
    if host not in _LOOPBACK and not keys:
        raise ConfigError(
            f"{endpoint}: beyond loopback encryption keys are required: make them with onebeat "
            f"keys new NAME and name them under keys; without, expected host "
            f"{', '.join(_LOOPBACK)}"
        )
    if host in _EVERYWHERE and not bind:
        raise ConfigError(f"{endpoint}: a server may listen everywhere; name the host to reach")
    free = port == "*" or int(port) == 0
    if (free and not bind) or (port != "*" and int(port) > 65535):
        raise ConfigError(f"{endpoint}: port {port}, expected 1 to 65535")
    return f"tcp://{_LOOPBACK.get(host, host)}:{'*' if free else port}"
