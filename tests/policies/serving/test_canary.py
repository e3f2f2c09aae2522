"""A new version on trial: its share, what it is compared by, and how a trial ends."""

import numpy as np
import pytest

from controller.control import control
from controller.errors import Refused
from controller.testing import example_spec
from policies.serving.canary import LEAST_PAIRS, Canary, Terms
from tests.policies.serving.doubler import Doubler, connected, loads, request, serving, until
from tests.policies.serving.fleet import MS, FakeBatchPolicy, Fleet, Robot, fresh_clock

SECOND = 1_000 * MS


def trial(**terms):
    clock = fresh_clock()
    policy = FakeBatchPolicy(clock, version="v2")
    return Canary(policy, Terms("b", **terms), example_spec().action, clock), clock


def drawn() -> list[bytes]:
    return [bytes([0, *np.random.default_rng(n).bytes(4)]) for n in range(100)]


def numbered() -> list[bytes]:
    """Identities as the library gives them: one after the other from a random start."""
    return [bytes([0]) + (0x6B8B4567 + n).to_bytes(4, "big") for n in range(100)]


@pytest.mark.parametrize("identities", [drawn, numbered])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_the_share_of_clients_and_seconds_is_what_was_asked_for(share, identities):
    canary, _ = trial(share=share)
    clients = identities()
    taken = np.array([[canary.takes(c, s * SECOND) for s in range(100)] for c in clients])
    # 10 000 draws: five standard deviations are 0.025 at most.
    assert taken.mean() == pytest.approx(share, abs=0.025)
    assert taken.mean(0).std() < 0.06
    assert taken.mean(1).std() < 0.06


def test_a_client_keeps_its_version_for_a_second():
    canary, _ = trial(share=0.5)
    for second in range(20):
        within = {canary.takes(b"robot", second * SECOND + ms * MS) for ms in range(0, 1000, 50)}
        assert len(within) == 1


def versions(robots):
    return [answer.version for robot in robots for answer in robot.answers.values()]


def on_trial(fleet, policy, **terms):
    """Put a version on trial in a fleet's server at once."""
    service = fleet.server._services["default"]
    service.put_on_trial(Canary(policy, Terms("b", **terms), service.spec.action, fleet.clock))
    return service


def robots(number=8, **changes):
    return [Robot(start_ms=2.3 * n, **changes) for n in range(number)]


def test_both_versions_answer_and_are_compared_on_the_same_requests():
    clock = fresh_clock()
    new = FakeBatchPolicy(clock, 1.5, version="v2")
    with Fleet(FakeBatchPolicy(clock), robots(), clock) as fleet:
        service = on_trial(fleet, new, share=0.5, seconds=3.0)
        fleet.run(4.0)
        facts = service.facts()["canary"]
        told = versions(fleet.robots)
        assert all(len(robot.answers) == robot.tick for robot in fleet.robots)
        assert facts["verdict"] == "passed"
        # 24 throws of a coin in 32 windows: 0.375, and 0.077 either way.
        assert 0.1 < told.count("v2") / len(told) < 0.65
        assert facts["answered"] == told.count("v2")
        assert facts["failures"] == 0
        # The same noise and the same arithmetic: the same actions, one and a half times as slow.
        assert facts["mean_distance"] == facts["max_distance"] == 0.0
        assert facts["latency_ratio"] == pytest.approx(1.5)
        # A tenth of the time, at 2.5 ms for a pair.
        assert LEAST_PAIRS < facts["pairs"] <= 4.0 * 0.1 / 0.0025 + 1
        # It waits for a word, and answers its share as long.
        assert service.canary is not None


class Shifted(FakeBatchPolicy):
    """Acts 0.2 beside where the others do."""

    def infer(self, request):
        chunk = super().infer(request)
        actions = (chunk.actions + np.float32(0.2)).astype(np.float32)
        return type(chunk)(chunk.tick, actions, chunk.version)


def test_a_version_that_acts_otherwise_is_measured_and_taken_back():
    clock = fresh_clock()
    with Fleet(FakeBatchPolicy(clock), robots(position=0.5), clock) as fleet:
        service = on_trial(fleet, Shifted(clock, version="v2"), share=0.2, distance=0.05)
        fleet.run(2.0)
        facts = service.facts()["canary"]
        assert facts["verdict"] == "failed"
        # 0.2 of an action that reaches from -1 to 1.
        assert facts["mean_distance"] == pytest.approx(0.1, abs=1e-6)
        assert facts["fault"] == "actions are 0.1 of the range away, at most 0.05"
        assert facts["pairs"] == LEAST_PAIRS
        assert service.canary is None
        assert set(versions(fleet.robots)[-5:]) == {"v1"}


def test_a_version_that_takes_too_long_is_taken_back():
    clock = fresh_clock()
    with Fleet(FakeBatchPolicy(clock), robots(), clock) as fleet:
        service = on_trial(fleet, FakeBatchPolicy(clock, 3.0, version="v2"), share=0.2)
        fleet.run(2.0)
        facts = service.facts()["canary"]
        assert (facts["verdict"], facts["pairs"]) == ("failed", LEAST_PAIRS)
        assert facts["fault"] == "takes 3.00 times as long, at most 2"
        assert service.change["verb"] == "abort"
        assert all(len(robot.answers) == robot.tick for robot in fleet.robots)


@pytest.mark.parametrize("batch", [1, 64])
def test_a_version_that_owes_answers_is_taken_back_and_nobody_notices(batch):
    clock = fresh_clock()
    new = FakeBatchPolicy(clock, crash=0.5, max_batch=batch, version="v2")
    crowd = [*robots(6), *robots(6, position=1.0)]
    with Fleet(FakeBatchPolicy(clock), crowd, clock) as fleet:
        service = on_trial(fleet, new, share=0.5, failures=2)
        fleet.run(3.0)
        facts = service.facts()["canary"]
        assert facts["verdict"] == "failed"
        assert facts["failures"] >= 3
        assert "3 failed answers, the last: " in facts["fault"]
        assert "matrix is singular" in facts["fault"]
        assert all(len(robot.answers) == robot.tick for robot in fleet.robots)
        assert fleet.server.stats()["rejected"] == {}
        assert new._closed


def test_a_request_that_no_version_can_answer_is_no_fault_of_the_new_one():
    clock = fresh_clock()
    crowd = [*robots(4), Robot(position=1.0)]
    old, new = (FakeBatchPolicy(clock, crash=0.5, version=v) for v in ("v1", "v2"))
    with Fleet(old, crowd, clock) as fleet:
        service = on_trial(fleet, new, share=1.0, seconds=1.0, then="promote")
        fleet.run(2.0)
        assert service.version == "v2"
        assert service.facts()["canary"]["verdict"] == "promoted"
        assert not crowd[-1].answers
        assert service.previous is old
        told = versions(fleet.robots)
        assert told == sorted(told) or set(told) == {"v2"}


def test_a_trial_by_control_requests(endpoint):
    made = {}

    def load(path, steps):
        made[path] = Doubler(path)
        return made[path]

    def ask_for(verb, **args):
        return control(endpoint, verb, {k: str(v) for k, v in args.items()}, timeout_s=20.0)

    with serving(Doubler("v1"), endpoint, load) as server, connected(endpoint) as client:
        for verb in ("promote", "abort"):
            with pytest.raises(Refused, match="no version is on trial beside v1"):
                ask_for(verb)
        report = ask_for("canary", bundle="v2", share=1.0, requests=3)
        assert (report["after"], report["canary"]) == ("v1", "v2")
        assert [step["name"] for step in report["steps"]][-1] == "swap"
        assert [client.infer(request(tick)).version for tick in range(4)] == ["v2"] * 4
        assert server.stats()["canary"]["verdict"] == "passed"
        with pytest.raises(Refused, match="v2 is on trial: promote or abort it first"):
            ask_for("swap", bundle="v3")
        report = ask_for("promote")
        assert (report["before"], report["after"]) == ("v1", "v2")
        assert report["canary"]["verdict"] == "promoted"
        assert client.infer(request(9)).version == "v2"
        assert not made["v2"].closed
        assert ask_for("rollback")["after"] == "v1"
        ask_for("canary", bundle="v4", share=1.0)
        assert ask_for("rollback")["canary"]["verdict"] == "rolled back"
        assert made["v4"].closed
        ask_for("canary", bundle="v5", share=1.0)
        assert ask_for("abort")["canary"]["verdict"] == "aborted"
        assert client.infer(request(10)).version == "v1"
        changes = {"canary": 3, "promote": 1, "rollback": 1, "abort": 2}
        assert server.stats()["changes"] == changes
    assert made["v2"].closed


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ({"share": "0.1"}, "arguments: share; expected bundle, share, "),
        ({"bundle": "b", "share": "0"}, r"share: Expected `float` > 0"),
        ({"bundle": "b", "share": "much"}, r"share: Expected `float`"),
        ({"bundle": "b", "then": "wait a bit"}, "then: Invalid enum value 'wait a bit'"),
        ({"bundle": "b", "policy": "amr"}, r"no policy 'amr' here; did you mean arm\?"),
    ],
)
def test_terms_that_make_no_sense(endpoint, args, match):
    with (
        serving({"arm": Doubler("v1")}, endpoint),
        pytest.raises(Refused, match=match),
    ):
        control(endpoint, "canary", args, timeout_s=20.0)


def test_a_trial_ends_by_itself_without_requests(endpoint):
    with serving(Doubler("v1"), endpoint, loads) as server, connected(endpoint) as client:
        args = {"bundle": "v2", "share": "0.5", "seconds": "0.001", "then": "promote"}
        control(endpoint, "canary", args, timeout_s=20.0)
        client.infer(request(0))
        until(lambda: server.stats()["version"] == "v2")
