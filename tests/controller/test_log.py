from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mcap.reader import make_reader
from mcap.writer import Writer
from mcap_protobuf.decoder import DecoderFactory

from controller import log_messages, log_writer
from controller.errors import LogError
from controller.experience import cuts, links
from controller.feed.rows import RowKind
from controller.log import McapSink
from controller.log_reader import read_log
from controller.log_schema import Event
from controller.spec import ArraySpec, Spec
from controller.types import Mode, Observation, Reason, Rung, TickRecord
from tests.controller.records import PERIOD_NS, SPEC, arrays, assert_same, header, tick, written


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.mcap"


INT64 = st.integers(-(2**63), 2**63 - 1)
REALS = st.floats(width=64)


@st.composite
def observations(draw):
    return Observation(
        arrays=tuple(draw(hnp.arrays(a.dtype, a.shape)) for a in SPEC.observation),
        stamp_ns=draw(INT64),
        episode=draw(INT64),
        step=draw(INT64),
        reward=draw(REALS),
        episode_return=draw(REALS),
        terminated=draw(st.booleans()),
        truncated=draw(st.booleans()),
        success=draw(st.booleans()),
        applied_tick=draw(INT64),
        late_ns=draw(INT64),
        late_steps=draw(INT64),
    )


@st.composite
def ticks(draw):
    numbers = [
        "tick", "answer_tick", "evaluations", "wake_ns", "observe_ns", "transport_ns",
        "queue_ns", "infer_ns", "act_ns", "total_ns",
    ]  # fmt: skip
    return TickRecord(
        deadline_ns=draw(INT64),
        sent_ns=draw(st.integers(0, 2**62)),
        mode=draw(st.sampled_from(Mode)),
        rung=draw(st.sampled_from(Rung)),
        reasons=draw(st.integers(0, 2047)),
        observation=draw(observations()),
        requested=draw(hnp.arrays(np.float32, (2,))),
        executed=draw(hnp.arrays(np.float32, (2,))),
        version=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=20)),
        **{name: draw(INT64) for name in numbers},
    )


@settings(max_examples=60, deadline=None)
@given(records=st.lists(ticks(), min_size=1, max_size=3))
def test_what_is_written_is_read_bit_for_bit(tmp_path_factory, records):
    log = written(tmp_path_factory.mktemp("log") / "log.mcap", records)
    assert not log.truncated
    for got, expected in zip(log.records(), records, strict=True):
        assert_same(got, expected)


def test_a_log_from_before_plants_told_their_lateness_reads_as_punctual(path, monkeypatch):
    uncached = log_messages.messages_for.__wrapped__
    with monkeypatch.context() as before:
        for module in (log_messages, log_writer):
            before.setattr(module, "OBSERVATION_LATENESS", ())
            before.setattr(module, "messages_for", uncached)
        sink = McapSink(path, header())
        assert all(sink.tick(tick(number)) for number in range(3))
        sink.close()
    log = read_log(path)
    assert not log.truncated
    assert log.late_ns.tolist() == log.late_steps.tolist() == [0, 0, 0]
    assert_same(log.record(2), tick(2))


def test_columns_have_the_dtype_and_shape_of_the_spec(path):
    log = written(path, [tick(n) for n in range(5)])
    for array in SPEC.observation:
        column = log.observations[array.name]
        assert (column.dtype, column.shape) == (np.dtype(array.dtype), (5, *array.shape))
    assert log.executed.dtype == np.float32
    assert log.tick.tolist() == [0, 1, 2, 3, 4]
    assert log.stages["transport"].tolist() == [300_000] * 5
    assert log.header.spec == SPEC
    assert log.header.created


def test_events_come_back_in_order(path):
    sink = McapSink(path, header())
    sink.event(5, "mode", "HOLD -> RUN")
    sink.tick(tick(0))
    sink.event(9, "note", "größer")
    sink.event(10, "bundle", "v2 runs/some where/v2")
    sink.close()
    log = read_log(path)
    assert log.events[:2] == (Event(5, "mode", "HOLD -> RUN"), Event(9, "note", "größer"))
    assert log.bundles == {"v2": "runs/some where/v2"}


def test_a_closed_sink_takes_nothing_and_closes_twice(path):
    sink = McapSink(path, header())
    sink.close()
    sink.close()
    assert not sink.tick(tick(0))
    assert not sink.event(0, "late")
    assert len(read_log(path)) == 0


def test_an_observation_of_another_shape_is_refused(path):
    sink = McapSink(path, header())
    with pytest.raises(ValueError, match="velocity has 3 elements, expected 2"):
        sink.tick(tick(0, requested=np.zeros(3, np.float32)))
    sink.close()


def test_other_programs_decode_the_messages_without_our_code(path):
    record = tick(3, reasons=int(Reason.LATE | Reason.SLEW), rung=Rung.TAIL)
    sink = McapSink(path, header())
    sink.tick(record)
    sink.event(4, "note", "hello")
    sink.close()
    with open(path, "rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        found = {
            channel.topic: (message, decoded)
            for _, channel, message, decoded in reader.iter_decoded_messages()
        }
        assert reader.get_summary().statistics.message_count == 2
    message, decoded = found["/tick"]
    assert message.log_time == record.sent_ns
    assert list(decoded.observation.position) == record.observation.arrays[0].tolist()
    assert list(decoded.observation.joint_angles) == record.observation.arrays[1].tolist()
    assert decoded.observation.image == record.observation.arrays[2].tobytes()
    assert list(decoded.executed) == record.executed.tolist()
    enum = decoded.DESCRIPTOR.file.enum_types_by_name
    assert enum["Rung"].values_by_number[decoded.rung].name == "RUNG_TAIL"
    reasons = {enum["Reason"].values_by_number[bit].name for bit in decoded.reasons}
    assert reasons == {"REASON_LATE", "REASON_SLEW"}
    assert found["/event"][1].detail == "hello"


def test_real_time_logs_carry_wall_clock_time(path):
    about = header(mode="realtime", created="2024-01-01T00:00:00+00:00", wall_offset_ns=10**18)
    written(path, [tick(3)], about)
    with open(path, "rb") as stream:
        (_, _, message), *_ = make_reader(stream).iter_messages()
    assert message.log_time == 10**18 + 3 * PERIOD_NS + 2_000_000


@pytest.mark.parametrize("name", ["step", "a/b", "9lives", "", "_x"])
def test_array_names_that_are_no_field_names_are_kept(path, name):
    spec = Spec(
        "odd",
        (ArraySpec(name, (1,)), ArraySpec("a_b", (1,)), ArraySpec("a.b", (1,))),
        ArraySpec("u", (1,)),
        50.0,
    )
    record = TickRecord(
        0, 0, 0, Mode.RUN, Rung.FRESH, 0,
        Observation((np.array([1.0]), np.array([2.0]), np.array([3.0])), 0),
        np.zeros(1), np.zeros(1),
    )  # fmt: skip
    log = written(path, [record], header(spec=spec))
    assert {key: column.item() for key, column in log.observations.items()} == {
        name: 1.0,
        "a_b": 2.0,
        "a.b": 3.0,
    }


KILLED = """
    import os, signal, sys
    from controller.log import McapSink
    from tests.controller.records import header, tick

    sink = McapSink(sys.argv[1], header())
    for number in range(int(sys.argv[2])):
        sink.tick(tick(number))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_loses_nothing_it_had_written(path):
    words = [sys.executable, "-c", textwrap.dedent(KILLED), str(path), "137"]
    assert subprocess.run(words, timeout=60, check=False).returncode == -9
    log = read_log(path)
    assert log.truncated
    assert log.damage == "it was not finished: it ends after 137 ticks"
    assert log.tick.tolist() == list(range(137))
    assert_same(log.record(136), tick(136))


def test_a_log_cut_anywhere_gives_the_ticks_before_the_cut(path):
    sizes = []
    sink = McapSink(path, header())
    for number in range(12):
        sizes.append(path.stat().st_size)
        sink.tick(tick(number))
    begun, written_bytes = sizes[0], path.stat().st_size
    sink.close()
    whole = path.read_bytes()
    sizes.append(written_bytes)
    cut = path.with_name("cut.mcap")
    for length in [*range(0, begun, 97), *range(begun, len(whole), 23), *sizes, len(whole) - 1]:
        cut.write_bytes(whole[:length])
        if length < begun:
            with pytest.raises(LogError, match=r"cut\.mcap"):
                read_log(cut)
            continue
        log = read_log(cut)
        expected = sum(size <= length for size in sizes[1:])
        assert log.truncated
        assert log.tick.tolist() == list(range(expected)), length
    assert not read_log(path).truncated


def test_a_log_can_be_read_while_it_is_written(path):
    sink = McapSink(path, header())
    sink.tick(tick(0))
    first = read_log(path)
    sink.tick(tick(1))
    assert (len(first), len(read_log(path))) == (1, 2)
    sink.close()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_never_raises_anything_but_log_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "flipped.mcap"
    original = _six_ticks(tmp_path_factory)
    spoilt = bytearray(original)
    position = data.draw(st.integers(0, len(spoilt) - 1))
    spoilt[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(spoilt)
    try:
        log = read_log(path)
    except LogError as error:
        complaint = str(error)
    else:
        assert len(list(log.records())) <= 6
        log.transitions()
        complaint = "flipped.mcap"
    assert "flipped.mcap" in complaint
    assert "\n" not in complaint


def test_a_changed_number_is_found_by_the_checksum(path):
    written(path, [tick(n) for n in range(3)])
    spoilt = path.read_bytes().replace(tick(1).executed.tobytes(), tick(2).executed.tobytes())
    path.write_bytes(spoilt)
    log = read_log(path)
    assert log.truncated
    assert "checksum" in log.damage
    assert len(log) == 3


_WHOLE: list[bytes] = []


def _six_ticks(tmp_path_factory) -> bytes:
    if not _WHOLE:
        path = tmp_path_factory.mktemp("whole") / "log.mcap"
        written(path, [tick(n) for n in range(6)])
        _WHOLE.append(path.read_bytes())
    return _WHOLE[0]


def _foreign(path):
    with open(path, "wb") as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema("x", "jsonschema", b"{}")
        channel = writer.register_channel("/x", "json", schema)
        writer.add_message(channel, 1, b"{}", 1)
        writer.finish()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "directory"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "not an MCAP file"),
        (lambda path: path.write_bytes(b"\x89MC"), "ends within its header"),
        (_foreign, "not the log of a run"),
    ],
)
def test_what_is_no_log_is_named_in_one_line(path, make, expected):
    make(path)
    with pytest.raises(LogError, match=expected) as caught:
        read_log(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"format": 2}', "log format 2, this version reads up to 1"),
        ('{"format": 1}', "damaged header: Object missing required field `spec`"),
        ("nonsense", "damaged header"),
    ],
)
def test_headers_of_other_versions_are_refused(path, text, expected):
    with open(path, "wb") as stream:
        writer = Writer(stream, use_chunking=False)
        writer.start()
        writer.add_metadata("onebeat", {"header": text})
        writer.finish()
    with pytest.raises(LogError, match=expected):
        read_log(path)


def test_a_path_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LogError, match=r"cannot write the log .*file/log\.mcap"):
        McapSink(tmp_path / "file" / "log.mcap", header())


def test_a_header_survives_with_all_its_settings(path):
    about = header(
        slew_per_s=2.5,
        safe_action=(0.1, 1 / 3),
        bundles={"v1": "a"},
        config={"loop": {"rate_hz": None, "names": ["a"]}},
    )
    log = written(path, [], about)
    changed = msgspec.structs.replace(log.header, created="", run="")
    assert changed == about


# Transitions


def rows(**columns):
    length = len(columns["tick"])
    full = {
        "running": np.ones(length, bool),
        "episode": np.zeros(length, int),
        "step": np.arange(length),
        "done": np.zeros(length, bool),
        "finite": np.ones(length, bool),
    }
    full |= {name: np.array(values) for name, values in columns.items()}
    leads, broken = links(**full)
    got = np.flatnonzero(leads)
    return got.tolist(), cuts(got, broken).tolist()


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"tick": []}, ([], [])),
        ({"tick": [4]}, ([], [])),
        ({"tick": [0, 1, 2, 3]}, ([0, 1, 2], [False, False, True])),
        # A skipped period.
        ({"tick": [0, 1, 3, 4]}, ([0, 2], [True, True])),
        # The loop was on hold at the second tick: its own command is not the policy's.
        ({"tick": [0, 1, 2, 3], "running": [1, 0, 1, 1]}, ([0, 2], [True, True])),
        # A new episode.
        ({"tick": [0, 1, 2, 3], "episode": [0, 0, 1, 1]}, ([0, 2], [True, True])),
        # The final observation is seen twice before the next episode.
        (
            {
                "tick": [0, 1, 2, 3, 4],
                "step": [7, 8, 8, 0, 1],
                "done": [0, 1, 1, 0, 0],
                "episode": [0, 0, 0, 1, 1],
            },
            ([0, 3], [True, True]),
        ),
        # One observation at two ticks: the first of them gives no row, and nothing is cut.
        ({"tick": [0, 1, 2, 3], "step": [0, 1, 1, 2]}, ([0, 2], [False, True])),
        # Two plant steps in one period.
        ({"tick": [0, 1, 2], "step": [0, 2, 3]}, ([0, 1], [False, True])),
        # The plant went back without a new episode.
        ({"tick": [0, 1, 2, 3], "step": [5, 6, 0, 1]}, ([0, 2], [True, True])),
        ({"tick": [0, 1, 2, 3], "finite": [1, 0, 1, 1]}, ([2], [True])),
    ],
)
def test_which_ticks_lead_to_the_next(columns, expected):
    typed = {
        name: np.array(values, bool if name in ("running", "done", "finite") else int)
        for name, values in columns.items()
    }
    assert rows(**typed) == expected


def test_transitions_hold_executed_actions_and_own_successors(path):
    records = [tick(n) for n in range(4)]
    data = written(path, records).transitions().validate("log")
    flat = [np.concatenate([a.reshape(-1) for a in r.observation.arrays]) for r in records]
    assert data.observations.dtype == np.float64
    np.testing.assert_array_equal(data.observations, flat[:3])
    np.testing.assert_array_equal(data.next_observations, flat[1:])
    np.testing.assert_array_equal(data.actions, [r.executed for r in records[:3]])
    assert data.actions.dtype == np.float32
    assert data.layout == (("position", 2), ("joint/angles", 3), ("image", 4))
    assert data.info["applied"].all()
    assert data.task == "synthetic"


def test_rewards_terminals_and_timeouts(path):
    records = [
        tick(0, step=0, reward=0.0, episode_return=0.0),
        tick(1, step=1, reward=0.5, episode_return=0.5),
        # Two plant steps since: 0.25 and 0.5.
        tick(2, step=3, reward=0.5, episode_return=1.25),
        tick(3, step=4, reward=2.0, episode_return=3.25, terminated=True, mode=Mode.HOLD),
        tick(4, episode=1, step=0, reward=0.0, episode_return=0.0),
        tick(5, episode=1, step=1, reward=1.0, episode_return=1.0, truncated=True),
    ]
    data = written(path, records).transitions().validate("log")
    assert data.info["tick"].tolist() == [0, 1, 2, 4]
    assert data.rewards.tolist() == [0.5, 0.75, 2.0, 1.0]
    assert data.info["steps"].tolist() == [1, 2, 1, 1]
    assert data.terminals.tolist() == [False, False, True, False]
    assert data.timeouts.tolist() == [False, False, False, True]
    assert data.returns().tolist() == [3.25, 1.0]
    assert data.info["episode"].tolist() == [0, 0, 0, 1]


def test_a_step_that_is_terminal_and_out_of_time_is_terminal(path):
    data = written(path, [tick(0), tick(1, terminated=True, truncated=True)]).transitions()
    assert (data.terminals.tolist(), data.timeouts.tolist()) == ([True], [False])


def test_who_acted_is_told(path):
    records = [
        tick(0),
        tick(1, rung=Rung.HOLD, version="", answer_tick=-1, reasons=int(Reason.LATE)),
        tick(2, rung=Rung.LOCAL),
        tick(3, requested=np.array([np.nan, 0], np.float32), reasons=int(Reason.NONFINITE)),
        tick(4, applied_tick=2, version="v2", reasons=int(Reason.EXPLORED | Reason.LIMIT)),
        tick(5, version="v2", reasons=int(Reason.EXPLORED | Reason.LIMIT)),
        tick(6, rung=Rung.HUMAN, version="", reasons=int(Reason.EXPLORED)),
        tick(7, rung=Rung.HUMAN, version=""),
        tick(8, rung=Rung.STOP, version="", applied_tick=5, mode=Mode.FAULT),
    ]
    executed = [np.full(2, number, np.float32) for number in range(9)]
    records = [replace(r, executed=e) for r, e in zip(records, executed, strict=True)]
    log = written(path, records)
    data = log.transitions()
    assert [RowKind(kind).name for kind in data.info["kind"]] == [
        "POLICY", "FALLBACK", "POLICY", "FALLBACK", "EXPLORED", "EXPLORED", "HUMAN", "HUMAN",
    ]  # fmt: skip
    assert data.info["rung"].tolist() == [0, 3, 2, 0, 0, 0, 5, 5]
    assert data.info["applied"].tolist() == [True, True, True, False, True, True, True, False]
    assert data.info["acted"][:, 0].tolist() == [0, 1, 2, 2, 4, 5, 6, 5]
    assert log.policy_versions == ("v1", "", "v2")
    assert data.info["version"].tolist() == [0, 1, 0, 0, 2, 2, 1, 1]


def test_rows_tell_how_their_episode_ended(path):
    records = [
        tick(0, reward=0.0, episode_return=0.0),
        tick(1, reward=1.0, episode_return=1.0),
        tick(2, reward=2.0, episode_return=3.0, terminated=True, success=True, mode=Mode.HOLD),
        tick(3, episode=1, step=0, reward=0.0, episode_return=0.0),
        tick(4, episode=1, step=1, reward=5.0, episode_return=5.0),
    ]
    data = written(path, records).transitions()
    assert data.info["over"].tolist() == [False, True, False]
    assert data.info["success"].tolist() == [False, True, False]
    assert data.info["episode_return"].tolist() == [1.0, 3.0, 5.0]
    assert data.timeouts.tolist() == [False, False, True]


@pytest.mark.parametrize(
    "changes",
    [
        {"reward": np.nan},
        {"episode_return": np.inf},
        {"arrays": (np.array([0.0, 1e39]), *arrays(1)[1:])},
    ],
)
def test_a_tick_of_numbers_that_cannot_be_learned_from_gives_no_row(path, changes):
    data = written(path, [tick(0), tick(1), tick(2, **changes), tick(3), tick(4)]).transitions()
    assert data.info["tick"].tolist() == [0, 3]
    assert data.timeouts.tolist() == [True, True]


def test_a_log_without_ticks_gives_no_transitions(path):
    data = written(path, []).transitions()
    assert len(data) == 0
    assert data.observations.shape == (0, 9)
