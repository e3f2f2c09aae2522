import itertools
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from controller.control import control
from controller.errors import EndpointInUse, Refused, SpecMismatch
from controller.greeting import Session
from controller.remote_policy import RemotePolicy
from controller.types import ActionChunk
from controller.wire import Answer, Ask, Command, Refusal, Reject
from policies.serving.server import PolicyServer
from tests.policies.serving.doubler import (
    ARRAYS,
    CLOCK,
    LONG_NS,
    OTHER,
    SPEC,
    Doubler,
    Gate,
    ask,
    connected,
    loads,
    raw,
    reply,
    request,
    serving,
    swap,
    until,
)


def test_a_request_reaches_the_policy_and_its_answer_comes_back(endpoint):
    requests = []
    with (
        serving(Doubler(act=lambda one: requests.append(one)), endpoint) as server,
        connected(endpoint) as client,
    ):
        assert client.version == "v1"
        chunk = client.infer(request(5))
        assert chunk.actions.tolist() == [[2.0, 4.0]]
        assert (chunk.tick, chunk.version, chunk.evaluations) == (5, "v1", 2)
        assert chunk.queue_ns >= 0
        assert chunk.infer_ns > 0
        (seen,) = requests
        assert (seen.tick, seen.seed, seen.age_ns) == (5, 7, 1000)
        assert (seen.observation.episode, seen.observation.step) == (4, 9)
        assert seen.observation.arrays[1] == 3
        assert seen.deadline_ns - seen.observation.stamp_ns <= LONG_NS + 1000
        stats = server.stats()
        assert (stats["requests"], stats["answered"], stats["rejected"]) == (1, 1, {})
        assert stats["versions"][0][::2] == ["v1", 1]
        assert stats["infer_us"]["p99"] >= stats["infer_us"]["p50"] > 0


def test_only_the_newest_of_a_client_s_waiting_requests_is_answered(endpoint):
    gate = Gate()
    with serving(Doubler(act=gate), endpoint) as server, raw(endpoint) as session:
        ask(session, 0)
        assert gate.entered.wait(20)
        for tick in (1, 2, 3):
            ask(session, tick)
        time.sleep(0.2)  # long enough for all three to have arrived
        gate.open.set()
        replies = [reply(session) for _ in range(4)]
        outcome = {one.tick: getattr(one, "code", "answered") for one in replies}
        assert outcome == {0: "answered", 1: "superseded", 2: "superseded", 3: "answered"}
        assert server.stats()["rejected"] == {"superseded": 2}


def test_a_request_that_waited_too_long_is_rejected_unanswered(endpoint):
    ticks = []
    with (
        serving(Doubler(act=lambda one: ticks.append(one.tick)), endpoint),
        raw(endpoint) as session,
    ):
        ask(session, 1, budget_ns=0)
        assert isinstance(answer := reply(session), Reject)
        assert (answer.tick, answer.code) == (1, "late")
        ask(session, 2)
        assert isinstance(reply(session), Answer)
        assert ticks == [2]


def test_every_client_gets_its_turn_beside_one_that_floods(endpoint):
    with (
        serving(Doubler(), endpoint) as server,
        raw(endpoint) as flooder,
        connected(endpoint) as client,
    ):
        stop = threading.Event()

        def flood():
            for tick in itertools.count():
                if stop.is_set():
                    return
                flooder.send(Ask(tick, 7, 0, 0, 0, LONG_NS), ARRAYS)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for tick in range(50):
                position = (float(tick), 0.0)
                assert client.infer(request(tick, position)).actions[0, 0] == 2.0 * tick
        finally:
            stop.set()
            thread.join(20)
        assert server.stats()["requests"] > 50


FINE = np.zeros((1, 2), np.float32)


def chunk(tick, actions):
    return ActionChunk(tick, np.asarray(actions), "v1")


def crash(request):
    raise ValueError("matrices\nare not aligned")


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (crash, "failed: ValueError: matrices are not aligned"),
        (lambda one: chunk(one.tick, np.full((1, 2), np.nan, np.float32)), "nonfinite"),
        (lambda one: chunk(one.tick, np.zeros((1, 3), np.float32)), r"failed: actions of shape"),
        (lambda one: chunk(one.tick, np.zeros((0, 2), np.float32)), r"failed: actions of shape"),
        (lambda one: chunk(one.tick, np.zeros((1, 2))), "failed: actions of float64"),
        (lambda one: chunk(one.tick - 1, np.zeros((1, 2), np.float32)), "answer to tick 4"),
        (lambda one: chunk(one.tick, "no actions"), "failed"),
        (lambda one: replace(chunk(one.tick, FINE), evaluations="many"), "failed: ValueError"),
    ],
)
def test_a_policy_that_fails_costs_one_answer(endpoint, act, match):
    once = lambda one: act(one) if one.tick == 5 else None  # noqa: E731
    with serving(Doubler(act=once), endpoint), connected(endpoint) as client:
        with pytest.raises(Refused, match=match):
            client.infer(request(5))
        assert client.infer(request(6)).tick == 6


def test_a_policy_without_an_answer_gives_none(endpoint):
    with serving(Doubler(act=lambda one: "nothing"), endpoint), connected(endpoint) as client:
        before_ns = CLOCK.now_ns()
        assert client.infer(request(5)) is None
        assert CLOCK.now_ns() - before_ns < LONG_NS


def test_nonsense_and_strangers_do_not_stop_it(endpoint):
    source = np.random.default_rng(0)
    with serving(Doubler(), endpoint) as server, connected(endpoint) as client:
        with raw(endpoint) as session:
            for _ in range(60):
                frames = [source.bytes(source.integers(60)) for _ in range(source.integers(1, 5))]
                session._client.send(frames)
                answer = reply(session)
                assert isinstance(answer, Refusal)
                assert answer.code == "malformed"
            ask(session, 1, arrays=ARRAYS[:1])
            assert reply(session).code == "malformed"
            session.send(Command(0), (np.zeros(2, np.float32),))
            assert reply(session).code == "malformed"
            assert server.stats()["malformed"] == 61
            assert server.stats()["rejected"] == {"malformed": 1}
        stranger = Session(endpoint, "policy", CLOCK)
        until(lambda: stranger.send(Ask(3, 0, 0, 0, 0, LONG_NS), ARRAYS))
        assert reply(stranger) == Reject(3, "no_session", "say hello first")
        stranger.close()
        assert client.infer(request(6)).tick == 6


def test_clients_of_another_robot_or_role_are_refused(endpoint):
    with serving(Doubler(), endpoint):
        other = RemotePolicy(endpoint, OTHER, CLOCK, client_name="tester")
        with pytest.raises(SpecMismatch, match=r"tester has other robot: .*; .* has test: "):
            other.connect(20.0)
        plant = Session(endpoint, "plant", CLOCK)
        with pytest.raises(Refused, match="this is a policy server, no plant server"):
            plant.connect(20.0)
        other.close()
        plant.close()


def test_a_swap_and_the_way_back(endpoint):
    first, made = Doubler(), {}

    def load(path, steps):
        made[path] = Doubler(path)
        return made[path]

    with serving(first, endpoint, load) as server, connected(endpoint) as client:
        assert client.infer(request(0)).version == "v1"
        with pytest.raises(Refused, match="no policy before v1"):
            control(endpoint, "rollback", timeout_s=20.0)
        report = swap(endpoint, "v2")
        assert (report["before"], report["after"]) == ("v1", "v2")
        assert report["load_ms"] > 0
        assert [client.infer(request(tick)).version for tick in (1, 2)] == ["v2", "v2"]
        assert control(endpoint, "rollback", timeout_s=20.0) == {"before": "v2", "after": "v1"}
        assert client.infer(request(3)).version == "v1"
        assert control(endpoint, "rollback", timeout_s=20.0)["after"] == "v2"
        swap(endpoint, "v3")
        assert client.infer(request(4)).version == "v3"
        assert first.closed
        assert not made["v2"].closed
        entries = [(version, answered) for version, _, answered in server.stats()["versions"]]
        assert entries == [("v1", 1), ("v2", 2), ("v1", 1), ("v2", 0), ("v3", 1)]
        since = [since_ns for _, since_ns, _ in server.stats()["versions"]]
        assert since == sorted(since)
    assert made["v2"].closed
    assert made["v3"].closed


def broken(path, steps):
    raise FileNotFoundError(f"{path}: no such bundle")


def exits(path, steps):
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("load", "match"),
    [
        (broken, "FileNotFoundError: b: no such bundle; v1 keeps serving"),
        (exits, "SystemExit"),
        (
            lambda path, steps: Doubler(path, spec=OTHER),
            "the server and b describe different robots",
        ),
        (
            lambda path, steps: Doubler(path, trials=lambda one: chunk(one.tick, [[np.inf, 0.0]])),
            "float64",
        ),
        (
            lambda path, steps: Doubler(
                path, trials=lambda one: chunk(one.tick, np.full((1, 2), np.inf, np.float32))
            ),
            "not finite",
        ),
        (lambda path, steps: Doubler(path, trials=crash), "matrices are not aligned"),
        (lambda path, steps: Doubler(path, trials=lambda one: "nothing"), "no answer to a trial"),
    ],
)
def test_a_bad_bundle_is_refused_and_the_old_policy_keeps_serving(endpoint, load, match):
    with serving(Doubler(), endpoint, load) as server, connected(endpoint) as client:
        for tick in range(2):
            with pytest.raises(Refused, match=match):
                swap(endpoint, "b")
            assert client.infer(request(tick)).version == "v1"
        assert [entry[0] for entry in server.stats()["versions"]] == ["v1"]


def test_a_candidate_is_tried_on_the_last_observation(endpoint):
    tried = []

    def load(path, steps):
        return Doubler(path, trials=lambda one: tried.append(one.observation.arrays[0].tolist()))

    with serving(Doubler(), endpoint, load), connected(endpoint) as client:
        swap(endpoint, "v2")
        assert set(map(tuple, tried)) == {(0.0, 0.0)}
        tried.clear()
        client.infer(request(0, (5.0, 6.0)))
        swap(endpoint, "v3")
        assert set(map(tuple, tried)) == {(5.0, 6.0)}


def test_requests_are_answered_while_a_bundle_loads(endpoint):
    gate = Gate()
    interval_s = sys.getswitchinterval()

    def load(path, steps):
        gate(path)
        return Doubler(path)

    reports = []
    with serving(Doubler(), endpoint, load), connected(endpoint) as client:
        operator = threading.Thread(target=lambda: reports.append(swap(endpoint, "v2")))
        operator.start()
        assert gate.entered.wait(20)
        assert sys.getswitchinterval() < interval_s
        for tick in range(20):
            assert client.infer(request(tick)).version == "v1"
        with pytest.raises(Refused, match="still loading v2"):
            swap(endpoint, "v3")
        gate.open.set()
        operator.join(20)
        assert reports[0]["after"] == "v2"
        assert client.infer(request(99)).version == "v2"
        assert sys.getswitchinterval() == interval_s


def test_no_answer_is_lost_or_mixed_up_across_many_swaps(endpoint):
    with serving(Doubler("v0"), endpoint), connected(endpoint) as client:
        done = threading.Event()

        def swap_on():
            for number in range(1, 15):
                swap(endpoint, f"v{number}")
            done.set()

        operator = threading.Thread(target=swap_on)
        operator.start()
        seen = []
        for tick in itertools.count():
            answer = client.infer(request(tick, (float(tick), 0.0)))
            assert answer.actions[0, 0] == 2.0 * tick
            seen.append(int(answer.version[1:]))
            if done.is_set() and seen[-1] == 14:
                break
        operator.join(20)
        assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("verb", "args", "match"),
    [
        ("swap", {}, "arguments: none; expected bundle"),
        ("swap", {"bundel": "b"}, "arguments: bundel; expected bundle"),
        ("reboot", {}, "unknown verb 'reboot', expected ready, stats, swap, rollback"),
    ],
)
def test_control_requests_that_make_no_sense(endpoint, verb, args, match):
    with serving(Doubler(), endpoint), pytest.raises(Refused, match=match):
        control(endpoint, verb, args, timeout_s=20.0)


def test_ready_and_stats(endpoint):
    with serving(Doubler(), endpoint):
        ready = control(endpoint, "ready", timeout_s=20.0)
        assert ready == {
            "version": "v1",
            "spec": SPEC.digest(),
            "task": "test",
            "policy": "default",
            "policies": {"default": "v1"},
            "draining": False,
        }
        stats = control(endpoint, "stats", timeout_s=20.0)
        assert stats["requests"] == stats["answered"] == 0
        assert stats["queue_us"] == {}


def test_a_policy_that_fails_its_warm_up_serves_all_the_same(endpoint, caplog):
    with serving(Doubler(trials=crash), endpoint), connected(endpoint) as client:
        assert client.infer(request(0)).tick == 0
    assert "warm-up: ValueError: matrices are not aligned" in caplog.text


def test_the_address_is_taken_at_once_and_freed_at_the_end(endpoint):
    policy = Doubler()
    with serving(policy, endpoint), pytest.raises(EndpointInUse):
        PolicyServer({"": Doubler()}, endpoint, CLOCK, loads)
    assert policy.closed
    with serving(Doubler(), endpoint), connected(endpoint):
        pass


class Stuck(Doubler):
    def close(self):
        super().close()
        raise OSError("device busy")


def test_a_policy_that_cannot_be_closed_does_not_end_the_server(endpoint, caplog):
    with serving(Stuck("v1"), endpoint), connected(endpoint) as client:
        for version in ("v2", "v3"):
            swap(endpoint, version)
        assert client.infer(request(0)).version == "v3"
    assert "closing v1: OSError: device busy" in caplog.text
