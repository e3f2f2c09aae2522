import random
import time

import numpy as np
import pytest

from controller.errors import PeerTimeout, Refused, SpecMismatch
from controller.feed.client import ReplayClient
from controller.wire import Draw, Fetch, Insert
from tests.controller.feed.service import CLOCK, Service
from tests.controller.scripted import MS, OTHER, SPEC


def some_rows(client, first, count):
    rows = np.zeros((count, client.layout.width), np.float32)
    rows[:, 0] = np.arange(first, first + count)
    rows[:, client.layout.number("version")] = np.arange(count) % 2
    return rows


@pytest.fixture
def client(endpoint, closing):
    return closing(ReplayClient(endpoint, SPEC, CLOCK, "arm"))


def until(done, client, seconds=10.0):
    """Pump until something is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        client.pump(5 * MS)


def test_rows_arrive_with_their_versions(endpoint, client):
    with Service(endpoint, SPEC) as service:
        service.version, service.wait_ms = "v2", 30
        client.connect(5.0)
        client.offer(some_rows(client, 0, 5), ("v1", "v2"))
        assert client.behind == 5
        assert client.flush(5.0)
        assert client.behind == 0
        assert service.rows("arm")[:, 0].tolist() == [0, 1, 2, 3, 4]
        assert service.versions("arm") == ["v1", "v2", "v1", "v2", "v1"]
        assert (client.version, client.bundle, client.wait_ms) == ("v2", "bundles/v2", 30)


def test_a_newcomer_of_the_same_name_goes_on_where_the_last_one_ended(endpoint, closing):
    with Service(endpoint, SPEC) as service:
        for start in range(2):
            client = ReplayClient(endpoint, SPEC, CLOCK, "arm")
            client.connect(5.0)
            client.offer(some_rows(client, 10 * start, 3), ("v1", "v2"))
            assert client.flush(5.0)
            client.close()
        assert service.rows("arm")[:, 0].tolist() == [0, 1, 2, 10, 11, 12]


def test_rows_that_are_read_again_are_not_sent_again(endpoint, closing):
    with Service(endpoint, SPEC) as service:
        for count in (4, 7):
            client = closing(ReplayClient(endpoint, SPEC, CLOCK, "arm", replays=True))
            client.connect(5.0)
            client.offer(some_rows(client, 0, count), ("v1", "v2"))
            assert client.flush(5.0)
        assert service.rows("arm")[:, 0].tolist() == list(range(7))
        assert sum(insert.rows for insert in service.inserts()) == 7


@pytest.mark.parametrize("forgets", [0, 7])
def test_a_service_that_dies_and_comes_back_has_every_row_once(endpoint, client, forgets):
    """It comes back without the newest rows, which were not written yet."""
    kept, offered = {}, 0
    for _ in range(4):
        with Service(endpoint, SPEC, kept):
            end = time.monotonic() + 0.1
            while time.monotonic() < end or not client.ready:
                client.offer(some_rows(client, offered, 6), ("v1", "v2"))
                offered += 6
                client.pump(2 * MS)
        for rows in kept.values():
            del rows[len(rows) - forgets :]
        # Nobody is there.
        for _ in range(3):
            client.offer(some_rows(client, offered, 6), ("v1", "v2"))
            offered += 6
            client.pump(2 * MS)
    with Service(endpoint, SPEC, kept) as service:
        assert client.flush(10.0)
        assert service.rows("arm")[:, 0].tolist() == list(range(offered))
        assert client.outbox.lost == 0


def test_messages_that_were_lost_on_their_way_are_sent_again(endpoint, client):
    with Service(endpoint, SPEC) as service:
        client.connect(5.0)
        luck = random.Random(3)
        service.deaf = lambda message: isinstance(message, Insert) and luck.random() < 0.4
        for start in range(0, 40, 4):
            client.offer(some_rows(client, start, 4), ("v1", "v2"))
            client.pump(MS)
        assert client.flush(20.0)
        assert service.rows("arm")[:, 0].tolist() == list(range(40))


def test_many_rows_go_in_several_messages(endpoint, client):
    with Service(endpoint, SPEC) as service:
        client.connect(5.0)
        client.offer(some_rows(client, 0, 30_000), ("v1", "v2"))
        assert client.flush(10.0)
        assert service.rows("arm")[:, 0].tolist() == list(range(30_000))
        assert 4 < len(service.inserts()) < 40


def test_what_is_in_force_can_be_asked_for_without_rows(endpoint, client):
    with Service(endpoint, SPEC) as service:
        client.connect(5.0)
        client.pump(20 * MS)
        assert service.inserts() == []  # Whoever only draws is no actor.
        service.version = "v1"
        client.ask()
        until(lambda: client.version == "v1", client)
        # While it is to wait, it asks by itself when that is over.
        service.wait_ms = 10
        client.ask()
        until(lambda: client.wait_ms == 10, client)
        service.wait_ms, service.version = 0, "v2"
        until(lambda: client.wait_ms == 0, client)
        assert client.version == "v2"
        assert service.kept == {}


def test_batches(endpoint, client):
    with Service(endpoint, SPEC) as service:
        service.version = "v7"
        client.connect(5.0)
        assert client.ask_draw(2, 3, 17, "v6")
        assert client.asked
        drawn, rows = client.take_drawn(5_000 * MS)
        assert not client.asked
        assert service.messages[-1] == Draw(2, 3, 17, "v6")
        assert (drawn.batches, drawn.size, drawn.allowed, drawn.version) == (2, 3, 5, "v7")
        assert rows.shape == (6, client.layout.width)
        assert rows.ravel().tolist() == list(range(rows.size))
        drawn, rows = client.draw(0, 3, 18, "v6", 5_000 * MS)
        assert (drawn.batches, rows) == (0, None)
        assert client.take_drawn(0) is None


def test_a_draw_that_died_with_the_service_is_asked_for_anew(endpoint, client):
    with Service(endpoint, SPEC) as service:
        service.deaf = lambda message: isinstance(message, Draw)
        client.connect(5.0)
        assert client.ask_draw(1, 3, 0, "")
        assert client.take_drawn(20 * MS) is None
        assert client.asked
    with Service(endpoint, SPEC):
        end, drawn = time.monotonic() + 10, None
        while drawn is None:
            assert time.monotonic() < end
            drawn = client.draw(1, 3, 0, "", 50 * MS)
        assert drawn[0].batches == 1


def test_an_answer_to_a_draw_that_was_given_up_is_not_taken_for_the_next(endpoint, client):
    with Service(endpoint, SPEC) as service:
        client.connect(5.0)
        service.deaf = lambda message: True
        client.ask_draw(1, 3, 0, "")
        client.asked = False
        service.deaf = lambda message: False
        service.version = "old"
        client.ask_draw(1, 3, 0, "")
        client.asked = False
        until(lambda: len(service.messages) == 2, client)
        time.sleep(0.05)
        service.version = "new"
        drawn, _ = client.draw(1, 4, 0, "", 5_000 * MS)
        assert (drawn.version, drawn.size) == ("new", 4)


def test_what_the_service_cannot_use_is_told(endpoint, client):
    with Service(endpoint, SPEC):
        client.connect(5.0)
        with pytest.raises(Refused, match="malformed: batches of too many rows"):
            client.draw(1, 101, 0, "", 5_000 * MS)
        assert not client.asked
        assert client.draw(1, 100, 0, "", 5_000 * MS)[0].size == 100


def test_files_of_a_version(endpoint, client):
    with Service(endpoint, SPEC) as service:
        service.files["v1"] = {"manifest.json": b"{}", "weights": bytes(range(256)) * 5000}
        client.connect(5.0)
        client.offer(some_rows(client, 0, 4), ("v1", "v2"))
        assert client.fetch("v1", 5.0) == service.files["v1"]
        assert client.fetch("v9", 5.0) == {}
        assert client.flush(5.0)
        service.deaf = lambda message: isinstance(message, Fetch)
        with pytest.raises(PeerTimeout, match=r"the files of v1 did not come within 0\.1 s"):
            client.fetch("v1", 0.1)


def test_a_service_of_another_robot(endpoint, client):
    with Service(endpoint, OTHER), pytest.raises(SpecMismatch):
        client.connect(5.0)
    with Service(endpoint, SPEC):
        client.connect(5.0)
    client.ask()
    with Service(endpoint, OTHER), pytest.raises(Refused, match="spec"):
        until(lambda: False, client)


def test_nobody_there(client):
    with pytest.raises(PeerTimeout):
        client.connect(0.05)
    client.offer(some_rows(client, 0, 2), ("v1", "v2"))
    client.pump(MS)
    assert not client.flush(0.05)
    assert client.behind == 2
    assert client.draw(1, 1, 0, "", MS) is None
    with pytest.raises(ValueError, match="there is room for"):
        client.offer(some_rows(client, 0, 1 + client.room), ("v1", "v2"))
