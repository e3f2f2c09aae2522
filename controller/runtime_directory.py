"""A private place for the sockets of one run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

PREFIX = "onebeat-run-"
"""Nothing else may be named so: what has this name and no owner is removed."""
_STALE_AFTER_S = 60.0


class RuntimeDirectory:
    """A private directory for ipc sockets: short path, mode 0700, removed at the end.

    A directory that a killed process left behind is removed by the next one made. A lock that
    the kernel gives up with its owner tells the two apart.
    """

    def __init__(self) -> None:
        self._lock = -1
        self.path = Path()

    def __enter__(self) -> Path:
        # An ipc address has at most 107 bytes, and TMPDIR may be deep.
        base = Path("/tmp")
        if not os.access(base, os.W_OK | os.X_OK):
            base = Path(tempfile.gettempdir())
        _sweep(base)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        self._lock = _locked(self.path)
        return self.path

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _locked(path: Path) -> int:
    """Return a descriptor that holds the directory's lock, -1 when another holds it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def _sweep(base: Path) -> None:
    for path in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            about = path.lstat()
            mine = about.st_uid == os.getuid() and stat.S_ISDIR(about.st_mode)
            if not mine or time.time() - about.st_mtime < _STALE_AFTER_S:
                continue
            lock = _locked(path)
            if lock >= 0:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
