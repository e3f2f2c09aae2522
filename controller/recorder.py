"""The loop's side of the recorder: a process that writes the log, so that the loop does no I/O.

The loop hands over one datagram per record on a socket and never waits. What the socket cannot
take is dropped and counted.
"""

from __future__ import annotations

import contextlib
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
from controller.log import IN_ONE_FILE
from controller.log_frame import END, FAILED, LOST, READY, TickFrame, pack_event
from controller.log_schema import DROPPED, Drop, LogHeader
from controller.log_settings import LogSettings
from controller.recording import Opening
from controller.types import TickRecord

_LOGGER = logging.getLogger(__name__)
_BUFFER_BYTES = 8 << 20
_SO_SNDBUFFORCE = 32


class ProcessSink:
    """Hands records to a recorder process; never waits.

    Args:
        path: file to write; missing parents are made, an existing file is replaced.
        header: the run.
        settings: when to begin a further file, and how many to keep.
        timeout_s: how long to wait for the recorder to come up.

    Attributes:
        dropped: records that are not in the log because the recorder was behind or gone, or
            could not write. The next record that is taken reports those not taken.

    Raises:
        LogError: the file cannot be created, the recorder does not start, or one observation
            is larger than the socket's buffer.
    """

    def __init__(
        self,
        path: Path | str,
        header: LogHeader,
        settings: LogSettings = IN_ONE_FILE,
        *,
        timeout_s: float = 15.0,
    ) -> None:
        self.path = Path(path).absolute()
        self.dropped = 0
        self._unreported = Drop()
        self._newest_ns = 0
        self._fault = "the recorder was behind or gone"
        self._failing = False
        self._writer_pid = 0
        self._frame = TickFrame(header.spec)
        self._closed = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._room = _enlarge(self._socket)
            self._process = _spawn(theirs)
        finally:
            theirs.close()
        try:
            opening = Opening(str(self.path), header.dated(), settings)
            self._greet(msgspec.msgpack.encode(opening), timeout_s)
        except BaseException:
            self._abandon()
            raise

    @property
    def pid(self) -> int:
        """Process id of the recorder that writes; a killed one is followed by another."""
        self._listen()
        return self._writer_pid

    @property
    def guard_pid(self) -> int:
        """Process id of the process that starts the next recorder; leads their session."""
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
        self._listen()
        with contextlib.suppress(OSError):
            self._socket.settimeout(0.0 if self._failing else timeout_s)
            self._report()
            self._socket.send(END)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        complaint = self._await_end(timeout_s)
        self._socket.close()
        if complaint:
            _LOGGER.warning("%s: %s", self.path, complaint)
        if self.dropped:
            _LOGGER.warning("%s: %d records dropped: %s", self.path, self.dropped, self._fault)

    def _greet(self, opening: bytes, timeout_s: float) -> None:
        largest = max(len(opening), self._frame.max_bytes)
        if largest > self._room:
            raise LogError(
                f"cannot record {self.path}: one record has {largest} bytes, "
                f"the socket's buffer {self._room} (raise net.core.wmem_max)"
            )
        self._socket.settimeout(timeout_s)
        try:
            self._socket.send(opening)
            answer = self._socket.recv(4096)
        except TimeoutError:
            raise LogError(f"the recorder of {self.path} was not up in {timeout_s:g} s") from None
        except OSError:
            answer = b""
        if not answer.startswith(READY):
            raise LogError(answer[1:].decode("utf-8", "replace") or self._last_words())
        self._hear(answer)
        self._socket.setblocking(False)

    def _listen(self) -> None:
        """Take in what the recorder has said so far."""
        with contextlib.suppress(OSError):
            while words := self._socket.recv(4096, socket.MSG_DONTWAIT):
                self._hear(words)

    def _hear(self, words: bytes) -> None:
        kind, text = words[:1], words[1:].decode("utf-8", "replace")
        if kind == READY:
            self._writer_pid, self._failing = int(text), False
        elif kind == LOST:
            self.dropped += int(text)
        elif kind == FAILED:
            self._fault, self._failing = text, True

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
        """Wait until nobody holds the other end of the socket any more."""
        try:
            self._socket.settimeout(timeout_s)
            while words := self._socket.recv(4096):
                self._hear(words)
        except TimeoutError:
            self._kill()
            return f"the recorder did not end in {timeout_s:g} s and was killed"
        except OSError:
            self._failing = True  # Reset by a recorder that left records behind.
        status = self._reap()
        return self._fault if self._failing else _described(status)

    def _reap(self) -> int:
        try:
            return self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._kill()
            return self._process.returncode
        finally:
            if self._process.stderr is not None:
                self._process.stderr.close()

    def _kill(self) -> None:
        """End guard and writer, which have a process group of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _abandon(self) -> None:
        self._closed = True
        self._socket.close()
        self._kill()
        self._process.communicate()


def _described(status: int) -> str:
    return f"the recorder ended with exit code {status}" if status else ""


def _spawn(theirs: socket.socket) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "controller.recording", str(theirs.fileno())]
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
