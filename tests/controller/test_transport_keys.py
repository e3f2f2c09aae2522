"""Connections with keys: who gets through, and what the others are told."""

import socket
import threading
import time

import pytest

from controller.clock import MonotonicClock
from controller.control import control
from controller.endpoints import beyond_loopback, check_endpoint
from controller.errors import ConfigError, Refused
from controller.greeting import Session
from controller.handshakes import BREAKS, Handshake, Handshakes
from controller.keys import ClientKeys, ServerKeys, fingerprint
from controller.reception import Reception
from controller.transport import SILENT_MS, Client, Server, key_pair, public_key
from tests.controller.scripted import SPEC

SECOND = 1_000_000_000
SERVER, ROBOT, STRANGER = key_pair(), key_pair(), key_pair()
ALLOWED = ServerKeys(SERVER[1], {ROBOT[0]: "robot"})
KNOWN = ClientKeys(ROBOT[1], SERVER[0])
UNKNOWN = ClientKeys(STRANGER[1], SERVER[0])
MISLED = ClientKeys(ROBOT[1], STRANGER[0])
CLOCK = MonotonicClock()


class Receiving:
    """A reception in a thread, that answers nothing but greetings and controls."""

    def __init__(self, endpoint, keys=ALLOWED, specs=None):
        self.reception = Reception(endpoint, "policy", specs or {"": SPEC}, CLOCK, keys=keys)
        self.endpoint = self.reception.endpoint
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            for delivery in self.reception.deliveries(5_000_000, 64):
                verb = getattr(delivery.message, "verb", None)
                if verb:
                    self.reception.report(delivery.identity, verb, True, {"well": True})
        self.reception.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


def own_address():
    """Return an address of this machine beyond loopback, without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return probe.getsockname()[0]


BEYOND = own_address()
beyond = pytest.mark.skipif(
    BEYOND is None or BEYOND.startswith("127."), reason="no address beyond loopback"
)


@pytest.fixture(params=["ipc", "tcp"])
def anywhere(request, endpoint):
    return endpoint if request.param == "ipc" else "tcp://127.0.0.1:*"


def session(server, keys, closing):
    return closing(Session(server.endpoint, "policy", CLOCK, keys=keys))


def test_a_listed_key_gets_in(anywhere, closing):
    with Receiving(anywhere) as server:
        assert session(server, KNOWN, closing).connect(20.0) == SPEC
        assert control(server.endpoint, "ready", timeout_s=20.0, keys=KNOWN) == {"well": True}


@pytest.mark.parametrize(
    ("server_has", "client_has", "match"),
    [
        (ALLOWED, UNKNOWN, f"client's key {fingerprint(STRANGER[0])} is not on the .* allow-list"),
        (ALLOWED, MISLED, f"the server has not the key {fingerprint(STRANGER[0])}"),
        (ALLOWED, None, "requires keys"),
        (None, KNOWN, "the server has no keys|has not the key .* or none at all"),
    ],
    ids=["unlisted client", "another server", "client without", "server without"],
)
def test_others_are_told_why_not(anywhere, closing, server_has, client_has, match):
    with Receiving(anywhere, server_has) as server:
        one = session(server, client_has, closing)
        for _ in range(2):
            with pytest.raises(Refused, match=rf"refused \(key\): .*{match}"):
                one.connect(20.0)
        with pytest.raises(Refused, match=match):
            control(server.endpoint, "ready", timeout_s=20.0, keys=client_has)


def test_those_who_are_refused_disturb_nobody(anywhere, closing):
    with Receiving(anywhere) as server:
        known = session(server, KNOWN, closing)
        known.connect(20.0)
        others = [session(server, keys, closing) for keys in (UNKNOWN, MISLED, None) * 3]
        refused = 0
        for number in range(100):
            for other in others:
                other.greet()
            report = control(server.endpoint, "ready", timeout_s=20.0, keys=KNOWN)
            assert report == {"well": True}, number
        refused = sum(other.refusal is not None for other in others)
        assert refused == len(others)
        assert not any(other.ready for other in others)


@pytest.mark.parametrize("first", [ServerKeys(SERVER[1], {}), None], ids=["unlisted", "no keys"])
def test_a_refused_client_gets_in_when_the_server_was_replaced(endpoint, closing, first):
    """The library gives up on a server that refused; the session does not."""
    one = closing(Session(endpoint, "policy", CLOCK, keys=KNOWN))
    with Receiving(endpoint, first), pytest.raises(Refused, match="key"):
        one.connect(20.0)
    with Receiving(endpoint):
        for _ in range(2000):
            one.greet()
            one.receive(5_000_000)
            if one.ready:
                assert one.refusal is None
                return
        raise AssertionError("never got in")


def test_what_passes_is_not_readable(closing):
    """A stranger between the two sees neither the observation nor the names."""
    seen = bytearray()
    with Receiving("tcp://127.0.0.1:*") as server, Between(server.endpoint, seen) as between:
        one = closing(Session(between.endpoint, "policy", CLOCK, "a-name-to-find", keys=KNOWN))
        one.connect(20.0)
    assert len(seen) > 500
    assert b"CURVE" in seen
    for word in (b"a-name-to-find", b"hello", b"position"):
        assert word not in seen
    assert ROBOT[0] not in seen


class Between:
    """Hands bytes on between a client and a server, and can stop doing so."""

    def __init__(self, endpoint, seen=None):
        self._target = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
        self._door = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._door.getsockname()[1]}"
        self._seen = seen if seen is not None else bytearray()
        self.cut = threading.Event()
        self.accepted = 0
        self._sockets = [self._door]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            self.accepted += 1
            if self.cut.is_set():
                self._sockets.append(near)
                continue
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._hand_on, args=ends, daemon=True).start()

    def _hand_on(self, source, target):
        try:
            while data := source.recv(65536):
                self._seen += data
                if not self.cut.is_set():
                    target.sendall(data)
        except OSError:
            return

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for one in self._sockets:
            one.close()


def test_a_network_that_is_cut_is_noticed(closing, monkeypatch):
    """The cable is pulled: nothing is refused, nothing closed, and yet nobody is there."""
    monkeypatch.setattr("controller.transport.beyond_loopback", lambda address: True)
    with Receiving("tcp://127.0.0.1:*") as server, Between(server.endpoint) as between:
        one = closing(Session(between.endpoint, "policy", CLOCK, keys=KNOWN))
        one.connect(20.0)
        before = between.accepted
        between.cut.set()
        until = time.monotonic() + 10 * SILENT_MS / 1e3
        while between.accepted == before:
            assert time.monotonic() < until, "the connection was never given up"
            time.sleep(0.05)


@beyond
@pytest.mark.parametrize("bound", [BEYOND, "*", "0.0.0.0"])
def test_beyond_loopback_with_keys(closing, bound):
    with Receiving(f"tcp://{bound}:*") as server:
        port = server.endpoint.rpartition(":")[2]
        endpoint = f"tcp://{BEYOND}:{port}"
        one = closing(Session(endpoint, "policy", CLOCK, keys=KNOWN))
        assert one.connect(20.0) == SPEC
        with pytest.raises(Refused, match="not on the server's allow-list"):
            control(endpoint, "ready", timeout_s=20.0, keys=UNKNOWN)
        with pytest.raises(ConfigError, match="onebeat keys new NAME"):
            control(endpoint, "ready", timeout_s=20.0)


def test_addresses_with_keys():
    for endpoint in ("tcp://robot.local:5555", "tcp://10.0.0.7:5555", "tcp://[fd00::2]:5555"):
        assert check_endpoint(endpoint, keys=True) == endpoint
        assert check_endpoint(endpoint, bind=True, keys=True) == endpoint
        assert beyond_loopback(endpoint)
        with pytest.raises(ConfigError, match="onebeat keys new NAME"):
            check_endpoint(endpoint)
    for endpoint in ("tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://[::]:5555"):
        assert check_endpoint(endpoint, bind=True, keys=True) == endpoint
        with pytest.raises(ConfigError, match="name the host to reach"):
            check_endpoint(endpoint, keys=True)
    assert check_endpoint("tcp://localhost:5555", keys=True) == "tcp://127.0.0.1:5555"
    assert not beyond_loopback("tcp://127.0.0.1:5555")
    assert not beyond_loopback("ipc:///tmp/x")


def test_an_address_of_another_machine_cannot_be_bound():
    with pytest.raises(ConfigError, match="not an address of this machine"):
        Server("tcp://203.0.113.9:5555", ALLOWED)


@pytest.mark.parametrize(
    ("kind", "keys"), [(Client, KNOWN), (Server, ALLOWED)], ids=["client", "server"]
)
def test_keys_are_of_no_use_within_a_process(kind, keys):
    with pytest.raises(ConfigError, match="inproc stays in one process"):
        kind("inproc://x", keys)


def test_several_servers_with_keys_of_their_own_in_one_process(closing):
    others = ServerKeys(STRANGER[1], {STRANGER[0]: "stranger"})
    with Receiving("tcp://127.0.0.1:*") as one, Receiving("tcp://127.0.0.1:*", others) as two:
        assert session(one, KNOWN, closing).connect(20.0) == SPEC
        right = ClientKeys(STRANGER[1], STRANGER[0])
        assert session(two, right, closing).connect(20.0) == SPEC
        with pytest.raises(Refused, match="allow-list"):
            session(two, ClientKeys(ROBOT[1], STRANGER[0]), closing).connect(20.0)


def test_a_handshake_is_answered_while_messages_never_run_out(closing):
    """The server never waits here: somebody always has something to say."""
    server = Server("tcp://127.0.0.1:*", ALLOWED)
    talker = closing(Client(server.endpoint, KNOWN))
    newcomer = closing(Client(server.endpoint, KNOWN))
    try:
        for _ in range(200_000):
            talker.send([b"again"])
            newcomer.send([b"here"])
            received = server.receive(0)
            if received and received[1] == [b"here"]:
                return
        raise AssertionError("nobody was let in")
    finally:
        server.close()


def test_words_for_what_happened():
    mine = public_key(KNOWN.secret)
    plain, keyed = Handshakes(None, None), Handshakes(mine, KNOWN)
    assert fingerprint(mine) in keyed.judge(Handshake.NOT_LISTED)
    assert "has no keys" in keyed.judge(Handshake.MISMATCH)
    assert "requires keys" in plain.judge(Handshake.MISMATCH)
    assert "no onebeat server" in plain.judge(Handshake.GARBLED)
    for one in (plain, keyed):
        assert [bool(one.judge(Handshake.BROKEN)) for _ in range(BREAKS)] == [
            *[False] * (BREAKS - 1), True,
        ]  # fmt: skip
        assert one.judge(Handshake.DONE) == ""
        assert one.judge(Handshake.BROKEN) == ""
