import numpy as np
import pytest

from controller.status import FIELDS, StatusBoard, StatusError, Tally
from controller.types import Mode, Observation, Rung, TickRecord


def test_a_reader_sees_what_the_writer_stores(tmp_path):
    with (
        StatusBoard(tmp_path / "status", create=True) as writer,
        StatusBoard(tmp_path / "status") as reader,
    ):
        assert reader.read() == dict.fromkeys(FIELDS, 0)
        writer.write(ticks=5, sent_ns=2**62)
        writer.add("fresh", 3)
        writer.add("fresh")
        assert reader.read() == dict.fromkeys(FIELDS, 0) | {
            "ticks": 5,
            "sent_ns": 2**62,
            "fresh": 4,
        }


def test_a_reader_cannot_write(tmp_path):
    StatusBoard(tmp_path / "status", create=True).close()
    with StatusBoard(tmp_path / "status") as reader, pytest.raises(TypeError):
        reader.write(ticks=1)


def test_making_a_board_again_starts_from_zero_and_leaves_old_readers_alone(tmp_path):
    with StatusBoard(tmp_path / "status", create=True) as old:
        old.write(ticks=9)
        with StatusBoard(tmp_path / "status", create=True) as new:
            assert new.read()["ticks"] == 0
            assert old.read()["ticks"] == 9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no status board at .*status .*is the run still starting"),
        (b"", "not a whole status board: 0 bytes, expected at least"),
        (bytes(40), "not a whole status board: 40 bytes"),
        (bytes(4096), "is not a status board of this version"),
    ],
)
def test_a_file_that_is_no_board_is_refused(tmp_path, content, message):
    path = tmp_path / "status"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StatusError, match=message):
        StatusBoard(path)


def test_a_board_that_cannot_be_made(tmp_path):
    with pytest.raises(StatusError, match="cannot make a status board"):
        StatusBoard(tmp_path / "missing" / "status", create=True)


def test_closing_twice(tmp_path):
    board = StatusBoard(tmp_path / "status", create=True)
    board.close()
    board.close()


def record(tick, rung, late_ns):
    action = np.zeros(2, np.float32)
    deadline_ns = tick * 100
    return TickRecord(
        tick=tick,
        deadline_ns=deadline_ns,
        sent_ns=deadline_ns + late_ns,
        mode=Mode.RUN,
        rung=rung,
        reasons=0,
        observation=Observation((), 0),
        requested=action,
        executed=action,
        total_ns=late_ns,
    )


def test_tally(tmp_path):
    with StatusBoard(tmp_path / "status", create=True) as board:
        tally = Tally(board, period_ns=100)
        tally.tick(record(0, Rung.FRESH, 100), taken=True)  # on the next deadline: in time
        tally.tick(record(1, Rung.TAIL, 251), taken=True)  # missed, and it made 2 be skipped
        tally.tick(record(3, Rung.STOP, 60), taken=False)
        tally.episode(success=True)
        tally.episode(success=False)
        tally.mode(Mode.FAULT)
        assert board.read() == {
            "ticks": 3,
            "missed": 2,
            "skipped": 1,
            "fresh": 1,
            "tail": 1,
            "local": 0,
            "hold": 0,
            "stop": 1,
            "human": 0,
            "episodes": 2,
            "successes": 1,
            "dropped": 1,
            "mode": Mode.FAULT,
            "tick": 3,
            "sent_ns": 360,
            "total_ns": 60,
            "finished": 0,
        }
        tally.mode(Mode.STOPPED)
        assert board.read()["finished"] == 1
