"""Many robots on one server, under the virtual clock."""

from collections import Counter

import pytest

from controller.testing import FakePolicy
from policies.serving.clients import jain
from tests.policies.serving.fleet import MS, FakeBatchPolicy, Fleet, Robot, fresh_clock


def thirty_two(**changes):
    """Robots at 50 Hz whose ticks lie anywhere within the period."""
    return [Robot(start_ms=(7 * n) % 20 + n / 64, **changes) for n in range(32)]


@pytest.mark.parametrize(
    ("first", "more", "most"), [(2.0, 0.05, 64), (0.5, 0.5, 1), (7.0, 0.1, 64)]
)
def test_thirty_two_robots_at_50_hz_miss_no_deadline(first, more, most):
    clock = fresh_clock()
    policy = FakeBatchPolicy(clock, first, more, most)
    with Fleet(policy, thirty_two(), clock) as fleet:
        fleet.run(2.0)
        stats = fleet.server.stats()
    for robot in fleet.robots:
        assert len(robot.answers) == robot.tick >= 99
        assert not robot.rejects
    assert stats["late"] == 0
    assert stats["fairness"] == 1.0
    asked = sum(robot.tick for robot in fleet.robots)
    assert stats["answered"] == stats["requests"] == asked
    sizes = {int(size): count for size, count in stats["batches"].items()}
    assert sum(size * count for size, count in sizes.items()) == asked
    assert max(sizes) <= most
    # What takes 2 ms can be done 10 times in a period at most; so they share computations.
    busy_ms = sum(policy.expected_ns(size) * count for size, count in sizes.items()) / MS
    assert busy_ms <= 2100


def test_an_answer_says_how_long_it_waited_and_with_how_many():
    clock = fresh_clock()
    robots = [Robot(), Robot(), Robot(start_ms=2.0)]
    with Fleet(FakeBatchPolicy(clock, 5.0, 1.0), robots, clock) as fleet:
        fleet.run(0.010)
    first, _, third = (robot.answers[0] for robot in robots)
    assert (first.queue_ns, first.infer_ns) == (0, 6 * MS)
    # It came at 2 ms, but the server looked when it was done with the others, at 6.
    assert (third.queue_ns, third.infer_ns) == (0, 5 * MS)


def test_a_policy_without_batches_answers_the_most_urgent_first():
    clock = fresh_clock()
    robots = [Robot(budget_ms=budget) for budget in (19, 7, 13)]
    policy = FakePolicy(clock=clock, costs_ns={0: 5 * MS})
    with Fleet(policy, robots, clock) as fleet:
        fleet.run(0.015)
    assert [robot.answers[0].queue_ns // MS for robot in robots] == [10, 0, 5]


def test_what_cannot_be_met_is_turned_away_at_once_with_what_is_missing():
    clock = fresh_clock()
    robots = [Robot(budget_ms=budget) for budget in (20, 4)]
    with Fleet(FakeBatchPolicy(clock, 5.0), robots, clock) as fleet:
        fleet.run(0.010)
        stats = fleet.server.stats()
    assert 0 in robots[0].answers
    reject = robots[1].rejects[0]
    assert reject.code == "late"
    assert reject.detail == "waited 0.0 ms of 4.0 ms, 1.0 ms are missing"
    assert stats["rejected"] == {"late": 1}
    shares = {client["answered"]: client["shed"] for client in stats["clients"]}
    assert shares == {1: 0, 0: 1}
    assert stats["fairness"] == jain([1.0, 0.0]) == 0.5


def test_a_client_whose_requests_crash_the_policy_costs_nobody_else_an_answer():
    clock = fresh_clock()
    robots = [*thirty_two()[:15], Robot(position=666.0, start_ms=3.0)]
    policy = FakeBatchPolicy(clock, 1.0, 0.05, crash=600.0)
    with Fleet(policy, robots, clock) as fleet:
        fleet.run(2.0)
        stats = fleet.server.stats()
    *others, crasher = robots
    assert not crasher.answers
    assert {reject.code for reject in crasher.rejects.values()} == {"failed"}
    for robot in others:
        assert len(robot.answers) == robot.tick == 100
    assert stats["rejected"] == {"failed": 100}


def test_a_client_that_floods_costs_nobody_else_an_answer():
    clock = fresh_clock()
    robots = [*thirty_two()[:10], Robot(period_ms=0.1, budget_ms=1.2)]
    with Fleet(FakeBatchPolicy(clock, 1.0, 1.0, max_batch=1), robots, clock) as fleet:
        fleet.run(1.0)
        stats = fleet.server.stats()
    *others, flooder = robots
    for robot in others:
        assert len(robot.answers) == robot.tick == 50
    codes = Counter(reject.code for reject in flooder.rejects.values())
    assert codes["superseded"] > 5 * len(flooder.answers) > 1000
    clients = {client["asked"]: client for client in stats["clients"]}
    assert clients[flooder.asked]["superseded"] == codes["superseded"]
    assert sum(client["answered"] for client in stats["clients"]) == stats["answered"]


def test_two_policies_are_asked_by_name_and_counted_apart():
    clock = fresh_clock()
    arm = FakeBatchPolicy(clock, 1.0, version="arm-1")
    leg = FakeBatchPolicy(clock, 2.0, version="leg-1")
    robots = [Robot(policy=name, start_ms=n) for n, name in enumerate(("", "arm", "leg", "leg"))]
    with Fleet({"arm": arm, "leg": leg}, robots, clock) as fleet:
        fleet.run(1.0)
        stats = {name: fleet.server.stats(name) for name in ("arm", "leg")}
    versions = [{answer.version for answer in robot.answers.values()} for robot in robots]
    assert versions == [{"arm-1"}, {"arm-1"}, {"leg-1"}, {"leg-1"}]
    assert [stats[name]["answered"] for name in stats] == [100, 100]
    assert stats["arm"]["policies"] == {"arm": "arm-1", "leg": "leg-1"}
    assert {stats[name]["policy"] for name in stats} == {"arm", "leg"}


@pytest.mark.parametrize(
    ("first", "more", "most", "answered", "least"),
    [
        # 32 robots at 50 Hz want 1.6 s of work per second of a policy without batches
        (1.0, 1.0, 1, 1950, 45),
        # eight at once take 6.5 ms, so 1230 per second could be answered if they came together
        (3.0, 0.5, 8, 1850, 35),
        # nobody who just missed a computation can be met by the next one
        (9.0, 0.1, 64, 2250, 50),
    ],
)
def test_more_than_one_machine_can_do_is_shed_and_shared_out(first, more, most, answered, least):
    clock = fresh_clock()
    with Fleet(FakeBatchPolicy(clock, first, more, most), thirty_two(), clock) as fleet:
        fleet.run(2.0)
        stats = fleet.server.stats()
    counts = [len(robot.answers) for robot in fleet.robots]
    assert sum(counts) >= answered
    assert min(counts) >= least
    assert stats["late"] == 0
    codes = {reject.code for robot in fleet.robots for reject in robot.rejects.values()}
    assert codes <= {"late", "superseded"}
    assert stats["fairness"] > 0.85


def test_jain_s_index():
    assert jain([]) == jain([0.0, 0.0]) == 1.0
    assert jain([0.3, 0.3, 0.3]) == pytest.approx(1.0)
    assert jain([1.0, 0.0, 0.0, 0.0]) == 0.25
    # Jain, Chiu & Hawe (1984): a share of the users served equally gives that share.
    assert jain([2.0] * 3 + [0.0] * 7) == pytest.approx(0.3)
