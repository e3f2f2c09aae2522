from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from mcap_protobuf.schema import build_file_descriptor_set

from controller import view
from controller.clock import MonotonicClock, VirtualClock
from controller.errors import EndpointInUse
from controller.log import LogFiles, McapSink
from controller.log_messages import messages_for
from controller.log_parts import parts_of
from controller.log_reader import read_log
from controller.log_records import Opcode
from controller.log_settings import LogSettings
from controller.log_tail import LogTail
from controller.recorder import ProcessSink
from tests.controller.records import PERIOD_NS, SPEC, header, tick

SMALL = LogSettings(max_mb=0.006)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.mcap"


class FakeScreen:
    """Keeps what it is shown, with the time."""

    def __init__(self, clock=None, watched_after=0):
        self.clock, self.asked, self.watched_after = clock or VirtualClock(), 0, watched_after
        self.schemas, self.shown = {}, []

    @property
    def watched(self):
        self.asked += 1
        return self.asked > self.watched_after

    def open(self, topic, encoding, schema):
        assert topic not in self.schemas
        self.schemas[topic] = (encoding, schema.encoding, schema.name, schema.data)

    def show(self, topic, data, log_time_ns):
        self.shown.append((self.clock.now_ns(), topic, data, log_time_ns))

    def ticks(self):
        message = messages_for(SPEC).tick
        return [
            message.FromString(data).tick for _, topic, data, _ in self.shown if topic == "/tick"
        ]


def messages(tail):
    return [record.packet().sequence for record in tail.read() if record.opcode == Opcode.MESSAGE]


def write(path, count, sizes=None):
    sink = McapSink(path, header(), sizes or LogSettings())
    for number in range(count):
        sink.tick(tick(number))
    sink.close()


@pytest.mark.parametrize("sizes", [LogSettings(), SMALL])
def test_the_tail_gives_every_record_once_as_it_appears(path, sizes):
    tail = LogTail(path)
    assert messages(tail) == []
    files, seen = LogFiles(path, header(), sizes), []
    for number in range(40):
        files.tick(tick(number))
        got = messages(tail)
        assert got == [number]
        seen += got
    assert not tail.ended
    files.finish()
    assert messages(tail) == []
    assert tail.ended
    assert seen == list(range(40))


def test_the_tail_never_gives_half_a_record(path, tmp_path):
    write(tmp_path / "whole.mcap", 5)
    data = (tmp_path / "whole.mcap").read_bytes()
    tail, got = LogTail(path), []
    for length in range(0, len(data) + 1, 13):
        path.write_bytes(data[:length])
        got += messages(tail)
    path.write_bytes(data)
    got += messages(tail)
    assert got == list(range(5))
    assert tail.ended


def test_the_tail_goes_on_where_the_reader_stopped(path):
    write(path, 20)
    tail = LogTail(path)
    got = []
    while not tail.ended:
        for record in tail.read():
            if record.opcode == Opcode.MESSAGE:
                got.append(record.packet().sequence)
            break
    assert got == list(range(20))


def test_the_tail_passes_over_a_file_that_was_never_finished(path):
    write(path, 30, SMALL)
    files = parts_of(path)
    kept = read_log(files[1]).tick.tolist()
    data = files[1].read_bytes()
    files[1].write_bytes(data[: data.index(tick(kept[-1]).executed.tobytes())])
    tail = LogTail(path)
    assert messages(tail) == [n for n in range(30) if n != kept[-1]]
    assert tail.ended


def test_a_tail_that_is_overtaken_goes_on_with_the_oldest_file_there_is(path):
    files = LogFiles(path, header(), LogSettings(max_mb=0.006, keep=2))
    tail = LogTail(path)
    files.tick(tick(0))
    assert messages(tail) == [0]
    for number in range(1, 80):
        files.tick(tick(number))
    files.finish()
    oldest = read_log(path).tick[0]
    got = messages(tail) + messages(tail)
    assert got[-1] == 79
    assert got[-len(range(oldest, 80)) :] == list(range(oldest, 80))
    assert tail.ended


def test_messages_are_shown_under_the_schemas_of_the_file(path):
    write(path, 30, SMALL)
    screen = FakeScreen()
    projector = view.Projector(LogTail(path), screen)
    view.follow(projector, VirtualClock(), lambda: True)
    about = messages_for(SPEC)
    assert screen.schemas == {
        topic: ("protobuf", "protobuf", f"onebeat.{topic[1:].capitalize()}",
                build_file_descriptor_set(message).SerializeToString())
        for topic, message in (("/tick", about.tick), ("/event", about.event))
    }  # fmt: skip
    assert screen.ticks() == list(range(30))
    assert projector.shown == 30


def test_what_is_passed_over_is_not_shown(path):
    files = LogFiles(path, header())
    for number in range(5):
        files.tick(tick(number))
    screen = FakeScreen()
    projector = view.Projector(LogTail(path), screen)
    assert projector.catch_up(quietly=True) == 5
    files.tick(tick(5))
    assert projector.catch_up() == 1
    assert screen.ticks() == [5]
    files.finish()


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
def test_a_finished_log_is_played_at_its_own_pace(path, speed):
    write(path, 50)
    clock = VirtualClock(10**9)
    screen = FakeScreen(clock, watched_after=7)
    projector = view.Projector(LogTail(path), screen)
    view.play(projector, screen, clock, lambda: True, speed=speed)
    assert screen.ticks() == list(range(50))
    times = [at for at, *_ in screen.shown]
    assert times[0] >= 10**9 + 7 * round(view.POLL_S * 1e9)
    expected = [times[0] + round(n * PERIOD_NS / speed) for n in range(50)]
    assert times == pytest.approx(expected, abs=1)


def test_a_film_ends_when_it_is_no_longer_wanted(path):
    write(path, 50)
    clock = VirtualClock()
    screen = FakeScreen(clock)
    projector = view.Projector(LogTail(path), screen)
    view.play(projector, screen, clock, lambda: clock.now_ns() < 10 * PERIOD_NS)
    assert 8 <= len(screen.shown) <= 12


def test_a_log_that_grows_is_told_from_one_that_does_not(path):
    files = LogFiles(path, header())
    files.tick(tick(0))
    now_s = path.stat().st_mtime
    assert view.is_growing(path, now_s + 1)
    assert not view.is_growing(path, now_s + 100)
    files.finish()
    assert not view.is_growing(path, now_s + 1)


# A real server, spoken to by a client of our own


class Client:
    """As much of the WebSocket protocol (RFC 6455) as it takes to hear what is shown."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: foxglove.sdk.v1\r\n\r\n".encode()
        )
        self.data = b""
        while b"\r\n\r\n" not in self.data:
            self.data += self.sock.recv(4096)
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        assert b"101" in head.splitlines()[0]

    def take(self, count):
        while len(self.data) < count:
            more = self.sock.recv(65536)
            assert more, "the server has left"
            self.data += more
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def hear(self):
        """Return (is binary, payload) of the next message."""
        kind, payload = 0, b""
        while True:
            first, second = self.take(2)
            length = second & 0x7F
            if length > 125:
                length = int.from_bytes(self.take(2 if length == 126 else 8), "big")
            part = self.take(length)
            if first & 0xF in (0, 1, 2):
                kind = first & 0xF or kind
                payload += part
                if first & 0x80:
                    return kind == 2, payload

    def say(self, text):
        data, mask = text.encode(), os.urandom(4)
        assert len(data) < 126
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        self.sock.sendall(bytes([0x81, 0x80 | len(data)]) + mask + masked)

    def close(self):
        self.sock.close()


def subscribe(client):
    """Subscribe to /tick and return its channel as it was advertised."""
    while True:
        is_binary, payload = client.hear()
        message = {} if is_binary else json.loads(payload)
        for channel in message.get("channels", []):
            if channel["topic"] == "/tick":
                wanted = {"id": 1, "channelId": channel["id"]}
                client.say(json.dumps({"op": "subscribe", "subscriptions": [wanted]}))
                return channel


def next_tick(client):
    """Return the next tick's data and time."""
    while True:
        is_binary, payload = client.hear()
        if is_binary and payload[0] == 1:
            assert int.from_bytes(payload[1:5], "little") == 1
            return payload[13:], int.from_bytes(payload[5:13], "little")


def test_foxglove_hears_every_message_bit_for_bit(path):
    foxglove = pytest.importorskip("controller.view_foxglove")
    pytest.importorskip("foxglove")
    write(path, 40)
    with foxglove.FoxgloveScreen(0, "test") as screen:
        projector = view.Projector(LogTail(path), screen)
        records = projector.tail.read()
        packets = [p for p in map(projector.take, records) if p is not None]
        client = Client(int(screen.address.rpartition(":")[2]))
        channel = subscribe(client)
        assert (channel["encoding"], channel["schemaName"]) == ("protobuf", "onebeat.Tick")
        schema = build_file_descriptor_set(messages_for(SPEC).tick).SerializeToString()
        assert base64.b64decode(channel["schema"]) == schema
        deadline = time.monotonic() + 20
        while not screen.watched:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for packet in packets:
            projector.show(packet)
        heard = [next_tick(client) for _ in packets]
        assert heard == [(packet.data, packet.log_time) for packet in packets]
        with pytest.raises(EndpointInUse, match="cannot listen on ws://127"):
            foxglove.FoxgloveScreen(int(screen.address.rpartition(":")[2]), "second")
        client.close()


def test_a_viewer_that_is_stopped_or_killed_costs_no_record(path):
    """A real recorder, a real viewer process, and a client that looks."""
    pytest.importorskip("foxglove")
    port = free_port()
    sink = ProcessSink(path, header())
    words = [
        sys.executable,
        "-m",
        "controller.cli",
        "view",
        str(path),
        f"port={port}",
        "follow=true",
    ]
    viewer = subprocess.Popen(words, stderr=subprocess.PIPE)
    try:
        assert b"in Foxglove" in viewer.stderr.readline()
        assert sink.tick(tick(0))
        client = Client(port)
        subscribe(client)
        sent = 1
        deadline = time.monotonic() + 20
        client.sock.settimeout(0.2)
        heard = []
        while not heard:
            assert time.monotonic() < deadline
            assert sink.tick(tick(sent))
            sent += 1
            try:
                heard.append(next_tick(client))
            except TimeoutError:
                continue
        viewer.send_signal(signal.SIGSTOP)
        for _ in range(500):
            assert sink.tick(tick(sent))
            sent += 1
            time.sleep(0.001)  # at a pace that the recorder keeps up with on a busy machine
        viewer.kill()
        for _ in range(500):
            assert sink.tick(tick(sent))
            sent += 1
        client.close()
    finally:
        viewer.kill()
        viewer.communicate()
        sink.close()
    log = read_log(path)
    assert sink.dropped == 0
    assert log.tick.tolist() == list(range(sent))
    assert not log.truncated


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def test_the_clock_of_the_machine_paces_a_film_too(path):
    write(path, 4)
    screen = FakeScreen(MonotonicClock())
    projector = view.Projector(LogTail(path), screen)
    view.play(projector, screen, screen.clock, lambda: True, speed=2.0, wait=False)
    times = [at for at, *_ in screen.shown]
    assert all(later - times[0] >= n * PERIOD_NS / 2 - 1 for n, later in enumerate(times))
