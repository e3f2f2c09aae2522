"""Who drives, when, and how the command gets from one to the other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.clock import MonotonicClock, VirtualClock
from controller.errors import SpecMismatch
from controller.greeting import Session
from controller.handover import Handover
from controller.holding import Holding
from controller.keys import ClientKeys, ServerKeys
from controller.ladder import Decision
from controller.teleop import Seat, Standing, TeleopCommand
from controller.teleop_client import TeleopClient
from controller.teleop_server import TeleopServer
from controller.testing import example_spec
from controller.transport import Client, key_pair
from controller.types import Mode, Reason, Rung
from controller.wire import Ask, Steer, encode

MS = 1_000_000
SPEC = example_spec()


def f32(*values):
    return np.array(values, np.float32)


class Script:
    """A source that gives what a test put into ``inbox``."""

    def __init__(self):
        self.inbox, self.shown, self.closed = [], [], False

    def poll(self):
        taken, self.inbox = self.inbox, []
        return taken

    def show(self, standing):
        self.shown.append(standing)

    def close(self):
        self.closed = True


class Room:
    """A seat under a virtual clock."""

    def __init__(self, timeout_s=0.25):
        self.clock, self.source, self.events = VirtualClock(), Script(), []
        self.previous = f32(0.0, 0.0)
        easing = Holding(f32(0.0, 0.0), "ramp", 4, lambda: self.previous)
        self.seat = Seat(self.source, self.clock, timeout_s, self.note, easing)

    def note(self, kind, detail):
        assert kind == "teleop"
        self.events.append(detail)

    def say(self, engagement, value=0.5, who="ann"):
        stamp_ns = self.clock.now_ns()
        command = TeleopCommand(f32(value, 0.0), stamp_ns, engagement, who, who.encode())
        self.source.inbox.append(command)

    def poll(self, after_ms=10):
        self.clock.advance(after_ms * MS)
        action = self.seat.poll()
        return None if action is None else float(action[0])


# Steps: (who, engagement, value) to say, "-" for nothing, each followed by a look 10 ms later;
# a number waits that many milliseconds. Then what the looks gave, and the events.
A, B = "ann", "bob"
SEATS = {
    "nobody": ([("-", 0, 0)] * 3, [None] * 3, []),
    "watching only": ([(A, 0, 0.5)] * 2, [None] * 2, []),
    "take over and hand back": (
        [(A, 1, 0.5), (A, 1, 0.25), (A, 0, 0.25), (A, 0, 0.5)],
        [0.5, 0.25, None, None],
        ["ann took over", "ann handed back"],
    ),
    "the last command holds while the next is awaited": (
        [(A, 1, 0.5), ("-", 0, 0), ("-", 0, 0)],
        [0.5, 0.5, 0.5],
        ["ann took over"],
    ),
    "silence hands back, and the same engagement is spent": (
        [(A, 1, 0.5), 250, ("-", 0, 0), (A, 1, 0.5), (A, 2, 0.25)],
        [0.5, None, None, 0.25],
        ["ann took over", "ann handed back: silent for 0.25 s", "ann took over"],
    ),
    "an engagement that has ended does not begin again": (
        [(A, 1, 0.5), (A, 0, 0.5), (A, 1, 0.5), (A, 2, 0.5)],
        [0.5, None, None, 0.5],
        ["ann took over", "ann handed back", "ann took over"],
    ),
    "who came first stays": (
        [(A, 1, 0.5), (B, 1, -0.5), (A, 1, 0.25), (A, 0, 0.0), (B, 1, -0.5)],
        [0.5, 0.5, 0.25, None, -0.5],
        ["ann took over", "ann handed back", "bob took over"],
    ),
    "another's hand-back is not the driver's": (
        [(A, 1, 0.5), (B, 0, 0.0)],
        [0.5, 0.5],
        ["ann took over"],
    ),
    "another may drive once the first is silent": (
        [(A, 1, 0.5), 300, (B, 7, -0.5)],
        [0.5, -0.5],
        ["ann took over", "ann handed back: silent for 0.25 s", "bob took over"],
    ),
}


@pytest.mark.parametrize("name", SEATS)
def test_the_seat(name):
    steps, actions, events = SEATS[name]
    room, got = Room(), []
    for step in steps:
        if isinstance(step, int):
            room.clock.advance(step * MS)
            continue
        who, engagement, value = step
        if who != "-":
            room.say(engagement, value, who)
        got.append(room.poll())
    assert got == actions
    assert room.events == events


def test_a_flood_gives_two_events_at_most_per_tick():
    room = Room()
    for number in range(100):
        room.say(number % 2 * number, who=A)
    room.poll()
    assert len(room.events) <= 2


def test_a_command_that_was_delayed_moves_nothing():
    room = Room()
    room.say(1)
    assert room.poll(after_ms=300) is None
    room.say(1)
    assert room.poll() is None
    assert room.events == []


def test_people_are_shown_what_the_loop_did():
    room = Room()
    room.seat.show(7, Mode.RUN, Rung.FRESH, f32(1.0, 0.0))
    room.say(3)
    room.poll()
    room.seat.show(8, Mode.RUN, Rung.HUMAN, f32(0.5, 0.0))
    first, second = room.source.shown
    assert (first.tick, first.mode, first.rung, first.driver) == (7, Mode.RUN, Rung.FRESH, None)
    assert (second.driver.who, second.driver.engagement) == ("ann", 3)
    room.seat.close()
    assert room.source.closed


HOLD = Decision(f32(0.0, 0.0), Rung.HOLD, Reason.LATE)
HUMAN = Decision(f32(0.5, 0.0), Rung.HUMAN)
FRESH = Decision(f32(0.9, 0.0), Rung.FRESH)


def bridged(*decisions):
    """What a seat makes of decisions in a row; each command is sent as it is."""
    room = Room()
    out = []
    for tick, decision in enumerate(decisions):
        got = room.seat.bridge(tick, decision)
        room.previous = got.requested
        out.append((float(got.requested[0]), got.eased))
    return out


def test_a_policy_without_an_answer_is_bridged_after_a_hand_back_and_only_then():
    ramp = [(0.375, True), (0.25, True), (0.125, True), (0.0, True), (0.0, False)]
    assert bridged(HUMAN, *[HOLD] * 5) == [(0.5, False), *ramp]
    assert bridged(FRESH, HOLD) == [(float(f32(0.9)[0]), False), (0.0, False)]
    assert bridged(HUMAN, FRESH, HOLD)[2] == (0.0, False)
    assert bridged(HUMAN, HOLD, FRESH, HOLD)[3] == (0.0, False)
    # A ramp that was interrupted begins anew where the person left.
    assert bridged(HUMAN, HOLD, HUMAN, HOLD)[3] == (0.375, True)


@pytest.mark.parametrize(
    "emergency",
    [
        Decision(f32(0.0, 0.0), Rung.HOLD, reasons)
        for reasons in (
            Reason.STALE,
            Reason.NONFINITE,
            Reason.EPISODE,
            Reason.PLANT_LOST,
            Reason.PLANT_FAILED,
            Reason.WORKSPACE,
            Reason.LATE | Reason.STALE,
        )
    ]
    + [Decision(f32(0.0, 0.0), Rung.STOP, Reason.LATE)],
)
def test_an_emergency_is_never_bridged(emergency):
    assert bridged(HUMAN, emergency)[1] == (0.0, False)
    assert bridged(HUMAN, HOLD, emergency, HOLD)[2:] == [(0.0, False)] * 2


def faded(steps, ticks=4):
    """Commands for (rung, value) in a row, sent as they are."""
    fade = Handover(ticks * 0.01, 10_000_000)
    previous, out = f32(0.0), []
    for tick, (rung, value) in enumerate(steps):
        if rung is None:
            fade.interrupt()
            previous, reason = f32(0.0), Reason.NONE
        else:
            previous, reason = fade.blend(tick, rung, f32(value), previous)
        out.append((float(previous[0]), reason))
    return out


H, F = (Rung.HUMAN, 1.0), (Rung.FRESH, -1.0)


def test_the_fade_by_hand():
    b, n = Reason.BLENDED, Reason.NONE
    assert faded([F, F]) == [(-1.0, n)] * 2
    up = [(-0.5, b), (0.0, b), (0.5, b), (1.0, n)]
    assert faded([F, *[H] * 5]) == [(-1.0, n), *up, (1.0, n)]
    down = [(0.5, b), (0.0, b), (-0.5, b), (-1.0, n)]
    assert faded([F, *[H] * 4, *[F] * 5])[5:] == [*down, (-1.0, n)]
    # Half-way back: the fade begins where the command is.
    assert faded([F, H, H, F])[3] == (-0.25, b)
    # The safe command is not faded, and what comes after it begins at it.
    assert faded([F, H, H, (None, 0), H, H])[3:] == [(0.0, n), (0.25, b), (0.5, b)]
    assert faded([F, *[H] * 4, (None, 0), F])[6] == (-0.25, b)
    # A policy's own holds fade nothing.
    assert faded([F, (None, 0), F])[2] == (-1.0, n)
    assert faded([F, H], ticks=0)[1] == (1.0, n)


@given(
    st.lists(st.tuples(st.booleans(), st.floats(-1, 1, width=32)), min_size=1, max_size=50),
    st.integers(1, 20),
)
def test_a_fade_never_jumps_further_than_its_part_and_what_is_asked_for(asked, ticks):
    steps = [(Rung.HUMAN if human else Rung.TAIL, value) for human, value in asked]
    values = [value for value, _ in faded(steps, ticks)]
    for (_, a), (_, b), before, now, (rung, _), (last, _) in zip(
        steps, steps[1:], values, values[1:], steps[1:], steps, strict=False
    ):
        change = abs(b - a) if rung is last else 0.0
        # The way from the origin is 2 at most; within a fade the request moves by its own.
        assert abs(now - before) <= 2 / ticks + change + 1e-6


@pytest.fixture
def door(tmp_path):
    server = TeleopServer(f"ipc://{tmp_path}/teleop", SPEC, MonotonicClock())
    yield server
    server.close()


@pytest.fixture
def ann(door):
    client = connected(door, "ann")
    yield client
    client.close()


def connected(door, name):
    """Connect a client while its server is looked at by hand."""
    client = TeleopClient(door.endpoint, name)
    for _ in range(2000):
        client._session.greet()
        door.poll()
        client._session.receive(5 * MS)
        if client._session.ready:
            return client
    raise AssertionError("no welcome")


def heard(door, tries=400):
    for _ in range(tries):
        commands = door.poll()
        if commands:
            return commands
        MonotonicClock().sleep_until(MonotonicClock().now_ns() + 5 * MS)
    return []


def test_commands_arrive_and_are_answered_with_what_the_loop_did(door, ann):
    assert ann.spec == SPEC
    assert ann.send(f32(0.5, -0.5))
    (command,) = heard(door)
    assert (command.engagement, command.who) == (0, "ann")
    assert command.action.tolist() == [0.5, -0.5]
    seen = ann.look(2000 * MS)
    assert (seen.tick, seen.mode, seen.driving, seen.driver) == (-1, Mode.INIT, False, "")

    ann.engage()
    ann.send(f32(0.25, 0.0))
    (command,) = heard(door)
    assert command.engagement == 1
    ann.look(2000 * MS)
    door.show(Standing(41, Mode.RUN, Rung.HUMAN, f32(0.125, 0.0), command))
    ann.send(f32(0.25, 0.0))
    heard(door)
    seen = ann.look(2000 * MS)
    assert (seen.tick, seen.mode, seen.rung) == (41, Mode.RUN, Rung.HUMAN)
    assert seen.driving
    assert seen.driver == "ann"
    assert seen.executed.tolist() == [0.125, 0.0]

    bob = connected(door, "bob")
    bob.engage()
    bob.send(f32(0.0, 0.0))
    (other,) = heard(door)
    assert other.client != command.client
    seen = bob.look(2000 * MS)
    assert not seen.driving
    assert seen.driver == "ann"
    bob.close()
    ann.release()
    ann.send(f32(0.0, 0.0))
    assert {c.engagement for c in heard(door)} == {0}
    ann.engage()
    ann.send(f32(0.0, 0.0))
    assert 2 in {c.engagement for c in heard(door)}


def test_leaving_hands_back(door, ann):
    ann.engage()
    ann.send(f32(0.5, 0.5))
    (command,) = heard(door)
    ann.close()
    (farewell,) = heard(door)
    assert farewell.engagement == 0
    assert farewell.client == command.client


def test_what_does_not_fit_never_reaches_the_loop(door, ann):
    with pytest.raises(SpecMismatch, match="expected"):
        ann.send(np.zeros(3, np.float32))
    for message, arrays in (
        (Steer(1), (f32(np.nan, 0.0),)),
        (Steer(1), (f32(0.0, 0.0, 0.0),)),
        (Ask(0, 0, 0, 0, 0, 0), (f32(0.0, 0.0),)),
    ):
        ann._session.send(message, arrays)
    ann._session._client.send([b"garbage"])
    assert heard(door, tries=40) == []
    assert door._reception.malformed == 4
    ann.send(f32(0.5, 0.5))
    assert len(heard(door)) == 1


def test_keys_keep_strangers_out(tmp_path):
    (theirs, secret), (mine, own) = key_pair(), key_pair()
    door = TeleopServer(
        "tcp://127.0.0.1:*", SPEC, MonotonicClock(), ServerKeys(secret, {mine: "ann"})
    )
    clients = [
        TeleopClient(door.endpoint, "ann", keys=ClientKeys(own, theirs)),
        TeleopClient(door.endpoint, "eve", keys=ClientKeys(key_pair()[1], theirs)),
        TeleopClient(door.endpoint, "eve"),
    ]
    for _ in range(60):
        for client in clients:
            client._session.greet()
            client._session.receive(2 * MS)
        door.poll()
    assert [client._session.ready for client in clients] == [True, False, False]
    for client in clients:
        client.close()
    door.close()


def test_a_stranger_moves_nothing(door):
    stranger = Client(door.endpoint)
    for _ in range(400):
        if stranger.send(encode(Steer(1), (f32(1.0, 1.0),))):
            break
        MonotonicClock().sleep_until(MonotonicClock().now_ns() + 5 * MS)
    assert heard(door, tries=20) == []
    stranger.close()


def test_a_loop_that_was_replaced_has_to_be_taken_over_anew(tmp_path):
    endpoint = f"ipc://{tmp_path}/teleop"
    door = TeleopServer(endpoint, SPEC, MonotonicClock())
    client = connected(door, "ann")
    client.engage()
    client.send(f32(0.5, 0.0))
    assert heard(door)[0].engagement == 1
    door.close()
    door = TeleopServer(endpoint, SPEC, MonotonicClock())
    commands = []
    for _ in range(400):
        client.send(f32(0.5, 0.0))
        client.look(5 * MS)
        commands += door.poll()
        if commands:
            break
    assert not client.engaged
    assert {command.engagement for command in commands} == {0}
    client.close()
    door.close()


def test_a_door_is_no_policy_server(door):
    session = Session(door.endpoint, "policy", MonotonicClock())
    for _ in range(400):
        session.greet()
        door.poll()
        session.receive(5 * MS)
        if session.refusal:
            break
    assert session.refusal.code == "role"
    session.close()
