"""Fuzzing with damaged messages: every decoder, both clients, and a server that has to go on."""

import contextlib
import itertools
import os
import threading
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from controller.array_frames import unpack, unpack_chunk
from controller.errors import PlantFailed, PlantLost, Refused, SpecMismatch, WireError
from controller.feed.client import ReplayClient
from controller.feed.rows import RowLayout
from controller.mutations import Mutator, specimens
from controller.remote_plant import RemotePlant
from controller.remote_policy import RemotePolicy
from controller.spec import Spec
from controller.spec_coding import decode_spec
from controller.transport import Client, Server
from controller.types import ActionChunk, Observation, Request
from controller.wire import (
    MAX_FRAMES,
    MAX_HEADER_BYTES,
    Answer,
    Ask,
    Draw,
    Drawn,
    Hello,
    Insert,
    Inserted,
    Message,
    Ping,
    Pong,
    State,
    Welcome,
    decode,
    encode,
)
from tests.controller.scripted import ARRAYS, CLOCK, SPEC, welcome
from tests.controller.test_reception import Echo

DEFAULT, MANY = 5_000, 1_000_000
SPECIMENS = specimens(SPEC)
KINDS = {type(decode(frames)[0]) for frames in SPECIMENS}
MUTATIONS = [
    pytest.param(DEFAULT, id="default"),
    pytest.param(MANY, id="a million", marks=pytest.mark.slow),
]


def mutated(count, seed):
    mutator = Mutator(seed)
    source = itertools.cycle(SPECIMENS)
    return (mutator.mutate(next(source)) for _ in range(count))


def test_there_is_a_specimen_of_every_message():
    assert set(Message.__subclasses__()) == KINDS


def test_mutations_repeat_with_their_seed_and_leave_the_original_alone():
    kept = [list(frames) for frames in SPECIMENS]
    once, again, other = (list(mutated(500, seed)) for seed in (3, 3, 4))
    assert once == again != other
    assert kept == SPECIMENS
    assert all(isinstance(frame, bytes) for frames in once for frame in frames)


def test_mutations_stay_below_what_costs_a_connection():
    lengths = [len(frame) for frames in mutated(5000, 1) for frame in frames]
    assert max(lengths) == MAX_HEADER_BYTES
    assert min(len(frames) for frames in mutated(5000, 1)) >= 1
    assert max(len(frames) for frames in mutated(5000, 1)) > MAX_FRAMES


def test_mutations_reach_behind_the_first_check():
    """Of every kind of message some come through, and some fail at each check."""
    outcomes = Counter()
    for frames in mutated(DEFAULT, 2):
        try:
            message, _ = decode(frames)
            outcomes[type(message)] += 1
        except WireError as error:
            outcomes[str(error).split(" ")[0]] += 1
    assert set(outcomes) >= KINDS
    assert {"header", "message"} <= set(outcomes)
    assert any(outcomes[kind.__name__] for kind in KINDS)


def read_all(frames):
    """Decode as far as it goes; anything but a WireError fails the test."""
    try:
        message, arrays = decode(frames)
    except WireError:
        return
    assert isinstance(message, Message)
    with contextlib.suppress(WireError):
        if isinstance(message, Welcome):
            assert isinstance(decode_spec(message.spec), Spec)
        elif isinstance(message, Answer):
            chunk = unpack_chunk(arrays[0], SPEC.action, message.horizon)
            assert chunk.shape == (message.horizon, 2)
        elif isinstance(message, (Ask, State)):
            assert len(unpack(arrays, SPEC.observation)) == 2
        elif arrays:
            unpack(arrays, (SPEC.action,))


@pytest.mark.parametrize("count", MUTATIONS)
def test_any_damage_is_a_message_or_a_wire_error(count):
    for frames in mutated(count, 5):
        read_all(frames)


@pytest.mark.parametrize("count", MUTATIONS)
def test_any_damage_to_a_spec_is_a_spec_or_a_wire_error(count):
    mutator, right = Mutator(6), next(f for f in SPECIMENS if b"welcome" in f[0])
    data = decode(right)[0].spec
    for _ in range(count):
        with contextlib.suppress(WireError):
            spec = decode_spec(mutator.mutate([data])[0])
            assert all(array.nbytes > 0 for array in (*spec.observation, spec.action))
            spec.digest()
            spec.describe()


def test_no_message_takes_long_or_much_memory():
    """A message of at most 64 KiB a frame: no more memory than some copies of it."""
    batch = list(mutated(3000, 7))
    worst_ns, worst_bytes = 0, 0
    tracemalloc.start()
    try:
        for frames in batch:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            began_ns = time.thread_time_ns()
            read_all(frames)
            worst_ns = max(worst_ns, time.thread_time_ns() - began_ns)
            worst_bytes = max(worst_bytes, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert worst_bytes < 30 * MAX_HEADER_BYTES
    assert worst_ns < 1_000_000_000


class Damaging:
    """A server in a thread that answers everything with damaged messages of all kinds.

    The last message of each answer is the right one where ``right(message)`` gives one.
    """

    def __init__(self, endpoint, seed, right, burst=8):
        self._server = Server(endpoint)
        self._mutator, self._right, self._burst = Mutator(seed), right, burst
        self._source = itertools.cycle(SPECIMENS)
        self.sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            received = self._server.receive(2_000_000)
            if received is None:
                continue
            identity, frames = received
            message, _ = decode(frames)
            if not isinstance(message, Hello):
                for _ in range(self._burst):
                    damaged = self._mutator.mutate(next(self._source))
                    self.sent += self._server.send(identity, damaged)
            for reply in self._answers(message):
                self._server.send(identity, encode(*reply))
        self._server.close()

    def _answers(self, message):
        if isinstance(message, Hello):
            return [(welcome(message, SPEC), ())]
        if isinstance(message, Ping):
            return [(Pong(message.sent_ns, 0, 0), ())]
        return self._right(message)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


def request(tick, budget_ns):
    observation = Observation(ARRAYS, 0, episode=2, step=5)
    return Request(tick, 7, observation, 11, CLOCK.now_ns() + budget_ns)


def count_of(marker):
    slow = (pytest.mark.slow, pytest.mark.timeout(900))
    return pytest.param(marker, marks=slow) if marker > DEFAULT else marker


@pytest.mark.parametrize("count", [count_of(5_000), count_of(250_000)])
def test_a_policy_client_gives_an_answer_or_none_or_a_reason(endpoint, closing, count):
    def right(message):
        if not isinstance(message, Ask):
            return []
        return [(Answer(message.tick, "v", 1, 0, 0, 1), (SPEC.action.resting()[None],))]

    with Damaging(endpoint, 8, right, burst=50) as server:
        policy = closing(RemotePolicy(endpoint, SPEC, CLOCK))
        policy.connect(20.0)
        answered = 0
        for tick in itertools.count():
            if server.sent >= count:
                break
            asked = request(tick, 50_000_000)
            try:
                chunk = policy.infer(asked)
            except Refused:
                continue
            # Whatever comes, the caller is not held for longer than it asked.
            assert CLOCK.now_ns() < asked.deadline_ns + 5_000_000_000
            if chunk is not None:
                assert isinstance(chunk, ActionChunk)
                assert chunk.tick == tick
                assert chunk.actions.shape[1:] == (2,)
                answered += 1
        assert policy.malformed > count / 3
        assert answered > 10


@pytest.mark.parametrize("count", [count_of(4_000), count_of(250_000)])
def test_a_plant_client_gives_an_observation_or_a_reason(endpoint, closing, count):
    step = itertools.count()

    def right(message):
        now = State(0, next(step), 1, 0.0, 0.0, False, False, False, -1)
        return [(now, ARRAYS)]

    with Damaging(endpoint, 9, right, burst=50) as server:
        plant = closing(RemotePlant(endpoint, CLOCK, connect_timeout_s=5.0))
        plant.connect(20.0)
        observed = 0
        for tick in itertools.count():
            if server.sent >= count:
                break
            plant.command(SPEC.action.resting(), tick)
            try:
                seen = plant.observe()
            except PlantFailed:
                plant.reset()
            except PlantLost:
                # A welcome may have come damaged, as one of another robot or protocol.
                with contextlib.suppress(Refused, SpecMismatch):
                    plant.connect(20.0)
            else:
                assert [array.shape for array in seen.arrays] == [(2,), (1,)]
                observed += 1
        assert observed > 10
        assert plant.malformed > count / 3


@pytest.mark.parametrize("count", [count_of(4_000), count_of(250_000)])
def test_a_replay_client_sends_and_draws_on(endpoint, closing, count):
    layout = RowLayout.of(SPEC)
    batch = np.zeros((2, layout.width), np.float32)

    def right(message):
        if isinstance(message, Insert):
            return [(Inserted("arm", message.first + message.rows, 0, "v", "runs/v"), ())]
        if isinstance(message, Draw):
            return [(Drawn(1, 2, 9, 9, 9, "v", 0, False), (batch,))]
        return []

    with Damaging(endpoint, 10, right, burst=20) as server:
        client = closing(ReplayClient(endpoint, SPEC, CLOCK, "arm"))
        client.connect(20.0)
        drawn = 0
        while server.sent < count:
            try:
                client.offer(batch[:1], ("v1",))
                found = client.draw(1, 2, 0, "v1", 5_000_000)
            except Refused:
                # A rejection, or a welcome as one of another robot or protocol.
                with contextlib.suppress(Refused, SpecMismatch):
                    client.connect(20.0)
                continue
            if found is not None:
                rows = 0 if found[1] is None else len(found[1])
                assert rows == found[0].batches * found[0].size
                drawn += 1
        assert drawn > 10
        assert client.answered > 10
        assert client.malformed > count / 3


@pytest.mark.parametrize("count", [count_of(5_000), count_of(MANY)])
def test_a_server_goes_on_with_a_good_client(endpoint, closing, count):
    with Echo(endpoint, max_rate_hz=1e9, max_bytes_s=1e12) as echo:
        good = closing(RemotePolicy(endpoint, SPEC, CLOCK))
        good.connect(20.0)
        bad = closing(Client(endpoint))
        asked, handled = 0, itertools.count()
        for frames in mutated(count, 10):
            while not bad.send(frames):
                bad.receive(1_000_000)
            if next(handled) % 500 == 0:
                chunk = good.infer(request(asked, 20_000_000_000))
                assert chunk.tick == asked
                asked += 1
            bad.receive(0)
        assert asked >= count / 500
        assert echo.reception.malformed > count / 2
        assert len(echo.reception.guests("policy")) <= 2


def test_open_files_stay_the_same(endpoint, closing):
    with Echo(endpoint):
        before = len(os.listdir("/proc/self/fd"))
        for frames in mutated(20, 11):
            one = Client(endpoint)
            for _ in range(200):
                if one.send(frames):
                    break
                one.receive(5_000_000)
            one.close()
        deadline = time.monotonic() + 20
        while len(os.listdir("/proc/self/fd")) > before + 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
