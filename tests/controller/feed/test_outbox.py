import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import ConfigError
from controller.feed.outbox import AGAIN_NS, PARCEL_VERSIONS, WINDOW, Outbox
from controller.feed.rows import RowLayout
from controller.replay_messages import MAX_ROWS
from controller.wire_base import MAX_FRAME_BYTES

LAYOUT = RowLayout(2, 1)
VERSION = LAYOUT.number("version")


def some_rows(first, count, version=0):
    """Rows whose first element is their number."""
    rows = np.zeros((count, LAYOUT.width), np.float32)
    rows[:, 0], rows[:, VERSION] = np.arange(first, first + count), version
    return rows


class Model:
    """The service's side: keeps the rows that come next, and says how many it has."""

    def __init__(self, kept=()):
        self.kept = list(kept)

    def take(self, parcel):
        if parcel.first <= len(self.kept):
            self.kept += parcel.rows[len(self.kept) - parcel.first :, 0].tolist()
        return len(self.kept)


def send_all(box, model, now_ns=0):
    while (parcel := box.parcel()) is not None:
        box.sent(parcel)
        box.confirm(model.take(parcel), now_ns)


ACTS = st.lists(
    st.sampled_from(["put", "put", "send", "answer", "answer", "break", "forget", "probe"]),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(ACTS, st.booleans(), st.integers(0, 5))
def test_every_row_arrives_once_and_in_order_whatever_happens(acts, replays, before):
    """Messages are lost with their connection, and the service forgets what it confirmed."""
    box = Outbox(LAYOUT, replays=replays, capacity=20)
    model = Model([-1.0] * (0 if replays else before))
    earlier = len(model.kept)
    way, offered, now_ns, newest = [], 0, 0, 0
    for act in acts:
        now_ns += AGAIN_NS + 1
        newest = max(newest, len(model.kept))
        if act == "put":
            count = min(3, box.room)
            box.put(some_rows(offered, count), ("v",))
            offered += count
        elif act == "send" and (parcel := box.parcel()) is not None:
            box.sent(parcel)
            way.append(parcel)
        elif act == "answer" and way:
            box.confirm(model.take(way.pop(0)), now_ns)
        elif act == "probe":
            way.append(box.question())
        elif act == "break":
            way.clear()
            box.ask()
        elif act == "forget":
            # As much as is kept beyond its arrival.
            del model.kept[max(earlier, newest - 10) :]
            way.clear()
            box.ask()
    for parcel in [*way, box.question()]:
        box.confirm(model.take(parcel), now_ns := now_ns + AGAIN_NS + 1)
    for _ in range(3):
        send_all(box, model, now_ns := now_ns + AGAIN_NS + 1)
        box.confirm(len(model.kept), now_ns)
    assert model.kept[earlier:] == list(range(offered))
    assert (box.behind, box.lost, box.torn) == (0, 0, False)


def test_new_rows_are_numbered_on_from_those_that_the_service_has():
    box, model = Outbox(LAYOUT), Model([7.0] * 3)
    box.put(some_rows(0, 2), ("v",))
    assert box.parcel() is None  # Nobody has said where to go on.
    box.confirm(3, 0)
    parcel = box.parcel()
    assert (parcel.first, len(parcel.rows)) == (3, 2)
    send_all(box, model)
    assert model.kept == [7, 7, 7, 0, 1]


def test_rows_of_a_log_that_is_read_again_are_passed_over():
    box, model = Outbox(LAYOUT, replays=True), Model(range(5))
    box.confirm(5, 0)
    for first in range(0, 9, 3):
        box.put(some_rows(first, 3), ("v",))
    send_all(box, model)
    assert model.kept == list(range(9))
    assert box.behind == 0


def test_it_takes_no_more_than_there_is_room_for():
    box, model = Outbox(LAYOUT, capacity=20), Model()
    box.confirm(0, 0)
    box.put(some_rows(0, 10), ("v",))
    assert (box.room, box.behind) == (0, 10)
    with pytest.raises(ValueError, match="1 rows, there is room for 0"):
        box.put(some_rows(10, 1), ("v",))
    send_all(box, model)
    assert (box.room, box.behind) == (10, 0)


def test_rows_that_are_gone_on_both_sides_are_counted_and_numbered_anew():
    box, model = Outbox(LAYOUT, capacity=8), Model()
    box.confirm(0, 0)
    for first in range(0, 12, 4):
        box.put(some_rows(first, 4), ("v",))
        send_all(box, model)
    model.kept.clear()
    box.confirm(0, 0)
    send_all(box, model)
    assert (model.kept, box.lost) == (list(range(4, 12)), 4)


def test_a_log_is_asked_for_again_where_rows_are_gone():
    box, model = Outbox(LAYOUT, replays=True, capacity=8), Model()
    box.confirm(0, 0)
    for first in range(0, 12, 4):
        box.put(some_rows(first, 4), ("v",))
        send_all(box, model)
    del model.kept[2:]
    box.ask()
    box.confirm(2, 0)
    assert box.torn
    assert box.parcel() is None
    box.rewind()
    for first in range(0, 12, 4):
        box.put(some_rows(first, 4), ("v",))
        send_all(box, model)
    assert (model.kept, box.lost) == (list(range(12)), 0)


def test_versions_are_counted_anew_in_every_message():
    box = Outbox(LAYOUT)
    box.confirm(0, 0)
    rows = some_rows(0, 4)
    rows[:, VERSION] = [1, 0, 1, 2]
    box.put(rows, ("a", "b", "c"))
    box.put(some_rows(4, 1), ("c",))
    parcel = box.parcel()
    named = [parcel.versions[int(number)] for number in parcel.rows[:, VERSION]]
    assert named == ["b", "a", "b", "c", "c"]
    assert len(parcel.versions) == 3


def test_a_message_has_not_more_versions_than_fit():
    box, count = Outbox(LAYOUT), 3 * PARCEL_VERSIONS
    box.confirm(0, 0)
    rows = some_rows(0, count)
    rows[:, VERSION] = np.arange(count)
    box.put(rows, tuple(f"v{n}" for n in range(count)))
    found = []
    while (parcel := box.parcel()) is not None:
        assert len(parcel.versions) <= PARCEL_VERSIONS
        found += [parcel.versions[int(number)] for number in parcel.rows[:, VERSION]]
        box.sent(parcel)
    assert found == [f"v{n}" for n in range(count)]


def test_so_many_messages_are_on_their_way_and_no_more():
    box = Outbox(LAYOUT)
    box.confirm(0, 0)
    for number in range(2 * WINDOW):
        box.put(some_rows(number, 1), ("v",))
        if (parcel := box.parcel()) is not None:
            box.sent(parcel)
    assert box.parcel() is None
    box.confirm(1, 0)
    assert len(box.parcel().rows) == WINDOW


def test_answers_that_say_the_same_again_resend_now_and_then_only():
    box = Outbox(LAYOUT)
    box.confirm(0, 0)
    box.put(some_rows(0, 4), ("v",))
    now_ns = 10 * AGAIN_NS
    sent = 0
    for _ in range(20):
        if (parcel := box.parcel()) is not None:
            box.sent(parcel)
            sent += 1
        box.confirm(0, now_ns)
        now_ns += AGAIN_NS // 4
    assert sent == 5


def test_a_robot_whose_rows_fit_no_message():
    with pytest.raises(ConfigError, match=f"at most {MAX_FRAME_BYTES} fit a message"):
        Outbox(RowLayout(MAX_FRAME_BYTES // 8, 1))
    assert Outbox(RowLayout(MAX_FRAME_BYTES // 16, 1)).capacity == WINDOW
    assert Outbox(LAYOUT).capacity == MAX_ROWS
