"""Keys of servers and clients: files of one line, an allow-list, and who gets in.

A pair is Curve25519's (CurveZMQ, RFC 26): ``NAME.key`` holds the secret and stays where it was
made, ``NAME.pub`` goes to the other side. Both are one line of text.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controller.arguments import nearest
from controller.errors import ConfigError
from controller.key_settings import ClientKeySettings, ServerKeySettings

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEX = re.compile(r"[0-9a-f]{64}")
_WORDS = {".key": "onebeat-secret", ".pub": "onebeat-public"}
_KINDS = {".key": "a secret key", ".pub": "a public key"}


@dataclass(frozen=True)
class ServerKeys:
    """A server's secret, and the names of the clients it lets in by their public keys."""

    secret: bytes = field(repr=False)
    clients: Mapping[bytes, str]


@dataclass(frozen=True)
class ClientKeys:
    """A client's secret, and the public key of the server it trusts."""

    secret: bytes = field(repr=False)
    server: bytes


def key_directory() -> Path:
    """Return where keys are found by name."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "onebeat" / "keys"


def fingerprint(public: bytes) -> str:
    """Return 16 hex digits in fours that stand for a public key, to compare by eye."""
    digits = hashlib.sha256(public).hexdigest()[:16]
    return "-".join(digits[at : at + 4] for at in range(0, 16, 4))


def write_pair(
    name: str, public: bytes, secret: bytes, directory: Path | None = None
) -> tuple[Path, Path]:
    """Write ``name.key`` (mode 0600) and ``name.pub``, and return their paths.

    Raises:
        ConfigError: not a name, or there is such a key already: it is never written over.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"name: got {name!r}, expected 1 to 64 letters, digits, dots, dashes and underscores"
        )
    directory = directory or key_directory()
    paths = directory / f"{name}.key", directory / f"{name}.pub"
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path}: there is such a key already; choose another name")
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(paths[0], f"{_WORDS['.key']} {secret.hex()}\n", 0o600)
        _write(paths[1], f"{_WORDS['.pub']} {public.hex()}\n", 0o644)
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}") from None
    return paths


def read_secret(place: str, directory: Path | None = None) -> bytes:
    """Return the secret key of a name, or of the file at a path.

    Raises:
        ConfigError: there is none, the file is no secret key, or others may read it.
    """
    path = _find(place, ".key", directory)
    key = _read(path, ".key")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise ConfigError(
            f"{path}: others than its owner may read or write this secret key (mode {mode:04o}), "
            f"expected 0600: chmod 600 {path}, or make another if it may have been read"
        )
    return key


def read_public(place: str, directory: Path | None = None) -> bytes:
    """Return the public key of a name, of the file at a path, or of 64 hex digits.

    Raises:
        ConfigError: there is none, or the file is no public key.
    """
    if _HEX.fullmatch(place):
        return bytes.fromhex(place)
    return _read(_find(place, ".pub", directory), ".pub")


def read_allowed(places: Sequence[str], directory: Path | None = None) -> dict[bytes, str]:
    """Return the names of public keys: of names, files, hex digits, and all of a directory.

    Raises:
        ConfigError: one of them is no public key, or a directory has none.
    """
    allowed: dict[bytes, str] = {}
    for place in places:
        path = Path(place).expanduser()
        if not path.is_dir() or _NAME.fullmatch(place):
            key = read_public(place, directory)
            allowed[key] = fingerprint(key) if _HEX.fullmatch(place) else path.name
            continue
        files = sorted(path.glob("*.pub"))
        if not files:
            raise ConfigError(f"{path}: a directory without public keys (*.pub)")
        allowed |= {_read(file, ".pub"): file.stem for file in files}
    return {key: name.removesuffix(".pub") for key, name in allowed.items()}


def server_keys(settings: ServerKeySettings) -> ServerKeys | None:
    """Return the keys that settings name; None for none.

    Raises:
        ConfigError: see :func:`read_secret` and :func:`read_allowed`.
    """
    if not settings.secret:
        return None
    return ServerKeys(read_secret(settings.secret), read_allowed(settings.places))


def client_keys(settings: ClientKeySettings) -> ClientKeys | None:
    """Return the keys that settings name; None for none.

    Raises:
        ConfigError: see :func:`read_secret` and :func:`read_public`.
    """
    if not settings.secret:
        return None
    return ClientKeys(read_secret(settings.secret), read_public(settings.server))


def names(directory: Path | None = None) -> list[str]:
    """Return the names of which there is a public or a secret key."""
    directory = directory or key_directory()
    found = (path for ending in _WORDS for path in directory.glob(f"*{ending}"))
    return sorted({path.stem for path in found})


class AllowList:
    """Answers who may connect, by the ZMQ Authentication Protocol (RFC 27).

    Args:
        clients: names by public key.

    Attributes:
        denied: handshakes answered with no.
    """

    def __init__(self, clients: Mapping[bytes, str]) -> None:
        self._clients = clients
        self.denied = 0

    def admit(self, request: Sequence[bytes]) -> list[bytes]:
        """Return version, request id, status (200 yes, 400 no), text, user id, no metadata.

        What is no request of a CURVE handshake gets a no.

        Args:
            request: version, request id, domain, address, identity, mechanism, public key.
        """
        number = request[1] if len(request) > 1 else b""
        whole = len(request) == 7 and request[0] == b"1.0" and request[5] == b"CURVE"
        name = self._clients.get(request[6]) if whole else None
        if name is not None:
            return [b"1.0", number, b"200", b"", name.encode()[:255], b""]
        self.denied += 1
        if whole and self.denied.bit_count() == 1:
            where = request[3].decode("ascii", "replace")
            shown = fingerprint(request[6])
            logger.warning("key %s from %s is not allowed (%d so far)", shown, where, self.denied)
        return [b"1.0", number, b"400", b"not on the allow-list", b"", b""]


def _write(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _find(place: str, ending: str, directory: Path | None) -> Path:
    if not _NAME.fullmatch(place) or place.endswith(tuple(_WORDS)):
        path = Path(place).expanduser()
        if path.is_file():
            return path
        raise ConfigError(f"{place or 'name'}: no such key file")
    directory = directory or key_directory()
    path = directory / f"{place}{ending}"
    if path.is_file():
        return path
    known = [name for name in names(directory) if (directory / f"{name}{ending}").is_file()]
    hint = nearest(place, known) if known else f"make it with onebeat keys new {place}"
    raise ConfigError(f"{place}: {_KINDS[ending]} of this name is not in {directory}; {hint}")


def _read(path: Path, ending: str) -> bytes:
    try:
        words = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"{path}: {reason}") from None
    if len(words) != 2 or words[0] != _WORDS[ending] or not _HEX.fullmatch(words[1]):
        other = next((e for e, word in _WORDS.items() if words[:1] == [word] and e != ending), "")
        raise ConfigError(
            f"{path}: {f'{_KINDS[other]}, ' if other else ''}not {_KINDS[ending]}; "
            f"expected one line: {_WORDS[ending]} and 64 hex digits"
        )
    return bytes.fromhex(words[1])
