"""The far side of a process on a Ray node: it is started, watched and ended there. Needs no Ray.

An object of :class:`Seat` lives in a worker process of Ray, which is the parent of the process:
when the worker ends, so does it. Ray serialises the calls between machines by its own means, which
can carry code; what crosses here is JSON text alone, checked against :class:`Order` and
:class:`Report` on arrival.
"""

from __future__ import annotations

import importlib.metadata
import os
import socket
import sys
import tempfile
from pathlib import Path

import msgspec

from controller.process import Child, ChildDied

REFUSED = 126
"""Exit status of a process that its node would not start."""
KEPT_BYTES = 4 << 20
"""What is carried back of each of its two outputs: the end."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A command of this program and what it needs.

    Attributes:
        words: verb and words of the command line.
        name: what people call it.
        files: text of small files by the path that the words call them by; each is laid into a
            directory of the node, and the words are told that path.
        environment: variables beside those of the node.
        niceness: its scheduling priority.
        directory: where it works, if the node has such a directory.
        shared: a file that the node must see; empty for none.
        version: of this program, that the node must have; empty for any.
    """

    words: tuple[str, ...]
    name: str
    files: dict[str, str] = {}
    environment: dict[str, str] = {}
    niceness: int = 0
    directory: str = ""
    shared: str = ""
    version: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a process stands.

    Attributes:
        host: the node.
        pid: process id there; 0 before the start.
        code: exit status, negative for the signal that ended it; None while it runs.
        said: the last line it wrote; why it was refused.
        stdout: end of its standard output, once it has ended.
        log: end of what else it wrote, once it has ended.
    """

    host: str
    pid: int
    code: int | None
    said: str
    stdout: str = ""
    log: str = ""


class Seat:
    """Owns one process.

    Args:
        order: JSON of an :class:`Order`.
    """

    def __init__(self, order: str) -> None:
        self._order = msgspec.json.decode(order, type=Order)
        self._scratch = tempfile.TemporaryDirectory(prefix="onebeat-node-")
        self._child: Child | None = None
        self._last: Report | None = None

    def begin(self) -> str:
        """Start the process; return the JSON of a :class:`Report`."""
        order, place = self._order, Path(self._scratch.name)
        reason = refusal(order)
        if reason:
            return self._end(self._report(REFUSED, reason))
        # Relative paths mean the same as where the command was given, if they can.
        os.chdir(order.directory if os.path.isdir(order.directory) else place)
        words = [sys.executable, "-m", "controller.cli", *lay(order, place)]
        self._child = Child(
            words,
            order.name,
            environment=order.environment,
            niceness=order.niceness,
            stdout=place / "stdout",
            log=place / "log",
        )
        try:
            self._child.start()
        except ChildDied as error:
            return self._end(self._report(REFUSED, str(error)))
        return self.look()

    def look(self) -> str:
        """Return the JSON of a :class:`Report`; the one after the end holds what it wrote."""
        if self._last is not None:
            return _text(self._last)
        assert self._child is not None, "looked at before its begin"
        code = self._child.poll()
        report = self._report(code, self._child.last_error())
        return _text(report) if code is None else self._end(report)

    def stop(self, timeout_s: float) -> str:
        """End the process: SIGTERM, up to ``timeout_s``, then SIGKILL; as :meth:`look`."""
        if self._last is None and self._child is not None:
            self._child.stop(timeout_s)
        return self.look()

    def _report(self, code: int | None, said: str) -> Report:
        pid = self._child.pid if self._child else 0
        return Report(host=socket.gethostname(), pid=pid, code=code, said=said)

    def _end(self, report: Report) -> str:
        place = Path(self._scratch.name)
        if self._child is not None:
            self._child.kill()
        self._last = msgspec.structs.replace(
            report, stdout=_tail(place / "stdout"), log=_tail(place / "log")
        )
        os.chdir("/")
        self._scratch.cleanup()
        return _text(self._last)


def refusal(order: Order) -> str:
    """Return why this machine cannot do what is ordered, empty if it can."""
    here = version()
    if order.version and order.version != here:
        return f"{socket.gethostname()} has onebeat {here}, expected {order.version}"
    if order.shared and not os.path.exists(order.shared):
        host, directory = socket.gethostname(), os.path.dirname(order.shared)
        return f"{host} does not see {directory}: a shared file system must hold it"
    return ""


def lay(order: Order, place: Path) -> list[str]:
    """Lay an order's files into a directory; return its words with their paths there.

    A path stands alone as a word, or as the value of ``key=path``.
    """
    paths = {}
    for number, (path, text) in enumerate(order.files.items()):
        copy = place / f"{number}-{Path(path).name}"
        copy.write_text(text, encoding="utf-8")
        paths[path] = str(copy)
    words = []
    for word in order.words:
        key, equals, value = word.partition("=")
        if equals and value in paths:
            words.append(f"{key}={paths[value]}")
        else:
            words.append(paths.get(word, word))
    return words


def version() -> str:
    """Return the version of this program."""
    return importlib.metadata.version("onebeat")


def _tail(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - KEPT_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def _text(report: Report) -> str:
    return msgspec.json.encode(report).decode()
