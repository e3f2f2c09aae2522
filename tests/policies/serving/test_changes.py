"""What a change of version reports, and how a server leaves."""

import shutil
import threading

import msgspec
import pytest

from controller.clock import MonotonicClock, VirtualClock
from controller.control import control
from controller.errors import PeerTimeout, Refused
from controller.greeting import Session
from controller.wire import Answer, Control, Reject
from policies.bundle import SHIPPED
from policies.engine import load_policy
from policies.serving.server import PolicyServer
from policies.serving.swap import Steps
from tests.policies.serving.doubler import (
    CLOCK,
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


def test_steps_tell_what_was_done_how_long_it_took_and_what_failed():
    clock = VirtualClock()
    steps = Steps(clock)
    with steps("read"):
        clock.advance(2_500_000)
    assert steps.failed == ""

    def try_it():
        with steps("try"), steps("golden"):
            clock.advance(1_000_000)
            raise ValueError("action 3\nis off")

    with pytest.raises(ValueError, match="is off"):
        try_it()
    assert steps.failed == "golden"
    assert [(step["name"], step["ms"], step["ok"]) for step in steps.done] == [
        ("read", 2.5, True),
        ("golden", 1.0, False),
        ("try", 1.0, False),
    ]
    assert [step["detail"] for step in steps.done][:2] == ["", "ValueError: action 3 is off"]


def names(steps):
    return [step["name"] for step in steps if step["ok"]]


def test_a_swap_tells_its_steps(endpoint):
    with serving(Doubler(), endpoint) as server:
        report = swap(endpoint, "v2")
        assert names(report["steps"]) == ["load", "spec", "answers", "warm up", "swap"]
        assert server.stats()["change"] == {"verb": "swap", **report}


def none(request):
    return "nothing"


@pytest.mark.parametrize(
    ("load", "failed"),
    [
        (lambda path, steps: 1 / 0, "load"),
        (lambda path, steps: Doubler(path, spec=OTHER), "spec"),
        (lambda path, steps: Doubler(path, trials=none), "answers"),
    ],
)
def test_a_refused_bundle_tells_which_check_failed(endpoint, load, failed):
    with serving(Doubler(), endpoint, load) as server:
        with pytest.raises(Refused, match=f"swap: {failed}: .*; v1 keeps serving"):
            swap(endpoint, "b")
        session = Session(endpoint, "control", CLOCK)
        session.connect(20.0)
        session.send(Control("swap", {"bundle": "b"}))
        report = reply(session)
        session.close()
        assert not report.ok
        *passed, last = msgspec.json.decode(report.detail)["steps"]
        assert all(step["ok"] for step in passed)
        assert (last["name"], last["ok"]) == (failed, False)
        assert server.stats()["change"]["steps"][-1]["name"] == failed
        assert server.stats()["changes"] == {"refused": 2}


class Batches(Doubler):
    """Doubles several at once; larger batches than one are wrong when asked to be."""

    max_batch = 4

    def __init__(self, version, wrong=False):
        super().__init__(version)
        self.wrong, self.sizes = wrong, []

    def infer_batch(self, requests):
        self.sizes.append(len(requests))
        return [self.infer(one) for one in requests][self.wrong :]

    def expected_ns(self, batch):
        return 1000


def test_a_new_version_is_tried_at_the_sizes_of_batch_that_are_in_use(endpoint):
    made = []

    def load(path, steps):
        made.append(Batches(path, wrong=path == "bad"))
        return made[-1]

    gate = Gate()
    first = Batches("v1")
    first.act = gate
    with (
        serving(first, endpoint, load) as server,
        raw(endpoint) as a,
        raw(endpoint) as b,
        raw(endpoint) as c,
    ):
        swap(endpoint, "v2")
        assert made[-1].sizes == []
        control(endpoint, "rollback", timeout_s=20.0)
        ask(a, 0)
        assert gate.entered.wait(20)
        for session in (b, c):
            ask(session, 0)
        threading.Timer(0.2, gate.open.set).start()
        assert all(isinstance(reply(session), Answer) for session in (a, b, c))
        assert server.stats()["batches"] == {"1": 1, "2": 1}
        swap(endpoint, "v3")
        assert set(made[-1].sizes) == {2}
        with pytest.raises(Refused, match="warm up: NoAnswer: 1 answers to 2 requests"):
            swap(endpoint, "bad")


def test_a_damaged_bundle_is_refused_by_the_check_that_found_it(endpoint, tmp_path):
    def load(path, steps):
        return load_policy(path, step=steps)

    def damaged(name, change):
        shutil.copytree(SHIPPED / "hopper", tmp_path / name)
        change(tmp_path / name)
        return str(tmp_path / name)

    def cut(path):
        file = path / "weights.safetensors"
        file.write_bytes(file.read_bytes()[:-1])

    def forget(path):
        (path / "manifest.json").unlink()

    policy = load("hopper", Steps(CLOCK))
    with serving(policy, endpoint, load):
        for path, match in (
            (damaged("cut", cut), r"hash: BundleError: .*weights.safetensors: \d+ bytes"),
            (damaged("none", forget), "hash: BundleError: .*none: neither a bundle"),
            ("walker2d", "spec: SpecMismatch: .*describe different robots"),
        ):
            with pytest.raises(Refused, match=match):
                swap(endpoint, path)
        report = swap(endpoint, "hopper")
        assert names(report["steps"]) == [
            *("hash", "engine", "golden", "costs"),
            *("load", "spec", "answers", "warm up", "swap"),
        ]


def test_policies_are_swapped_apart(endpoint):
    with (
        serving({"arm": Doubler("a1"), "leg": Doubler("l1")}, endpoint),
        connected(endpoint, "leg") as client,
    ):
        control(endpoint, "swap", {"bundle": "l2", "policy": "leg"}, timeout_s=20.0)
        assert client.infer(request(0)).version == "l2"
        ready = control(endpoint, "ready", {"policy": "leg"}, timeout_s=20.0)
        assert ready["policies"] == {"arm": "a1", "leg": "l2"}
        assert (ready["policy"], ready["version"]) == ("leg", "l2")
        with pytest.raises(Refused, match="there is no policy before a1"):
            control(endpoint, "rollback", timeout_s=20.0)
        with pytest.raises(Refused, match=r"no policy 'log' here; did you mean leg\?"):
            control(endpoint, "stats", {"policy": "log"}, timeout_s=20.0)


def test_who_asks_for_a_policy_that_is_not_there_is_told_which_are(endpoint):
    session = Session(endpoint, "policy", CLOCK, policy="tail")
    with (
        serving({"arm": Doubler(), "leg": Doubler()}, endpoint),
        pytest.raises(Refused, match="no policy 'tail' here, only arm, leg"),
    ):
        session.connect(20.0)
    session.close()


def test_a_request_that_is_not_finite_is_turned_away_by_itself(endpoint):
    with serving(Doubler(), endpoint) as server, connected(endpoint) as client:
        with pytest.raises(Refused, match="nonfinite: position of the request is not finite"):
            client.infer(request(0, position=(1.0, float("nan"))))
        assert client.infer(request(1)).tick == 1
        (counts,) = server.stats()["clients"]
        assert (counts["asked"], counts["answered"], counts["refused"]) == (2, 1, 1)


def test_the_end_answers_what_waits_and_turns_away_what_comes(endpoint):
    gate, stop = Gate(), threading.Event()
    policy = Doubler(act=gate)
    server = PolicyServer({"default": policy}, endpoint, MonotonicClock(), loads)
    thread = threading.Thread(target=server.run, args=(stop.is_set, 5.0))
    thread.start()
    with raw(endpoint) as first, raw(endpoint) as second:
        ask(first, 0)
        assert gate.entered.wait(20)
        ask(second, 0)
        stop.set()
        threading.Timer(0.2, gate.open.set).start()
        assert isinstance(reply(first), Answer)
        assert isinstance(reply(second), Answer)
        ask(second, 1)
        assert (answer := reply(second)) == Reject(1, "draining", answer.detail)
        newcomer = Session(endpoint, "policy", CLOCK, spec=SPEC)
        with pytest.raises(PeerTimeout):
            newcomer.connect(0.3)
        newcomer.close()
        thread.join(20)
        assert not thread.is_alive()
    assert policy.closed


def test_the_end_comes_in_time_whatever_clients_do(endpoint):
    stop = threading.Event()
    server = PolicyServer({"default": Doubler()}, endpoint, CLOCK, loads)
    thread = threading.Thread(target=server.run, args=(stop.is_set, 5.0))
    thread.start()
    with raw(endpoint) as session:
        ask(session, 0)
        assert isinstance(reply(session), Answer)
        stop.set()
        ticks = iter(range(1, 10**9))
        until(lambda: not thread.is_alive() or ask_on(session, next(ticks)))
    assert not thread.is_alive()


def ask_on(session, tick):
    session.send(Control("ready", {}))
    session.receive(0)
    return False
