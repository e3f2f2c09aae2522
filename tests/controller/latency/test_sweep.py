"""The whole measurement against real sockets: servers in threads, and one in a process."""

import contextlib
import itertools
import json
import threading

import numpy as np
import pytest

from controller.cli import main
from controller.clock import MonotonicClock
from controller.errors import ConfigError, PeerTimeout
from controller.floor import serve_echo_until
from controller.latency.baseline import answered, question, serve_baseline, unpacked
from controller.latency.callers import BaselineCaller, EchoCaller, PolicyCaller
from controller.latency.endpoints import free_tcp_endpoint, resting
from controller.latency.pictures import write_page
from controller.latency.settings import LatencyConfig, Sweep
from controller.latency.sweep import sweep
from controller.spec import ArraySpec, Spec
from controller.testing import FakePolicy, example_spec
from controller.transport import ReplySocket
from policies.serving.server import PolicyServer
from tests.controller.test_report import Page

NUMBER = itertools.count()
SPEC = Spec(
    task="test",
    observation=(
        ArraySpec("position", (3,), low=(1.0, None, -2.0), high=(2.0, None, -1.0)),
        ArraySpec("picture", (2, 2), "uint8"),
    ),
    action=ArraySpec("action", (2,), "float32"),
    rate_hz=100.0,
)


def _no_swap(path, *rest):
    raise AssertionError(f"nobody asked for {path}")


def act(observation):
    return np.zeros((1, 2), np.float32), 1


def in_thread(kind, bench, endpoint, stop):
    if kind == "baseline":
        serve_baseline(endpoint, act, MonotonicClock(), stop)
    else:
        PolicyServer({"policy": FakePolicy()}, endpoint, MonotonicClock(), _no_swap).run(stop)


@contextlib.contextmanager
def serving(target, *arguments):
    stop = threading.Event()
    thread = threading.Thread(target=target, args=(*arguments, stop.is_set))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20.0)


def test_a_sweep_of_threads_and_its_page(tmp_path):
    config = LatencyConfig(
        transports=("inproc",),
        sweeps=(Sweep(rates_hz=(200.0,)), Sweep(clients=(3,))),
        seconds=0.2,
        turns=2,
    )
    steps = []
    report, measured = sweep(
        config,
        lambda bench: ("", example_spec()),
        in_thread,
        lambda done, total: steps.append((done, total)),
    )
    assert steps == [(0, 2), (1, 2), (2, 2)]
    assert [(row.rate_hz, row.clients) for row in report.rows] == [(200, 1), (100, 3)]
    for row, seen in zip(report.rows, measured, strict=True):
        # Each grid is its own: one more or less than rate times seconds in each turn.
        expected = row.rate_hz * row.clients * config.seconds
        assert row.requests == pytest.approx(expected, abs=2 * config.turns * row.clients)
        assert set(seen.samples) == {"policy", "baseline", "echo"}
        assert row.unanswered == 0
        assert 0 < row.p50 <= row.p99 <= row.p99_9 <= row.max + 0.1
        assert (row.version, row.steps, row.transport) == ("fake-1", 1, "inproc")
        assert row.ratio_p50 == pytest.approx(row.baseline_p50 / row.p50, abs=0.01)
    write_page(tmp_path / "page.html", report, measured)
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert len(page.images) == 1 + 2 * 2
    assert all(link.startswith("data:image/") for link in page.links)
    assert [cells[0] for cells in page.rows[1:3]] == ["consistency-1 numpy"] * 2


def test_one_process_cannot_be_several():
    config = LatencyConfig(transports=("inproc",), processes=2)
    with pytest.raises(ConfigError, match="processes: transport inproc"):
        sweep(config, lambda bench: ("", example_spec()), in_thread)


@pytest.mark.slow
def test_the_command_measures_processes_too(tmp_path, capsys):
    words = ["latency", "seconds=0.5", "turns=1", "clients=[2]", "processes=2", "rates_hz=[50]"]
    assert main([*words, f"out={tmp_path}", "transports=[ipc, curve]", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "latency.json").read_text()) == said
    assert [row["transport"] for row in said["rows"]] == ["ipc", "curve"]
    for row in said["rows"]:
        assert row["unanswered"] == 0
        assert row["requests"] == pytest.approx(50, abs=4)
        assert row["steps"] == 1
    assert (tmp_path / "latency.html").stat().st_size > 10_000


def test_a_stopped_server_shows(tmp_path, capsys):
    words = ["latency", "seconds=0.6", "turns=1", "loads=[faulted]", "baseline=false"]
    assert main([*words, "out=null", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    # Stopped once or twice for 50 ms, five periods.
    assert row["max"] > 30_000
    assert row["missed"] >= 3
    assert row["baseline_p50"] is None


def test_resting_observation_is_within_the_limits():
    position, picture = resting(SPEC).arrays
    assert position.tolist() == [1.0, 0.0, -1.0]
    assert (picture.dtype, picture.shape, picture.any()) == (np.uint8, (2, 2), np.False_)


def test_questions_carry_named_arrays_over_msgpack():
    import msgspec

    sent = msgspec.msgpack.decode(question(SPEC.observation, resting(SPEC).arrays))
    assert sent["endpoint"] == "get_action"
    back = {name: unpacked(value) for name, value in sent["data"].items()}
    for spec, array in zip(SPEC.observation, resting(SPEC).arrays, strict=True):
        np.testing.assert_array_equal(back[spec.name], array)
        assert back[spec.name].dtype == array.dtype


def test_callers_take_an_answer_once_and_pass_over_what_they_gave_up():
    endpoint = f"inproc://echo-{next(NUMBER)}"

    def echo(stop):
        serve_echo_until(endpoint, stop)

    with serving(echo), contextlib.closing(EchoCaller(endpoint, SPEC)) as caller:
        caller.connect(5.0)
        assert caller.ask(1)
        assert awaited(caller) == (True, -1, -1, 0, 0)
        assert caller.answer() is None
        caller.ask(2)
        caller.abandon()
        caller.ask(3)
        assert awaited(caller).ok
        assert caller.answer() is None


def awaited(caller):
    clock = MonotonicClock()
    until_ns = clock.now_ns() + 5_000_000_000
    while clock.now_ns() < until_ns:
        found = caller.answer()
        if found is not None:
            return found
        clock.sleep_until(clock.now_ns() + 1_000_000)
    raise AssertionError("no answer")


def test_a_baseline_caller_connects_anew_after_silence():
    endpoint = free_tcp_endpoint()
    with contextlib.closing(ReplySocket(endpoint)) as server:
        caller = BaselineCaller(endpoint, SPEC)
        assert caller.ask(1)
        assert not caller.ask(2), "the last question is still open"
        assert server.receive(5_000_000_000) is not None
        caller.abandon()
        with pytest.raises(PeerTimeout, match=r"no baseline server answered in 0\.1 s"):
            caller.connect(0.1)
        caller.close()
    endpoint = free_tcp_endpoint()  # a closed socket may keep the other for a moment
    with serving(lambda stop: serve_baseline(endpoint, act, MonotonicClock(), stop)):
        caller = BaselineCaller(endpoint, SPEC)
        caller.connect(5.0)
        caller.ask(3)
        found = awaited(caller)
        assert (found.ok, found.queue_ns, found.evaluations, found.batch) == (True, -1, 1, 1)
        caller.close()


def test_answers_carry_actions():
    reply = answered(
        b"\x83\xa6action\x83\xa5dtype\xa3<f4\xa5shape\x91\x01\xa4data\xc4\x04\x00\x00\x80?"
        b"\xa8infer_ns\x05\xabevaluations\x02"
    )
    assert reply["action"].tolist() == [1.0]
    assert (reply["infer_ns"], reply["evaluations"]) == (5, 2)


def test_the_policys_own_times_come_with_its_answer():
    endpoint = f"inproc://policy-{next(NUMBER)}"

    def serve(stop):
        in_thread("policy", None, endpoint, stop)

    caller = PolicyCaller(endpoint, example_spec(), MonotonicClock())
    with serving(serve), contextlib.closing(caller):
        caller.connect(5.0)
        assert caller.ask(1)
        found = awaited(caller)
        assert found.ok
        assert min(found.queue_ns, found.infer_ns) >= 0
        assert found.batch == 1
        offset_ns, error_ns = caller.offset_ns
        assert abs(offset_ns) <= error_ns
