"""Lines of metrics: whole, in order, cut to where a run goes on; TensorBoard where it is."""

import json
import sys

import pytest

from policies.metrics import METRICS, Metrics, cut, read_lines


def test_a_line_for_each_call_at_once_on_disk(tmp_path):
    with Metrics(tmp_path / "new" / "run", tensorboard=False) as metrics:
        metrics.write(1, {"loss": 0.5})
        file = tmp_path / "new" / "run" / METRICS
        assert [json.loads(line) for line in file.open()] == [{"step": 1, "loss": 0.5}]
        metrics.write(2, {"loss": 0.25, "norm": 1})
    assert read_lines(file) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "norm": 1}]


def test_lines_after_the_state_are_dropped_and_the_others_stay(tmp_path):
    with Metrics(tmp_path, tensorboard=False) as metrics:
        for step in range(1, 8):
            metrics.write(step, {"loss": float(step)})
    with Metrics(tmp_path, tensorboard=False, until=4) as metrics:
        metrics.write(5, {"loss": -5.0})
    rows = [(line["step"], line["loss"]) for line in read_lines(tmp_path / METRICS)]
    assert rows == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, -5.0)]


def test_without_a_step_to_go_on_from_all_lines_stay(tmp_path):
    for _ in range(2):
        with Metrics(tmp_path, tensorboard=False) as metrics:
            metrics.write(1, {})
    assert len(read_lines(tmp_path / METRICS)) == 2


@pytest.mark.parametrize("tail", [b'{"step":3,"lo', b"\0\0\0\0\n", b"[1]\n", b"\xff\n"])
def test_what_a_kill_left_half_written_is_left_out(tmp_path, tail):
    file = tmp_path / METRICS
    file.write_bytes(b'{"step":1}\n{"step":2}\n' + tail)
    assert [line["step"] for line in read_lines(file)] == [1, 2]
    with Metrics(tmp_path, tensorboard=False, until=2) as metrics:
        metrics.write(3, {})
    assert [json.loads(line)["step"] for line in file.open()] == [1, 2, 3]


def test_cutting_leaves_no_other_file_and_makes_none(tmp_path):
    cut(tmp_path / METRICS, 3)
    assert not list(tmp_path.iterdir())
    (tmp_path / METRICS).write_bytes(b'{"step":5}\n{"version":"v1"}\n')
    cut(tmp_path / METRICS, 3)
    assert [path.name for path in tmp_path.iterdir()] == [METRICS]
    assert read_lines(tmp_path / METRICS) == [{"version": "v1"}]


def test_tensorboard_has_the_same_figures(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Metrics(tmp_path) as metrics:
        for step in (10, 20, 30):
            metrics.write(step, {"loss": 1.0 / step})
    with Metrics(tmp_path, until=20) as metrics:
        metrics.write(30, {"loss": 7.0})
    board = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    shown = {event.step: event.value for event in board.Scalars("loss")}
    assert shown == pytest.approx({10: 0.1, 20: 0.05, 30: 7.0})


def test_where_tensorboard_is_not_installed_the_lines_are_enough(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with Metrics(tmp_path) as metrics:
        metrics.write(1, {"loss": 0.5})
    assert [path.name for path in tmp_path.iterdir()] == [METRICS]
    assert read_lines(tmp_path / METRICS) == [{"step": 1, "loss": 0.5}]
