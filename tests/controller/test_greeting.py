import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.clock import VirtualClock
from controller.greeting import CLOCK_WINDOW, PING_EVERY_NS, Session
from controller.wire import Bye, Hello, Ping, Pong, decode, encode
from tests.controller.scripted import SPEC, welcome

HOUR_NS = 3_600_000_000_000
US = 1_000
delays = st.integers(0, 5_000_000)


class Link:
    """A connection under a virtual clock: what is sent takes a while there, and back.

    ``way`` is (there, at the server, back) in nanoseconds for the messages to come, and
    ``ahead_ns`` what the server's clock shows more than the client's.
    """

    def __init__(self, clock, ahead_ns):
        self.clock, self.ahead_ns, self.way = clock, ahead_ns, (0, 0, 0)
        self.replies, self.pings = [], 0

    def send(self, frames):
        message, _ = decode([bytes(frame) for frame in frames])
        there_ns, held_ns, _ = self.way
        sent_ns = self.clock.now_ns()
        arrived_ns = sent_ns + there_ns + self.ahead_ns
        if isinstance(message, Hello):
            reply = welcome(message, SPEC)
            reply = type(reply)(
                *[getattr(reply, f) for f in ("protocol", "spec", "version")],
                message.sent_ns,
                arrived_ns,
            )
        elif isinstance(message, Ping):
            self.pings += 1
            reply = Pong(message.sent_ns, arrived_ns, arrived_ns + held_ns)
        else:
            return True
        self.replies.append((sent_ns + sum(self.way), encode(reply)))
        return True

    def receive(self, timeout_ns):
        if not self.replies:
            return None
        due_ns, frames = self.replies.pop(0)
        self.clock.advance(max(0, due_ns - self.clock.now_ns()))
        return [bytes(frame) for frame in frames]

    def close(self, linger_ms=0):
        pass


@pytest.fixture
def linked():
    def make(ahead_ns, way=(0, 0, 0)):
        clock = VirtualClock(10 * PING_EVERY_NS)
        session = Session("inproc://none", "policy", clock, spec=SPEC)
        session._client.close()
        link = session._client = Link(clock, ahead_ns)
        link.way = way
        session.connect(1.0)
        return session, link, clock

    return make


def look(session, link, clock, way):
    """Have the session look at the server's clock once more."""
    link.way = way
    clock.advance(PING_EVERY_NS)
    session.send(Bye())
    session.receive(0)


def test_equal_ways_give_the_offset_exactly(linked):
    session, link, clock = linked(HOUR_NS, (300 * US, 0, 300 * US))
    assert (session.offset_ns, session.offset_error_ns) == (HOUR_NS, 600 * US)
    look(session, link, clock, (100 * US, 70 * US, 100 * US))
    assert (session.offset_ns, session.offset_error_ns) == (HOUR_NS, 200 * US)


@pytest.mark.parametrize("ways", [(900 * US, 100 * US), (0, 800 * US)])
def test_unequal_ways_are_off_by_half_their_difference(linked, ways):
    session, _, _ = linked(-HOUR_NS, (ways[0], 0, ways[1]))
    assert session.offset_ns == -HOUR_NS + (ways[0] - ways[1]) // 2


@given(
    st.lists(st.tuples(delays, delays, delays), min_size=1, max_size=40),
    st.integers(-HOUR_NS, HOUR_NS),
)
def test_the_error_is_within_half_of_what_it_says(ways, ahead_ns):
    clock = VirtualClock(10 * PING_EVERY_NS)
    session = Session("inproc://none", "policy", clock, spec=SPEC)
    session._client.close()
    link = session._client = Link(clock, ahead_ns)
    session.connect(1.0)
    for way in ways:
        look(session, link, clock, way)
        # One more nanosecond: the middle is rounded down.
        assert abs(session.offset_ns - ahead_ns) <= session.offset_error_ns / 2 + 1
    newest = [0, *[there + back for there, _, back in ways]][-CLOCK_WINDOW:]
    assert session.offset_error_ns == min(newest)


def test_a_fast_look_of_long_ago_is_forgotten(linked):
    """The clocks drift apart by 50 µs between two looks; the first look was the fastest."""
    session, link, clock = linked(0, (1 * US, 0, 1 * US))
    for _ in range(CLOCK_WINDOW - 1):
        link.ahead_ns += 50 * US
        look(session, link, clock, (10 * US, 0, 10 * US))
    assert (session.offset_ns, session.offset_error_ns) == (0, 2 * US)
    look(session, link, clock, (10 * US, 0, 10 * US))
    assert session.offset_error_ns == 20 * US
    assert session.offset_ns >= 50 * US


def test_it_looks_once_a_second(linked):
    session, link, clock = linked(0)
    pings = link.pings
    for _ in range(300):
        session.send(Bye())
        clock.advance(PING_EVERY_NS // 100)
    assert link.pings - pings == 3


@pytest.mark.parametrize(
    "pong",
    [
        lambda now_ns: Pong(now_ns + 1, 5, 5),  # sent in the future
        lambda now_ns: Pong(now_ns - 10, 9, 5),  # left before it arrived
        lambda now_ns: Pong(now_ns - 10, 0, 11),  # longer at the server than away
    ],
)
def test_a_clock_that_cannot_be_is_not_believed(linked, pong):
    session, link, clock = linked(HOUR_NS, (300 * US, 0, 300 * US))
    before = session.offset_ns, session.offset_error_ns
    link.replies.append((clock.now_ns(), encode(pong(clock.now_ns()))))
    session.receive(0)
    assert (session.offset_ns, session.offset_error_ns) == before
