"""The recorder: a process of its own that writes the log, so that the loop never does I/O.

The loop hands over one datagram per record on a socket and never waits. The recorder leads its
own session and finishes the file whatever happens to the loop: at the end of the run, when the
loop is killed, and on SIGTERM. Ctrl-C on the terminal does not reach it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import msgspec

from controller.errors import LogError
from controller.log import LogWriter
from controller.log_frame import (
    END,
    EVENT,
    FAILED,
    READY,
    TICK,
    TickFrame,
    pack_event,
    unpack_event,
)
from controller.log_schema import DROPPED, Drop, LogHeader
from controller.types import TickRecord

_LOGGER = logging.getLogger(__name__)
_BUFFER_BYTES = 8 << 20
_BATCH = 64
_NICENESS = 5
_SO_SNDBUFFORCE = 32


class ProcessSink:
    """Hands records to a recorder process; never waits.

    Args:
        path: file to write; missing parents are made, an existing file is replaced.
        header: the run.
        timeout_s: how long to wait for the recorder to come up.

    Attributes:
        dropped: records that were not taken because the recorder was behind or gone. The
            next record that is taken reports them in the log.

    Raises:
        LogError: the file cannot be created, the recorder does not start, or one observation
            is larger than the socket's buffer.
    """

    def __init__(self, path: Path | str, header: LogHeader, *, timeout_s: float = 15.0) -> None:
        self.path = Path(path).absolute()
        self.dropped = 0
        self._unreported = Drop()
        self._newest_ns = 0
        self._fault = "the recorder was behind or gone"
        self._frame = TickFrame(header.spec)
        self._closed = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._room = _enlarge(self._socket)
            self._process = _spawn(theirs, self.path)
        finally:
            theirs.close()
        try:
            self._greet(msgspec.msgpack.encode(header.dated()), timeout_s)
        except BaseException:
            self._abandon()
            raise

    @property
    def pid(self) -> int:
        """Process id of the recorder."""
        return self._process.pid

    def tick(self, record: TickRecord) -> bool:
        """Hand over one tick; False when it was dropped."""
        self._newest_ns = record.sent_ns
        try:
            datagram = self._frame.pack(record)
        except (ValueError, struct.error) as error:
            datagram, self._fault = None, str(error)
        if datagram is not None and self._report() and self._send(datagram):
            return True
        self.dropped += 1
        self._unreported = self._unreported.with_tick(record.tick)
        return False

    def event(self, stamp_ns: int, kind: str, detail: str = "") -> bool:
        """Hand over one event; False when it was dropped."""
        self._newest_ns = stamp_ns
        if self._report() and self._send(pack_event(stamp_ns, kind, detail)):
            return True
        self.dropped += 1
        self._unreported = self._unreported.with_event()
        return False

    def close(self, timeout_s: float = 10.0) -> None:
        """Let the recorder finish the file and end; safe to call twice.

        A recorder that does not end within ``timeout_s`` is killed; what it wrote can be read.
        """
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.settimeout(timeout_s)
            self._report()
            self._socket.send(END)
        complaint = self._await_end(timeout_s)
        self._socket.close()
        if complaint:
            _LOGGER.warning("%s: %s", self.path, complaint)
        if self.dropped:
            _LOGGER.warning("%s: %d records dropped: %s", self.path, self.dropped, self._fault)

    def _greet(self, header: bytes, timeout_s: float) -> None:
        largest = max(len(header), self._frame.max_bytes)
        if largest > self._room:
            raise LogError(
                f"cannot record {self.path}: one record has {largest} bytes, "
                f"the socket's buffer {self._room} (raise net.core.wmem_max)"
            )
        self._socket.settimeout(timeout_s)
        try:
            self._socket.send(header)
            answer = self._socket.recv(4096)
        except TimeoutError:
            raise LogError(f"the recorder of {self.path} was not up in {timeout_s:g} s") from None
        except OSError:
            answer = b""
        if answer != READY:
            raise LogError(answer[1:].decode("utf-8", "replace") or self._last_words())
        self._socket.setblocking(False)

    def _last_words(self) -> str:
        try:
            _, stderr = self._process.communicate(timeout=2.0)
        except subprocess.TimeoutExpired:
            stderr = b""
        lines = stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {self._process.poll()}"
        return f"the recorder of {self.path} did not start: {reason}"

    def _send(self, datagram: bytes | memoryview) -> bool:
        try:
            self._socket.send(datagram)
        except OSError:
            return False
        return True

    def _report(self) -> bool:
        """Tell the log about drops before anything else; False when it cannot be told."""
        if not self._unreported.ticks and not self._unreported.events:
            return True
        detail = msgspec.json.encode(self._unreported).decode()
        if not self._send(pack_event(self._newest_ns, DROPPED, detail)):
            return False
        self._unreported = Drop()
        return True

    def _await_end(self, timeout_s: float) -> str:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"the recorder did not end in {timeout_s:g} s and was killed"
        finally:
            if self._process.stderr is not None:
                self._process.stderr.close()
        if self._process.returncode == 0:
            return ""
        with contextlib.suppress(OSError):
            self._socket.settimeout(0.1)
            answer = self._socket.recv(4096)
            if answer.startswith(FAILED):
                return answer[1:].decode("utf-8", "replace")
        return f"the recorder ended with exit code {self._process.returncode}"

    def _abandon(self) -> None:
        self._closed = True
        self._socket.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def record(sock: socket.socket, path: Path) -> None:
    """Write a log from the datagrams of ``sock`` until it ends, and finish the file.

    Raises:
        LogError: the file cannot be created.
        OSError: the file cannot be written any more.
    """
    header = msgspec.msgpack.decode(sock.recv(_BUFFER_BYTES), type=LogHeader)
    writer = LogWriter(path, header)
    sock.send(READY)
    frame = TickFrame(header.spec)
    buffer = memoryview(bytearray(frame.max_bytes))
    ended = False
    try:
        while not ended:
            length = _receive(sock, buffer)
            if not length:
                writer.late_event("log", "not closed by the controller")
                break
            ended = _write_batch(sock, buffer, length, frame, writer)
            writer.flush()
    finally:
        writer.finish()


def main(arguments: list[str]) -> int:
    """Run the recorder on the socket with the given file descriptor.

    Args:
        arguments: file descriptor, path.
    """
    sock = socket.socket(fileno=int(arguments[0]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What is queued can still be received after this, then comes the end of the stream.
    signal.signal(signal.SIGTERM, lambda *_: sock.shutdown(socket.SHUT_RD))
    _step_back()
    try:
        record(sock, Path(arguments[1]))
    except (LogError, OSError) as error:
        text = str(error) if isinstance(error, LogError) else f"{arguments[1]}: {error}"
        with contextlib.suppress(OSError):
            sock.send(FAILED + text.encode()[:4000])
        return 1
    return 0


def _write_batch(
    sock: socket.socket, buffer: memoryview, length: int, frame: TickFrame, writer: LogWriter
) -> bool:
    """Write this datagram and those that wait behind it; True at the end of the run."""
    for room in range(_BATCH, 0, -1):
        kind = buffer[0]
        if kind == TICK:
            writer.tick(frame.unpack(buffer[:length]))
        elif kind == EVENT:
            writer.event(*unpack_event(buffer[:length]))
        elif buffer[:length] == END:
            return True
        length = _receive(sock, buffer, socket.MSG_DONTWAIT) if room > 1 else 0
        if not length:
            break
    return False


def _receive(sock: socket.socket, buffer: memoryview, flags: int = 0) -> int:
    """Return the length of the next datagram; 0 when there is none or no more will come."""
    try:
        return sock.recv_into(buffer, 0, flags)
    except (BlockingIOError, ConnectionError):
        return 0


def _spawn(theirs: socket.socket, path: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", __name__, str(theirs.fileno()), str(path)]
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | threads,
    )


def _enlarge(sock: socket.socket) -> int:
    """Grow the send buffer as far as allowed; return the length of the largest datagram."""
    for option in (_SO_SNDBUFFORCE, socket.SO_SNDBUF):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
            break
    # The kernel doubles the value for its own bookkeeping and keeps 32 bytes back.
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2 - 32


def _step_back() -> None:
    """Give up what the loop's real-time section may have passed on, and yield to it."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    gc.freeze()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
