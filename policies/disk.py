"""Files that are whole or not there, and files whose every byte has its place on the disk."""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path
from typing import IO

from controller.errors import DataError

MIB = 2**20


def replace_file(file: Path, blob: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}.part")
    with scratch.open("wb") as stream:
        stream.write(blob)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(file)


def hold(file: Path) -> IO[bytes] | None:
    """Return ``file`` open and locked for this process alone; None where another has it.

    The lock goes when it is closed, and with the process, however that ends.

    Raises:
        OSError: the file cannot be opened.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    stream = file.open("wb")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream


def map_file(file: Path, size: int, fresh: bool) -> mmap.mmap:
    """Return ``size`` bytes of ``file``, to be read and written in place.

    Args:
        file: where they are.
        size: bytes.
        fresh: make the file, full of zeros; else it must be there.

    Raises:
        DataError: there is no room for it; or it is gone, or of another size.
    """
    if fresh:
        _allocate(file, size)
    else:
        _require(file, size)
    with file.open("r+b") as stream:
        return mmap.mmap(stream.fileno(), size)


def _require(file: Path, size: int) -> None:
    found = file.stat().st_size if file.is_file() else None
    if found != size:
        state = "is gone" if found is None else f"has {found} bytes, expected {size}"
        raise DataError(f"{file}: {state}; the run cannot go on: choose another out")


def _allocate(file: Path, size: int) -> None:
    """Make ``file`` of ``size`` bytes, all of them on the disk.

    Writing to a mapped file on a full disk would kill the process without a word.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, size)
    except OSError as error:
        raise DataError(
            f"{file}: no room for {size / MIB:,.0f} MiB of replay ({error.strerror}); lower "
            "capacity, or choose another out"
        ) from error
