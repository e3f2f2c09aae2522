"""Get published datasets: resumed where it was left, checked, and kept."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from controller.errors import DataError
from policies.data.names import BASE_URL, Published
from policies.data.places import CACHE_VARIABLE, cache_directory
from policies.errors import DownloadFailed

URL_VARIABLE = "ONEBEAT_DATA_URL"
CHUNK = 1 << 18
ATTEMPTS = 5
"""Times that a connection may break before it is left for the next call."""
TIMEOUT_S = 30.0
_BROKEN = (http.client.HTTPException, ConnectionError, TimeoutError)

Progress = Callable[[int, int], None]
"""Called with bytes done, of all; 0 for all when the server does not say."""


@dataclass(frozen=True)
class Fetched:
    """A dataset on this machine.

    Attributes:
        path: the file.
        sha256: its checksum.
        size: its bytes.
        checked: what the checksum was compared with: ``published`` (that of D4RL's file),
            ``first download`` (the one kept beside the file then) or ``nothing`` (this is the
            first download; it is kept now).
        downloaded: whether it was downloaded now.
    """

    path: Path
    sha256: str
    size: int
    checked: str
    downloaded: bool


def address(dataset: Published, base: str | None = None) -> str:
    """Return where a dataset is downloaded from.

    Args:
        dataset: which.
        base: address below which D4RL's paths lie; None for ONEBEAT_DATA_URL, else D4RL's own.
    """
    return f"{(base or os.environ.get(URL_VARIABLE) or BASE_URL).rstrip('/')}/{dataset.path}"


def fetch(
    dataset: Published,
    *,
    base: str | None = None,
    directory: Path | None = None,
    on_progress: Progress | None = None,
    pause_s: float = 1.0,
) -> Fetched:
    """Return a dataset's file, downloaded if it is not there; its checksum is looked at anyway.

    A broken connection is taken up again where it broke, by this call up to ``ATTEMPTS`` times
    and by later ones. The checksum is compared with that of D4RL's file where that is known,
    else with that of the first download, which is kept beside the file.

    Args:
        dataset: which.
        base: address below which D4RL's paths lie; see :func:`address`.
        directory: where it is kept; None for ``places.cache_directory()``.
        on_progress: told of the progress of a download.
        pause_s: wait before the first new attempt; it doubles with each.

    Raises:
        DownloadFailed: no route, no such file, or broken too often; says what to do.
        DataError: the file is not the expected one, or no HDF5 file.
    """
    target = kept_at(dataset, directory)
    folder = target.parent
    url = address(dataset, base)
    if not url.startswith(("http://", "https://")):
        raise DownloadFailed(f"{url}: expected an address that begins http:// or https://")
    downloaded = not target.is_file()
    if downloaded:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(target.with_suffix(".lock")):
                if not target.is_file():
                    _Download(url, target, dataset, on_progress, pause_s).run()
        except PermissionError as error:
            raise DownloadFailed(
                f"{folder}: cannot be written ({error.strerror}); name another directory with "
                f"{CACHE_VARIABLE}"
            ) from error
    sha256 = checksum(target)
    return Fetched(
        target, sha256, target.stat().st_size, _compare(dataset, target, sha256, url), downloaded
    )


def kept_at(dataset: Published, directory: Path | None = None) -> Path:
    """Return where the download of a dataset is kept, whether it is there or not."""
    return (directory or cache_directory()) / f"{dataset.name}.hdf5"


def checksum(path: Path) -> str:
    """Return the sha256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manual(dataset: Published, url: str, folder: Path) -> str:
    """Return what to do on a machine without a way to the server."""
    return (
        f"on a machine that can, download {url}, then pass the file's path instead of "
        f"{dataset.name}, or put it at {folder / f'{dataset.name}.hdf5'}; {URL_VARIABLE} names "
        "a mirror"
    )


def _compare(dataset: Published, target: Path, sha256: str, url: str) -> str:
    kept = _kept(target)
    if dataset.sha256:
        expected, checked = dataset.sha256, "published"
    elif kept.is_file():
        expected, checked = kept.read_text().split()[0], "first download"
    else:
        kept.write_text(f"{sha256}  {target.name}\n")
        return "nothing"
    if not sha256.startswith(expected):
        raise DataError(
            f"{target}: sha256 {sha256[:16]} is not that of {dataset.name} ({expected[:16]}, "
            f"{checked}): remove it and fetch {url} again"
            + ("" if checked == "published" else f"; if the server's file was replaced, {kept} too")
        )
    return checked


def _kept(target: Path) -> Path:
    return target.with_suffix(".sha256")


class _Download:
    """One download in progress, into ``TARGET.part``; ``TARGET.tag`` says of which file."""

    def __init__(
        self,
        url: str,
        target: Path,
        dataset: Published,
        on_progress: Progress | None,
        pause_s: float,
    ) -> None:
        self._url, self._target, self._dataset = url, target, dataset
        self._progress, self._pause_s = on_progress, pause_s
        self._part = target.with_name(f"{target.name}.part")
        self._tag = target.with_name(f"{target.name}.tag")
        self._total = 0

    def run(self) -> None:
        """Download, check and put in place."""
        broken: Exception | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(self._pause_s * 2 ** (attempt - 1))
            try:
                self._receive()
                break
            except DownloadFailed:
                raise
            except _BROKEN as error:
                broken = error
        else:
            raise DownloadFailed(
                f"{self._url}: broken off {ATTEMPTS} times, at {self._done():,} of "
                f"{self._total:,} bytes ({_words(broken)}); the same command goes on from there"
            )
        self._check()
        self._part.replace(self._target)
        self._tag.unlink(missing_ok=True)

    def _done(self) -> int:
        return self._part.stat().st_size if self._part.is_file() else 0

    def _receive(self) -> None:
        with self._open() as answer:
            start = self._start(answer)
            length = int(answer.headers.get("Content-Length") or 0)
            self._total = start + length if length else 0
            self._require_room(length)
            with self._part.open("r+b" if start else "wb") as file:
                file.seek(start)
                file.truncate()
                done = start
                while block := answer.read(CHUNK):
                    file.write(block)
                    done += len(block)
                    if self._progress is not None:
                        self._progress(done, self._total)
                file.flush()
                os.fsync(file.fileno())
        if self._total and done < self._total:
            raise ConnectionError(f"ended after {done:,} of {self._total:,} bytes")

    def _open(self) -> Any:  # noqa: ANN401
        request = urllib.request.Request(self._url, headers={"User-Agent": "onebeat"})
        tag = self._tag.read_text() if self._tag.is_file() else ""
        if self._done() and tag:
            # Without the tag of the first answer the rest could be that of another file.
            request.add_header("Range", f"bytes={self._done()}-")
            request.add_header("If-Range", tag)
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except urllib.error.URLError as error:
            reason = error.reason
            if isinstance(reason, ConnectionResetError | TimeoutError):
                raise reason from error
            raise DownloadFailed(
                f"{self._url} cannot be reached ({_words(reason)}): "
                f"{manual(self._dataset, self._url, self._target.parent)}"
            ) from error

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._part.unlink(missing_ok=True)
            return ConnectionError("the server's file is shorter than what was received")
        if error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            return ConnectionError(f"status {error.code} {error.reason}")
        return DownloadFailed(
            f"{self._url}: status {error.code} {error.reason}: "
            f"{manual(self._dataset, self._url, self._target.parent)}"
        )

    def _start(self, answer: Any) -> int:  # noqa: ANN401
        """Return the byte an answer begins at, and keep the tag of what it is part of."""
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            said = answer.headers.get("Content-Range", "")
            if said.startswith(f"bytes {self._done()}-"):
                return self._done()
            self._part.unlink(missing_ok=True)
            raise ConnectionError(f"asked for the rest, got {said or 'an unnamed part'}")
        tag = answer.headers.get("ETag") or ""
        tag = "" if tag.startswith("W/") else tag
        self._tag.write_text(tag or answer.headers.get("Last-Modified") or "")
        return 0

    def _require_room(self, length: int) -> None:
        free = shutil.disk_usage(self._target.parent).free
        if length > free:
            raise DownloadFailed(
                f"{self._target.parent}: {length:,} bytes are to come and {free:,} are free; "
                f"name another directory with {CACHE_VARIABLE}"
            )

    def _check(self) -> None:
        """Raise unless what was received is the dataset; what is not is thrown away."""
        import h5py

        fault, size = "", self._done()
        if self._dataset.size and size != self._dataset.size:
            fault = f"{size:,} bytes, expected {self._dataset.size:,}"
        elif not checksum(self._part).startswith(self._dataset.sha256):
            fault = f"sha256 {checksum(self._part)[:16]}, expected {self._dataset.sha256[:16]}"
        else:
            try:
                with h5py.File(self._part, "r") as file:
                    missing = {"observations", "actions", "rewards", "terminals"} - set(file)
                fault = f"no column {min(missing)}" if missing else ""
            except OSError:
                fault = "not an HDF5 file"
        if fault:
            self._part.unlink()
            self._tag.unlink(missing_ok=True)
            raise DataError(f"{self._url} is not {self._dataset.name}: {fault}; thrown away")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, or raise if another process has it."""
    file: IO[bytes]
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadFailed(f"{path.stem} is being downloaded by another process") from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _words(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
