"""The ledger of versions: whatever part of it was written, it says where its writer was."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.finetuning.versions import (
    Began,
    Finished,
    Judged,
    Ledger,
    Placed,
    Proven,
    Published,
    Restarted,
    RolledBack,
    Standing,
    read_events,
    standing_of,
)


def judged(version, outcome="accepted", against="v1"):
    return Judged(version=version, parent="v1", outcome=outcome, against=against)


def published(version):
    return Published(version=version, published_ns=1)


HISTORY = [
    Began(version="v1"),
    Placed(version="v1", swap_ms=1.0),
    judged("c1", "superseded"),
    judged("c2", "refused"),
    judged("v2"),
    published("v2"),
    Placed(version="v2", swap_ms=1.0),
    Proven(version="v2", returns=(3.0, 4.0), env_steps=100),
    judged("v3"),
    published("v3"),
    Placed(version="v3", swap_ms=2.0),
    Began(version="v3"),
    judged("v4"),
    published("v4"),
    RolledBack(version="v4", to="v2", why="worse", dropped=("v3", "v4"), published_ns=2),
    Placed(version="v2", swap_ms=2.0),
    judged("c5", "refused"),
    judged("c6", "refused"),
    Restarted(version="v2", why="2 refused"),
    Finished(version="v2"),
]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (0, {}),
        (1, {"first": "v1", "good": "v1", "line": ["v1"], "in_force": "v1", "placed": True}),
        (4, {"judged": {"c1": "superseded", "c2": "refused"}, "refused": 1, "accepted": ""}),
        (5, {"accepted": "v2", "in_force": "v1", "refused": 0}),
        (6, {"accepted": "", "in_force": "v2", "placed": False, "since_good": ["v2"]}),
        (7, {"placed": True, "good": "v1"}),
        (8, {"good": "v2", "since_good": []}),
        (14, {"line": ["v1", "v2", "v3", "v4"], "since_good": ["v3", "v4"]}),
        (15, {"line": ["v1", "v2"], "placed": False, "taken_back": True, "rollbacks": 1}),
        (15, {"dropped": {"v3", "v4"}, "good": "v2", "published": ["v1", "v2", "v3", "v4"]}),
        (18, {"refused": 2, "placed": True}),
        (20, {"refused": 0, "finished": True, "in_force": "v2"}),
    ],
)
def test_where_events_leave_things(events, expected):
    standing = standing_of(HISTORY[:events])
    assert {name: getattr(standing, name) for name in expected} == expected


def test_a_good_version_that_is_taken_back_is_good_no_more():
    events = [Began(version="v1"), published("v2"), Proven(version="v2", returns=(), env_steps=1)]
    back = RolledBack(version="v2", to="v1", why="refused", dropped=("v2",), published_ns=1)
    standing = standing_of([*events, back])
    assert (standing.good, standing.proof, standing.line) == ("v1", None, ["v1"])


def test_from_scratch_the_first_published_version_is_the_first():
    standing = standing_of([Began(version=""), judged("v1", against=""), published("v1")])
    assert (standing.first, standing.good, standing.line) == ("v1", "v1", ["v1"])
    assert not standing.placed


def test_refusals_that_were_no_comparison_are_not_counted():
    assert standing_of([judged("a", "refused", against="")]).refused == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    file = tmp_path_factory.mktemp("ledger") / "versions.jsonl"
    with Ledger(file) as ledger:
        for event in HISTORY:
            ledger.write(event)
    return file.read_bytes()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_prefix_of_the_file_resumes(whole, tmp_path_factory, data):
    """A prefix stands for its whole lines; the next event is read after it as if nothing was."""
    end = data.draw(st.integers(0, len(whole)))
    file = tmp_path_factory.mktemp("cut") / "versions.jsonl"
    file.write_bytes(whole[:end])
    lines = whole[:end].count(b"\n")
    stamped = read_events(file)
    assert [msgspec.structs.replace(event, at_s=0.0) for event in stamped] == HISTORY[:lines]
    with Ledger(file) as ledger:
        assert ledger.standing == standing_of(stamped)
        ledger.write(judged("next"))
    assert read_events(file)[:-1] == stamped
    assert read_events(file)[-1].version == "next"
    assert standing_of(read_events(file)) == ledger.standing


def test_events_are_stamped_and_the_first_counts(tmp_path):
    with Ledger(tmp_path / "out" / "versions.jsonl") as ledger:
        ledger.write(Began(version="v1"))
        first = ledger.standing.began_s
        assert first > 1e9
        ledger.write(Began(version="v1"))
        assert ledger.standing.began_s == first


def test_lines_of_other_versions_of_the_program_are_left_out(tmp_path, caplog):
    file = tmp_path / "versions.jsonl"
    file.write_bytes(b'{"event":"dreamt"}\n{"event":"began","version":"v1"}\nnot json\n')
    assert standing_of(read_events(file)).in_force == "v1"
    assert caplog.text.count("left out") == 2
    assert read_events(tmp_path / "none.jsonl") == []
    assert standing_of([]) == Standing()


def test_the_pause_of_one_that_is_taken_up_again_does_not_count():
    standing = Standing()
    for event in (
        Began(version="v1", at_s=100.0),
        Began(version="v1", at_s=130.0),
        Finished(version="v1", at_s=150.0),
        Began(version="v1", at_s=1_150.0),
    ):
        standing.note(event)
    assert standing.began_s == 1_100.0
