import pytest

from controller.conformance import check_policy
from controller.interfaces import Policy
from controller.spec import ArraySpec, Spec
from controller.swapping import SwappingPolicy
from controller.testing import FakePolicy
from controller.types import Request
from tests.controller.test_exploring import OBSERVATION

OTHER = Spec("other", (ArraySpec("x", (2,)),), ArraySpec("u", (1,)), 10.0)


class Closing(FakePolicy):
    def __init__(self, version, spec=None):
        super().__init__(spec, version=version)
        self.closed = 0

    def close(self):
        self.closed += 1


class Store:
    """Makes policies by name, and keeps what it made."""

    def __init__(self):
        self.made, self.said, self.tried = {}, [], []

    def load(self, path):
        self.tried.append(path)
        if path == "damaged":
            raise ValueError("cut")
        if path == "bug":
            raise AssertionError("ours")
        self.made[path] = Closing(path, OTHER if path == "other robot" else None)
        return self.made[path]

    def policy(self):
        return SwappingPolicy(self.load("v1"), self.load, lambda *words: self.said.append(words))


def version(policy, tick=0):
    return policy.infer(Request(tick, 0, OBSERVATION, 0, 10**12)).version


def test_it_is_a_policy():
    policy = SwappingPolicy(FakePolicy(), FakePolicy, print)
    assert isinstance(policy, Policy)
    check_policy(policy, OBSERVATION)


def test_a_change_answers_from_the_next_request_on_and_closes_what_was_before():
    store = Store()
    policy = store.policy()
    assert version(policy) == "v1"
    assert policy.change("v2")
    assert (policy.version, version(policy), policy.swaps) == ("v2", "v2", 1)
    assert policy.last_ms > 0
    assert (store.made["v1"].closed, store.made["v2"].closed) == (1, 0)
    policy.close()
    assert store.made["v2"].closed == 1


@pytest.mark.parametrize(
    ("path", "why"), [("damaged", "ValueError: cut"), ("other robot", "other")]
)
def test_what_cannot_be_put_in_leaves_the_one_before_and_is_told_once(path, why):
    store = Store()
    policy = store.policy()
    assert [policy.change(path), policy.change(path)] == [False, False]
    assert store.tried == ["v1", path]
    assert len(store.said) == 1
    kind, detail = store.said[0]
    assert (kind, path in detail, why in detail) == ("policy", True, True)
    assert (version(policy), policy.swaps, store.made["v1"].closed) == ("v1", 0, 0)
    if path in store.made:
        assert store.made[path].closed == 1
    assert policy.change("v2")


def test_a_bug_of_ours_comes_through():
    with pytest.raises(AssertionError, match="ours"):
        Store().policy().change("bug")
