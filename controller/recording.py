"""The recorder's processes: they write a log from the datagrams of the loop.

Two share the socket. The writer takes datagrams and writes. The guard does nothing but wait for
the writer's end: where it was killed, or the disk was full, it starts the next one, which goes on
in a further file. Meanwhile the socket holds what the loop sends, so that a killed writer costs
no more than the one record it had in hand.

Both lead a session of their own and finish the log whatever happens to the loop: at the end of the
run, when the loop is killed, and on SIGTERM. Ctrl-C on the terminal does not reach them.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from controller.errors import LogError
from controller.log import LogFiles
from controller.log_frame import END, EVENT, FAILED, LOST, READY, TICK, TickFrame, unpack_event
from controller.log_parts import identity_of, parts_of
from controller.log_records import MAGIC, Opcode, RecordStream
from controller.log_schema import DROPPED, LogHeader
from controller.log_settings import LogSettings

MAX_OPENING = 8 << 20
"""Longest first datagram in bytes."""
_NICENESS = 5
_DONE, _FAILED, _REFUSED = 0, 1, 2
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
_STEADY_S = 5.0


class Opening(msgspec.Struct, frozen=True):
    """The first datagram: what to record, and where.

    Attributes:
        path: first file of the log.
        header: the run, dated.
        settings: when to begin a further file, and how many to keep.
    """

    path: str
    header: LogHeader
    settings: LogSettings


def main(arguments: list[str]) -> int:
    """Run the recorder on the socket with the given file descriptor; return the exit status.

    Args:
        arguments: the file descriptor.
    """
    sock = socket.socket(fileno=int(arguments[0]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What is queued can still be received after this, then comes the end of the stream.
    signal.signal(signal.SIGTERM, lambda *_: sock.shutdown(socket.SHUT_RD))
    _step_back()
    opening = msgspec.msgpack.decode(sock.recv(MAX_OPENING), type=Opening)
    return guard(sock, opening)


def guard(sock: socket.socket, opening: Opening) -> int:
    """Keep a writer at work until the run is over; return the exit status.

    A log that cannot even be begun is given up at once. Later a writer that fails is followed
    by another, in a further file, after a pause that grows; after the end of the run by one
    more.
    """
    head, pause_s, part, over = Path(opening.path), _FIRST_PAUSE_S, 0, False
    begun = False
    while True:
        start = time.monotonic()
        status = _write_in_child(sock, opening, part)
        if status == _DONE or (status == _REFUSED and not begun):
            return status
        if over:
            _count_lost(sock)
            return _FAILED
        begun = begun or status != _REFUSED
        pause_s = _FIRST_PAUSE_S if time.monotonic() - start > _STEADY_S else pause_s
        over = _is_over(sock, pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        part = next_part(head, opening.header.run)


def next_part(head: Path, run: str) -> int:
    """Return the number of the file in which a log goes on: after the last that holds anything."""
    ours = {n: path for n, path in parts_of(head).items() if _is_of(path, run)}
    if not ours:
        return 0
    last = max(ours)
    return last + _holds_something(ours[last])


def write(sock: socket.socket, opening: Opening, part: int) -> None:
    """Write the datagrams of ``sock`` until the end of the run, and finish the file.

    Raises:
        LogError: the file cannot be created.
        OSError: the file cannot be written any more; the record in hand is lost.
    """
    files = LogFiles(opening.path, opening.header, opening.settings, part)
    sock.send(READY + str(os.getpid()).encode())
    frame = TickFrame(opening.header.spec)
    buffer = memoryview(bytearray(frame.max_bytes))
    while length := _receive(sock, buffer):
        datagram = buffer[:length]
        if datagram == END:
            break
        try:
            if datagram[0] == TICK:
                files.tick(frame.unpack(datagram))
            else:
                files.event(*unpack_event(datagram))
        except BaseException:
            _tell_lost(sock, _is_record(datagram))
            raise
    else:
        files.late_event("log", "not closed by the controller")
    files.finish()


def _write_in_child(sock: socket.socket, opening: Opening, part: int) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = _DONE
    try:
        write(sock, opening, part)
    except LogError as error:
        status = _REFUSED
        _tell(sock, FAILED + str(error).encode())
    except BaseException as error:
        # Nobody reads what a traceback would say, and a full pipe would stop the recorder.
        status = _FAILED
        reason = (
            error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        )
        _tell(sock, FAILED + f"{opening.path}: {reason}".encode())
    finally:
        os._exit(status)


def _tell(sock: socket.socket, words: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.send(words[:4000], socket.MSG_DONTWAIT)


def _is_over(sock: socket.socket, timeout_s: float) -> bool:
    """Wait for the end of the run for a while; return whether it has come."""
    poller = select.poll()
    poller.register(sock, select.POLLRDHUP)
    return bool(poller.poll(timeout_s * 1e3))


def _count_lost(sock: socket.socket) -> None:
    """Tell how many records nobody will write."""
    lost, buffer = 0, memoryview(bytearray(64))
    while length := _receive(sock, buffer, socket.MSG_DONTWAIT):
        lost += _is_record(buffer[:length])
    _tell_lost(sock, lost)


def _tell_lost(sock: socket.socket, count: int) -> None:
    _tell(sock, LOST + str(int(count)).encode())


def _is_record(datagram: memoryview) -> bool:
    """Return whether the loop counts a datagram as one: it has counted what a report reports."""
    kind = datagram[0]
    return kind == TICK or (kind == EVENT and unpack_event(datagram)[1] != DROPPED)


def _receive(sock: socket.socket, buffer: memoryview, flags: int = 0) -> int:
    """Return the length of the next datagram; 0 when there is none or no more will come."""
    try:
        return sock.recv_into(buffer, 0, flags)
    except (BlockingIOError, ConnectionError):
        return 0


def _is_of(path: Path, run: str) -> bool:
    about = identity_of(path)
    return about is not None and about.run == run


def _holds_something(path: Path) -> bool:
    with open(path, "rb") as stream:
        stream.seek(len(MAGIC))
        records = RecordStream(stream, path.stat().st_size)
        return any(record.opcode == Opcode.MESSAGE for record in records)


def _step_back() -> None:
    """Give up what the loop's real-time section may have passed on, and yield to it."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    gc.freeze()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
