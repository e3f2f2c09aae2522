"""Ownership of an ipc path: the messaging library binds over a live server without a word."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from controller.errors import ConfigError


class PathLock:
    """Holds ``PATH.lock`` for the owner of a socket; goes with the process, however that ends.

    Args:
        endpoint: named in messages.
        path: of the socket; a socket that a dead server left there is removed.

    Raises:
        ConfigError: a file that is no socket has this name.
        OSError: another process holds the lock, or the directory does not exist.
    """

    def __init__(self, endpoint: str, path: Path) -> None:
        self._path = path
        self._file = path.with_name(path.name + ".lock")
        self._fd: int | None = _lock_file(self._file)
        if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
            self.release(unlink=False)
            raise ConfigError(f"{endpoint}: a file that is no socket has this name")
        path.unlink(missing_ok=True)

    def release(self, unlink: bool = True) -> None:
        """Give the path up, and remove the socket the library leaves behind."""
        if self._fd is None:
            return
        if unlink:
            self._path.unlink(missing_ok=True)
        self._file.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = None


def _lock_file(path: Path) -> int:
    while True:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The former owner may have removed the file between our open and our lock.
            if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except FileNotFoundError:
            pass
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
