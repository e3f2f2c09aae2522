"""The limiter: closed forms, and that no order of events leaves both sides waiting."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from policies.finetuning.replay.limiter import (
    FIRST_WAIT_MS,
    LONGEST_PATIENCE_NS,
    LONGEST_WAIT_MS,
    PATIENCE_NS,
    Limiter,
)

S = 1_000_000_000
ME = b"learner"


def draw(limiter, rows, updates, batches=1000, size=1, now_ns=0, learner=ME):
    return limiter.grant(learner, rows, rows, batches, size, updates, now_ns)


@pytest.mark.parametrize(
    ("ratio", "rows", "allowed"),
    [(1.0, 99, 0), (1.0, 100, 0), (1.0, 150, 50), (20.0, 101, 20), (0.25, 107, 1), (0.5, 103, 1)],
)
def test_updates_allowed_by_rows(ratio, rows, allowed):
    limiter = Limiter(ratio, 100, 8)
    assert limiter.allowed(rows) == allowed
    assert draw(limiter, rows, 0) == (allowed + 8 if rows >= 100 else 0)


def test_the_learner_gets_what_is_left_of_what_it_asks_for():
    limiter = Limiter(1.0, 10, 4)
    assert draw(limiter, 20, 0, batches=8) == 8
    assert draw(limiter, 20, 8, batches=8) == 6
    assert draw(limiter, 20, 14, batches=8) == 0
    assert draw(limiter, 21, 14, batches=8) == 1
    assert draw(limiter, 21, 100, batches=8) == 0
    assert draw(limiter, 21, 0, batches=0) == 0


def test_no_draw_before_there_are_rows_for_a_batch():
    limiter = Limiter(1.0, 0, 64)
    assert draw(limiter, 255, 0, size=256) == 0
    # Nor do actors wait, though 255 updates are behind.
    assert limiter.wait_ms(255, 255, 0) == 0
    assert draw(limiter, 256, 0, batches=9, size=256) == 9


def test_actors_wait_while_the_learner_is_more_than_the_slack_behind():
    limiter = Limiter(1.0, 10, 4)
    assert limiter.wait_ms(1000, 1000, 0) == 0, "nobody learns yet"
    draw(limiter, 20, 0, batches=0)
    assert limiter.wait_ms(14, 14, 0) == 0
    assert limiter.wait_ms(15, 15, 0) == FIRST_WAIT_MS
    draw(limiter, 20, 0, batches=3)
    # Batches on their way to the learner count.
    assert limiter.wait_ms(17, 17, 0) == 0
    assert limiter.wait_ms(18, 18, 0) == FIRST_WAIT_MS


def test_an_actor_waits_about_as_long_as_the_learner_needs():
    limiter = Limiter(1.0, 0, 0)
    for k in range(40):  # 10 updates each 0.1 s: 100 Hz
        draw(limiter, 1000, 10 * k, batches=10, now_ns=k * S // 10)
    now_ns = 39 * S // 10
    assert limiter.wait_ms(405, 405, now_ns) == 50
    assert limiter.wait_ms(10_000, 10_000, now_ns) == LONGEST_WAIT_MS


def test_a_learner_that_starves_is_not_taken_for_slow():
    limiter = Limiter(1.0, 0, 0)
    draw(limiter, 20, 0, batches=10, now_ns=0)
    draw(limiter, 20, 10, batches=10, now_ns=S // 10)
    for k in range(20, 30):  # It did these in 0.1 s, asks for 10, gets 1 and waits for a second.
        assert draw(limiter, k, k, batches=10, now_ns=S // 5 + (k - 20) * S) == 0
        assert draw(limiter, k + 1, k, batches=10, now_ns=S // 5 + (k - 20) * S) == 1
    assert limiter.wait_ms(40, 40, 10 * S) == 100


def test_nobody_waits_for_a_dead_learner():
    limiter = Limiter(1.0, 0, 4)
    draw(limiter, 100, 0, batches=1, now_ns=5 * S)
    assert limiter.wait_ms(100, 100, 5 * S + PATIENCE_NS - 1) > 0
    assert limiter.wait_ms(100, 100, 5 * S + PATIENCE_NS) == 0
    draw(limiter, 100, 1, batches=1, now_ns=60 * S)
    assert limiter.wait_ms(100, 100, 60 * S) > 0
    limiter.leave(b"another")
    assert limiter.wait_ms(100, 100, 60 * S) > 0
    limiter.leave(ME)
    assert limiter.wait_ms(100, 100, 60 * S) == 0


def test_a_slow_learner_is_waited_for_longer_but_not_for_ever():
    limiter = Limiter(1.0, 0, 0)
    for k in range(3):
        draw(limiter, 100, k, batches=1, now_ns=5 * k * S)
    assert limiter.wait_ms(100, 100, 24 * S)
    assert not limiter.wait_ms(100, 100, 25 * S)
    for k in range(3):
        draw(limiter, 100, k, batches=1, now_ns=(25 + 100 * k) * S)
    assert not limiter.wait_ms(100, 100, 225 * S + LONGEST_PATIENCE_NS)
    # One that starts again begins with a short patience.
    draw(limiter, 100, 0, now_ns=300 * S, learner=b"new")
    assert not limiter.wait_ms(500, 500, 302 * S)


def test_a_learner_that_went_back_catches_up():
    limiter = Limiter(1.0, 0, 4)
    assert draw(limiter, 100, 90, batches=50) == 14
    assert draw(limiter, 100, 40, batches=50, learner=b"new") == 50
    assert limiter.wait_ms(100, 100, 0) == FIRST_WAIT_MS


class Orders(RuleBasedStateMachine):
    """Actors that pause when told to, and a learner that asks; either may die at any time."""

    @initialize(
        ratio=st.sampled_from((0.1, 0.5, 1.0, 4.0, 20.0)),
        warmup=st.integers(0, 50),
        slack=st.integers(1, 20),
        size=st.integers(1, 40),
    )
    def begin(self, ratio, warmup, slack, size):
        self.ratio, self.warmup, self.slack, self.size = ratio, warmup, slack, size
        self.limiter = Limiter(ratio, warmup, slack)
        self.rows = self.updates = self.now_ns = self.lives = 0
        self.drew = False

    def wait_ms(self):
        return self.limiter.wait_ms(self.rows, self.rows, self.now_ns)

    def draw(self, batches):
        learner = b"learner %d" % self.lives
        self.drew = True
        return draw(self.limiter, self.rows, self.updates, batches, self.size, self.now_ns, learner)

    def allowed(self):
        return math.floor(self.ratio * max(0, self.rows - self.warmup) + 1e-9)

    @rule(block=st.integers(1, 16), rude=st.booleans())
    def insert(self, block, rude):
        """An actor sends rows if it need not wait; one in real time does so all the same."""
        if rude or not self.wait_ms():
            self.rows += block

    @rule(batches=st.integers(0, 64))
    def learn(self, batches):
        """The learner draws and does all the updates."""
        granted = self.draw(batches)
        assert 0 <= granted <= batches
        if granted:
            assert self.rows >= max(self.size, self.warmup)
            assert self.updates + granted <= self.allowed() + self.slack
        self.updates += granted

    @rule(share=st.floats(0, 1))
    def learner_dies(self, share):
        """It comes back with an older state."""
        self.updates, self.lives = int(share * self.updates), self.lives + 1

    @rule(share=st.floats(0, 1))
    def service_dies(self, share):
        """It comes back with fewer rows; nothing else is known to it."""
        self.rows = int(share * self.rows)
        self.limiter, self.drew = Limiter(self.ratio, self.warmup, self.slack), False

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds):
        self.now_ns += int(seconds * S)

    @invariant()
    def one_side_may_go_on(self):
        if not hasattr(self, "limiter") or not self.drew or not self.wait_ms():
            return
        before = self.limiter.__dict__.copy()
        granted = self.draw(1)
        self.limiter.__dict__.update(before)
        assert granted == 1, "the actors wait for a learner that gets nothing"

    @invariant()
    def a_dead_learner_stops_nobody(self):
        if hasattr(self, "limiter"):
            later_ns = self.now_ns + LONGEST_PATIENCE_NS
            assert self.limiter.wait_ms(self.rows, self.rows, later_ns) == 0

    def teardown(self):
        """From wherever it is, both sides go on together, in proportion."""
        if not hasattr(self, "limiter"):
            return
        reach = self.slack + self.ratio + 7
        for turn in range(50_000):
            if not self.wait_ms():
                self.rows += 1
            self.updates += self.draw(7)
            ready = self.rows > max(self.size, self.warmup)
            if turn > 100 and ready and abs(self.allowed() - self.updates) <= reach:
                return
        raise AssertionError(f"{self.rows} rows, {self.updates} updates, {self.allowed()} allowed")


Orders.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOrders = Orders.TestCase
