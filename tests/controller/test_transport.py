import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from controller.endpoints import check_endpoint, endpoint_for
from controller.errors import ConfigError, EndpointInUse
from controller.transport import QUEUE_MESSAGES, Client, Sent, Server
from controller.wire import MAX_FRAME_BYTES

SECOND = 1_000_000_000
LONG_NS = 20 * SECOND

HOLD_BOUND = """
import sys
from controller.transport import Server
server = Server(sys.argv[1])
sys.stdout.write("bound\\n")
sys.stdout.flush()
server.receive(60_000_000_000)
"""


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(prefix="ob-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def opened():
    """Sockets to close after the test."""
    sockets = []

    def register(one):
        sockets.append(one)
        return one

    yield register
    for one in sockets:
        one.close()


@pytest.fixture
def other_process(directory):
    """Another process that holds the endpoint."""
    endpoint = endpoint_for(directory, "s")
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD_BOUND, endpoint], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "bound\n"
    yield endpoint, child
    child.kill()
    child.wait(20)
    child.stdout.close()


def send_soon(client, frames):
    """Send as soon as there is a connection."""
    for _ in range(2000):
        if client.send(frames):
            return
        time.sleep(0.01)
    raise AssertionError("no connection within 20 s")


def reaches(client, server, frames):
    """Try to send one message and look for it for 10 ms."""
    client.send(frames)
    received = server.receive(10_000_000)
    return received is not None and received[1] == frames


def endpoints(directory):
    return [endpoint_for(directory, "s"), "tcp://127.0.0.1:*", "tcp://localhost:0", "inproc://s"]


@pytest.mark.parametrize("kind", range(4))
def test_there_and_back(directory, opened, kind):
    server = opened(Server(endpoints(directory)[kind]))
    first, second = opened(Client(server.endpoint)), opened(Client(server.endpoint))
    send_soon(first, [b"one", memoryview(b"1"), b""])
    identity, frames = server.receive(LONG_NS)
    send_soon(second, [b"two"])
    other, others = server.receive(LONG_NS)
    assert (frames, others) == ([b"one", b"1", b""], [b"two"])
    assert identity != other
    assert server.send(other, [b"to two"])
    assert server.send(identity, [b"to one", b"x"])
    assert first.receive(LONG_NS) == [b"to one", b"x"]
    assert second.receive(LONG_NS) == [b"to two"]


def test_messages_that_wait_are_received_without_a_signal_each(directory, opened):
    server = opened(Server(endpoint_for(directory, "s")))
    client = opened(Client(server.endpoint))
    for number in range(20):
        send_soon(client, [b"%d" % number])
    assert [server.receive(LONG_NS)[1][0] for _ in range(20)] == [b"%d" % n for n in range(20)]


def test_nothing_comes(directory, opened):
    server = opened(Server(endpoint_for(directory, "s")))
    client = opened(Client(server.endpoint))
    assert server.receive(0) is None
    assert server.receive(3_000_000) is None
    assert client.receive(-5) is None
    assert client.receive(3_000_000) is None


def test_without_a_server_nothing_is_queued(directory, opened):
    endpoint = endpoint_for(directory, "s")
    client = opened(Client(endpoint))
    assert not client.send([b"lost"])
    server = opened(Server(endpoint))
    send_soon(client, [b"later"])
    assert server.receive(LONG_NS)[1] == [b"later"]


def test_a_server_that_does_not_read_fills_a_short_queue(directory, opened):
    server = opened(Server("inproc://full"))
    client = opened(Client("inproc://full"))
    sent = sum(client.send([b"x"]) for _ in range(10 * QUEUE_MESSAGES))
    assert QUEUE_MESSAGES <= sent <= 2 * QUEUE_MESSAGES
    identity, _ = server.receive(LONG_NS)
    answered = [server.offer(identity, [b"y"]) for _ in range(10 * QUEUE_MESSAGES)]
    assert answered[0] is Sent.YES
    assert answered[-1] is Sent.FULL
    assert not server.send(identity, [b"y"])


def test_clients_that_are_gone_or_never_were(directory, opened):
    server = opened(Server(endpoint_for(directory, "s")))
    assert server.offer(b"nobody", [b"x"]) is Sent.GONE
    assert not server.send(b"nobody", [b"x"])
    client = Client(server.endpoint)
    send_soon(client, [b"hi"])
    identity, _ = server.receive(LONG_NS)
    client.close()
    for _ in range(2000):
        server.receive(0)
        if server.offer(identity, [b"x"]) is Sent.GONE:
            return
        time.sleep(0.01)
    raise AssertionError("the server never noticed")


def test_a_client_finds_the_next_server_at_the_same_address(directory, opened):
    endpoint = endpoint_for(directory, "s")
    client = opened(Client(endpoint))
    for generation in (b"first", b"second"):
        server = Server(endpoint)
        # What is sent while the old connection is breaking is lost with it.
        assert any(reaches(client, server, [b"to", generation]) for _ in range(2000))
        server.close()


def test_closing_frees_everything_and_may_be_repeated(directory):
    endpoint = endpoint_for(directory, "s")
    for _ in range(3):
        server = Server(endpoint)
        assert (directory / "s").stat().st_mode & 0o077 == 0
        server.close()
        server.close()
        assert list(directory.iterdir()) == []
    client = Client(endpoint)
    client.close()
    client.close()
    assert not client.send([b"x"])
    assert client.receive(LONG_NS) is None


def test_a_frame_that_is_too_large_costs_its_sender_the_connection(directory, opened):
    server = opened(Server(endpoint_for(directory, "s")))
    flooder, client = opened(Client(server.endpoint)), opened(Client(server.endpoint))
    send_soon(flooder, [bytes(MAX_FRAME_BYTES + 1)])
    send_soon(client, [bytes(MAX_FRAME_BYTES)])
    _, frames = server.receive(LONG_NS)
    assert [len(frame) for frame in frames] == [MAX_FRAME_BYTES]
    assert server.receive(100_000_000) is None


def test_taken_addresses(directory, opened):
    for endpoint in (endpoint_for(directory, "s"), "inproc://taken"):
        opened(Server(endpoint))
        with pytest.raises(EndpointInUse, match=r"in use by another server"):
            Server(endpoint)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EndpointInUse, match=r"in use by another server"):
            Server(endpoint)


def test_an_ipc_path_of_another_process_is_refused_until_that_process_dies(other_process, opened):
    endpoint, child = other_process
    with pytest.raises(EndpointInUse):
        Server(endpoint)
    with pytest.raises(EndpointInUse):  # the refused attempt left the owner's lock alone
        Server(endpoint)
    child.send_signal(signal.SIGKILL)
    child.wait(20)
    assert Path(endpoint.removeprefix("ipc://")).is_socket()
    server = opened(Server(endpoint))
    client = opened(Client(endpoint))
    send_soon(client, [b"hello"])
    assert server.receive(LONG_NS)[1] == [b"hello"]


def test_a_file_with_the_socket_s_name_is_left_alone(directory):
    path = directory / "s"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket"):
        Server(endpoint_for(directory, "s"))
    assert path.read_text() == "precious"
    assert [entry.name for entry in directory.iterdir()] == ["s"]


def test_a_missing_directory(directory):
    with pytest.raises(ConfigError, match="directory does not exist"):
        Server(f"ipc://{directory}/missing/s")


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://0.0.0.0:5555",
        "tcp://*:5555",
        "tcp://192.168.1.7:5555",
        "tcp://robot.local:5555",
        "tcp://[::]:5555",
        "tcp://eth0:5555",
        "tcp://127.0.0.1.example.org:5555",
    ],
)
@pytest.mark.parametrize("kind", [Client, Server])
def test_beyond_loopback(kind, endpoint):
    with pytest.raises(ConfigError, match="beyond loopback encryption keys are required"):
        kind(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1;192.168.1.7:5555",
        "tcp://127.0.0.1:-1",
        "ipc://",
        "ipc://*",
        "ipc://@abstract",
        "inproc://",
        "udp://127.0.0.1:5555",
        "127.0.0.1:5555",
        "ipc://" + "x" * 108,
    ],
)
@pytest.mark.parametrize("kind", [Client, Server])
def test_addresses_that_are_none(kind, endpoint):
    with pytest.raises(ConfigError):
        kind(endpoint)


def test_only_a_server_may_leave_the_port_open():
    assert check_endpoint("tcp://localhost:0", bind=True) == "tcp://127.0.0.1:*"
    for port in ("0", "*"):
        with pytest.raises(ConfigError, match="expected 1 to 65535"):
            Client(f"tcp://127.0.0.1:{port}")


def test_socket_paths_have_a_longest_length(tmp_path):
    length = 107 - len(os.fsencode("/tmp/"))
    assert endpoint_for("/tmp", "x" * length) == f"ipc:///tmp/{'x' * length}"
    with pytest.raises(ConfigError, match="108 bytes, at most 107"):
        endpoint_for("/tmp", "x" * (length + 1))
