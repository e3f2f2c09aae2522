import contextlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import wire
from controller.array_frames import require_arrays, unpack, unpack_chunk
from controller.errors import SpecMismatch, WireError
from controller.feed.rows import RowLayout
from controller.replay_messages import MAX_FILES, MAX_NAMES, MAX_ROWS
from controller.spec import ArraySpec, Spec
from controller.spec_coding import decode_spec, encode_spec
from controller.wire import (
    SHORT_BYTES,
    Answer,
    Ask,
    Bye,
    Command,
    Control,
    Draw,
    Drawn,
    Failure,
    Fetch,
    Files,
    Hello,
    Insert,
    Inserted,
    Ping,
    Pong,
    Refusal,
    Reject,
    Report,
    Reset,
    State,
    Steer,
    Steered,
    Welcome,
    decode,
    encode,
    one_line,
)

SPEC = Spec(
    task="test",
    observation=(
        ArraySpec("position", (3,), "float64", "m", low=(None, 0.0, -1.0)),
        ArraySpec("picture", (2, 2, 3), "uint8"),
        ArraySpec("height", (), "float32"),
    ),
    action=ArraySpec("force", (2,), "float32"),
    rate_hz=50.0,
)

LAYOUT = RowLayout.of(SPEC)

counts = st.integers(0, 2**63 - 1)
ticks = st.integers(-1, 2**63 - 1)
times = st.integers(-(2**63), 2**63 - 1)
horizons = st.integers(1, wire.MAX_HORIZON)
names = st.text(max_size=200)
texts = st.text(max_size=300)
floats = st.floats(allow_nan=False)
payload = st.binary(max_size=64)
row_counts = st.integers(0, MAX_ROWS)
MESSAGES = {
    Hello: (
        counts,
        st.sampled_from(["policy", "plant", "teleop", "replay", "control"]),
        names,
        names,
        times,
        names,
    ),
    Welcome: (counts, payload, names, times, times),
    Refusal: (names, texts),
    Ping: (times,),
    Pong: (times, times, times),
    Ask: (counts, counts, counts, counts, times, counts, st.integers(0, wire.MAX_HORIZON)),
    Answer: (counts, names, counts, counts, counts, horizons, counts, counts, counts),
    Reject: (ticks, names, texts),
    State: (counts, counts, times, floats, floats, *[st.booleans()] * 3, ticks, counts, counts),
    Failure: (counts, names, texts),
    Command: (ticks,),
    Reset: (st.none() | counts, counts),
    Steer: (counts,),
    Steered: (ticks, st.integers(0, 255), st.integers(0, 255), counts, names),
    Bye: (),
    Control: (names, st.dictionaries(names, texts, max_size=16)),
    Report: (names, st.booleans(), texts),
    Insert: (names, counts, row_counts, st.lists(names, max_size=8).map(tuple)),
    Inserted: (names, counts, st.integers(0, 60_000), names, texts),
    Draw: (st.integers(0, 1024), row_counts, counts, names),
    Drawn: (
        st.integers(0, 1024),
        row_counts,
        *[counts] * 3,
        names,
        counts,
        st.booleans(),
    ),
    Fetch: (names,),
    Files: (names, st.lists(names, max_size=16).map(tuple)),
}
WITH_ARRAYS = {Ask: 3, State: 3, Answer: 1, Command: 1, Steer: 1, Steered: 1, Insert: 1, Drawn: 1}
messages = st.one_of([st.builds(kind, *fields) for kind, fields in MESSAGES.items()])


@st.composite
def multiparts(draw):
    """A valid message as it leaves the socket: a list of bytes."""
    message = draw(messages)
    arrays = draw(st.lists(payload, min_size=(n := WITH_ARRAYS.get(type(message), 0)), max_size=n))
    return [*map(bytes, encode(message)), *arrays]


@st.composite
def damaged(draw):
    """A valid message with bytes flipped, cut off or put in, and frames added or removed."""
    frames = [bytearray(frame) for frame in draw(multiparts())]
    for _ in range(draw(st.integers(1, 4))):
        frame = frames[draw(st.integers(0, len(frames) - 1))]
        where = draw(st.integers(0, len(frame)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "add", "drop"]))
        if kind == "flip" and frame:
            frame[min(where, len(frame) - 1)] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del frame[where:]
        elif kind == "insert":
            frame[where:where] = draw(st.binary(max_size=8))
        elif kind == "add":
            frames.append(bytearray(draw(payload)))
        elif kind == "drop" and len(frames) > 1:
            frames.pop()
    return [bytes(frame) for frame in frames]


def total(frames):
    """Decode, and say whether it was a message. Anything but a WireError fails the test."""
    try:
        message, arrays = decode(frames)
    except WireError:
        return False
    assert isinstance(message, wire.Message)
    assert len(arrays) == len(frames) - 1
    for specs in (SPEC.observation, (SPEC.action,)):
        try:
            unpack(arrays, specs)
        except WireError:
            continue
    if isinstance(message, (Insert, Drawn)) and arrays:
        count = message.rows if isinstance(message, Insert) else message.batches * message.size
        with contextlib.suppress(WireError):
            assert LAYOUT.unpack(arrays[0], count).shape == (count, LAYOUT.width)
    return True


def test_every_message_is_covered():
    assert set(MESSAGES) == set(wire.Message.__subclasses__())


@given(messages, st.data())
def test_round_trip(message, data):
    count = WITH_ARRAYS.get(type(message), 0)
    arrays = data.draw(st.lists(payload, min_size=count, max_size=count))
    assert decode([*map(bytes, encode(message)), *arrays]) == (message, arrays)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_random_bytes_are_a_message_or_a_wire_error(frames):
    total(frames)


@given(damaged())
def test_damaged_messages_are_a_message_or_a_wire_error(frames):
    total(frames)


def test_layout_on_the_wire():
    """By hand from the msgpack specification: fixarray, fixstr tag, fixints."""
    frames = encode(Ask(1, 2, 3, 4, 5, 6, 7), [np.array([1.0, -2.0])])
    assert bytes(frames[0]) == b"\x98\xa3ask\x01\x02\x03\x04\x05\x06\x07"
    assert bytes(frames[1]) == b"\0\0\0\0\0\0\xf0\x3f" + b"\0\0\0\0\0\0\0\xc0"
    assert encode(Reset(None, 1)) == [b"\x93\xa5reset\xc0\x01"]
    assert encode(Bye()) == [b"\x91\xa3bye"]


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xdd\xff\xff\xff\xff",  # array of 2**32 - 1 elements
        b"\x93\xa5reset\xdd\xff\xff\xff\xff\x01",
        b"\x92\xa7control\xdb\xff\xff\xff\xff",  # text of 4 GiB
        b"\x96\xa7welcome\x01\xc6\xff\xff\xff\xff",  # bytes of 4 GiB
        b"\x93\xa7control\xa1v\xdf\xff\xff\xff\xff",  # map of 2**32 - 1 entries
        b"\x91" * 60000,  # nested 60000 deep
        b"\x92\xa7command" + b"\x91" * 60000,
        b"\x91\xa7unknown",
        b"\x91\xa3bye\x00",  # trailing byte
        b"\x92\xa3bye\x01",  # a field too many
        b"\x91\xa5reset",  # fields missing
        b"\x93\xa7refusal\xa2\xff\xff\xa0",  # text that is not UTF-8
        b"\x92\xa7command\xd3\x80\0\0\0\0\0\0\0",  # tick -2**63
        b"\x93\xa5reset\xc0\xcf\xff\xff\xff\xff\xff\xff\xff\xff",  # episode 2**64 - 1
    ],
)
def test_hostile_headers(header):
    with pytest.raises(WireError):
        decode([header])
    with pytest.raises(WireError):
        decode([header, b"12345678"])


@pytest.mark.parametrize(
    "message",
    [
        Hello(1, "robot", "me", "", 0),
        Hello(1, "plant", "x" * 201, "", 0),
        Ask(-1, 0, 0, 0, 0, 0),
        Ask(0, 0, 0, 0, 0, -1),
        Ask(0, 0, 0, 0, 0, 0, -1),
        Ask(0, 0, 0, 0, 0, 0, wire.MAX_HORIZON + 1),
        Ping(2**63),
        Pong(0, 0, 2**63),
        Hello(3, "policy", "me", "", 0, "x" * 201),
        Answer(0, "v", 1, 0, 0, 1, -1),
        Answer(0, "v", 1, 0, 0, 0),
        Answer(0, "v", 1, 0, 0, wire.MAX_HORIZON + 1),
        Reject(-2, "late", ""),
        Refusal("spec", "x" * (wire.MAX_TEXT + 1)),
        Control("swap", {str(k): "" for k in range(17)}),
        Control("swap", {"bundle": 3}),
        State(0, 0, 0, 0.0, 0.0, 1, False, False, -1),
        Insert("arm", -1, 0),
        Insert("arm", 0, MAX_ROWS + 1),
        Insert("x" * 201, 0, 0),
        Insert("arm", 0, 1, ("v",) * (MAX_NAMES + 1)),
        Inserted("arm", 0, 60_001, "", ""),
        Inserted("arm", 0, 0, "", "x" * (wire.MAX_TEXT + 1)),
        Draw(1025, 1, 0, ""),
        Draw(1, -1, 0, ""),
        Drawn(1, MAX_ROWS + 1, 0, 0, 0, "", 0, False),
        Files("v", ("f",) * (MAX_FILES + 1)),
    ],
)
def test_values_out_of_range_are_refused(message):
    frames = [*map(bytes, encode(message)), *[b"x"] * WITH_ARRAYS.get(type(message), 0)]
    with pytest.raises(WireError):
        decode(frames)


def test_number_of_frames():
    header = bytes(encode(Ask(0, 0, 0, 0, 0, 0, 3))[0])
    assert decode([header, *[b""] * (wire.MAX_ARRAYS + 1)])  # the last is the prefix
    for arrays in (0, wire.MAX_ARRAYS + 2):
        with pytest.raises(WireError, match=r"array|frames"):
            decode([header, *[b""] * arrays])
    with pytest.raises(WireError, match="Command with 2 arrays, expected 1 to 1"):
        decode([*map(bytes, encode(Command(0))), b"", b""])
    with pytest.raises(WireError, match="Insert with 0 arrays, expected 1 to 1"):
        decode([*map(bytes, encode(Insert("arm", 0, 0)))])
    assert decode([*map(bytes, encode(Drawn(0, 8, 0, 0, 0, "", 0, False)))])
    with pytest.raises(WireError, match=f"expected 0 to {MAX_FILES}"):
        decode([*map(bytes, encode(Files("v", ()))), *[b""] * (MAX_FILES + 1)])
    with pytest.raises(WireError, match="Bye with 1 arrays"):
        decode([*map(bytes, encode(Bye())), b""])
    with pytest.raises(WireError, match="0 frames"):
        decode([])


def test_header_length_is_capped_both_ways():
    with pytest.raises(WireError, match=r"header has .* at most 65536"):
        encode(Report("stats", True, "x" * wire.MAX_HEADER_BYTES))
    with pytest.raises(WireError, match="at most 65536"):
        decode([b"\x91" * (wire.MAX_HEADER_BYTES + 1)])
    with pytest.raises(WireError, match="Refusal cannot be encoded"):
        encode(Refusal("failed", "\ud800"))


@given(st.data())
def test_arrays_come_back_bit_for_bit(data):
    arrays = [
        np.frombuffer(data.draw(st.binary(min_size=s.nbytes, max_size=s.nbytes)), s.dtype)
        .reshape(s.shape)
        .copy()
        for s in SPEC.observation
    ]
    frames = [bytes(frame) for frame in encode(Ask(0, 0, 0, 0, 0, 0), arrays)]
    for back, array, spec in zip(
        unpack(frames[1:], SPEC.observation), arrays, SPEC.observation, strict=True
    ):
        assert (back.shape, back.dtype) == (spec.shape, np.dtype(spec.dtype))
        assert back.tobytes() == array.tobytes()
        assert not back.flags.writeable


def test_arrays_that_are_not_contiguous_are_sent_in_c_order():
    array = np.arange(6.0).reshape(2, 3)
    (frame,) = encode(Command(0), [array.T])[1:]
    assert np.frombuffer(frame).tolist() == [0, 3, 1, 4, 2, 5]
    assert np.frombuffer(encode(Command(0), [array])[1]).tolist() == list(range(6))


def test_long_arrays_are_sent_without_copying():
    array = np.arange(SHORT_BYTES // 8 + 1.0)
    (frame,) = encode(Command(0), [array])[1:]
    assert np.shares_memory(np.frombuffer(frame), array)
    turned = array[::-1]
    (frame,) = encode(Command(0), [turned])[1:]
    assert np.frombuffer(frame).tolist() == turned.tolist()


def test_unpacking_copies_nothing():
    frame = np.arange(3.0).tobytes()
    (array,) = unpack([frame], SPEC.observation[:1])
    assert np.shares_memory(array, np.frombuffer(frame, np.uint8))


@pytest.mark.parametrize("lengths", [(24, 12), (24, 12, 4, 4), (24, 12, 3), (23, 12, 4), (0, 0, 0)])
def test_wrong_number_or_length_of_frames(lengths):
    with pytest.raises(WireError):
        unpack([bytes(length) for length in lengths], SPEC.observation)
    assert len(unpack([bytes(24), bytes(12), bytes(4)], SPEC.observation)) == 3


def test_chunks():
    actions = np.arange(6, dtype=np.float32).reshape(3, 2)
    chunk = unpack_chunk(actions.tobytes(), SPEC.action, 3)
    assert np.array_equal(chunk, actions)
    assert not chunk.flags.writeable
    for horizon in (1, 2, 4, wire.MAX_HORIZON):
        with pytest.raises(WireError, match="force has 24 bytes"):
            unpack_chunk(actions.tobytes(), SPEC.action, horizon)


def test_rows_travel():
    rows = np.arange(2 * LAYOUT.width, dtype=np.float32).reshape(2, -1)
    header, frame = map(bytes, encode(Insert("arm", 3, 2, ("v1",)), (rows,)))
    assert header == b"\x95\xa6insert\xa3arm\x03\x02\x91\xa2v1"
    back = LAYOUT.unpack(frame, 2)
    assert np.array_equal(back, rows)
    assert not back.flags.writeable
    for count in (0, 1, 3, MAX_ROWS):
        with pytest.raises(WireError, match=f"{len(frame)} bytes of rows"):
            LAYOUT.unpack(frame, count)
    assert LAYOUT.unpack(b"", 0).shape == (0, LAYOUT.width)


def test_the_columns_of_a_row():
    """By hand: position 3, picture 12, height 1; force 2, twice; eight numbers."""
    assert (LAYOUT.observation, LAYOUT.action, LAYOUT.width) == (16, 2, 44)
    row = np.arange(44, dtype=np.float32).reshape(1, -1)
    named = LAYOUT.split(row)
    assert named["observation"][0].tolist() == list(range(16))
    assert named["action"][0].tolist() == [16, 17]
    assert (named["reward"][0], named["version"][0], named["success"][0]) == (18, 23, 25)
    assert named["next_observation"][0].tolist() == list(range(26, 42))
    assert named["acted"][0].tolist() == [42, 43]
    assert all(np.shares_memory(view, row) for view in named.values())


def test_a_spec_travels():
    assert decode_spec(encode_spec(SPEC)) == SPEC


@given(st.binary(max_size=200) | st.integers(0, 400).map(lambda n: encode_spec(SPEC)[:n]))
def test_any_bytes_are_a_spec_or_a_wire_error(data):
    with contextlib.suppress(WireError):
        assert isinstance(decode_spec(data), Spec)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"rate_hz": 0.0}, "rate"),
        ({"rate_hz": float("nan")}, "rate"),
        ({"observation": ()}, "0 arrays"),
        ({"observation": SPEC.observation * 22}, "66 arrays"),
        ({"action": ArraySpec("a", (0,))}, "out of range"),
        ({"action": ArraySpec("a", (-1, -1))}, "out of range"),
        ({"action": ArraySpec("a", (2**62, 2**62))}, "out of range"),
        ({"action": ArraySpec("a", (1,) * 17)}, "out of range"),
        ({"action": ArraySpec("a", (2**12, 2**12))}, "bytes, at most"),
        ({"task": "x" * 61440}, "fit a welcome"),
    ],
)
def test_specs_that_do_not_fit_the_wire(changes, match):
    odd = msgspec.structs.replace(SPEC, **changes)
    with pytest.raises(WireError, match=match):
        encode_spec(odd)


def test_arrays_must_be_the_spec_s():
    good = (np.zeros(3), np.zeros((2, 2, 3), np.uint8), np.zeros((), np.float32))
    require_arrays(good, SPEC.observation)
    with pytest.raises(SpecMismatch, match="2 arrays, expected 3"):
        require_arrays(good[:2], SPEC.observation)
    with pytest.raises(SpecMismatch, match=r"position is \[3\] float32, expected \[3\] float64"):
        require_arrays((np.zeros(3, np.float32), *good[1:]), SPEC.observation)
    with pytest.raises(SpecMismatch, match=r"picture is \[3, 2, 2\] uint8"):
        require_arrays((good[0], good[1].T, good[2]), SPEC.observation)


def test_details_fit_their_field():
    assert one_line("a\n  b\tc") == "a b c"
    assert one_line("\ud800") == "?"
    long = one_line("x" * 10_000)
    assert len(long) == wire.MAX_TEXT
    assert decode([*map(bytes, encode(Refusal("failed", long)))])


@given(st.builds(State, *MESSAGES[State]))
def test_a_state_is_an_observation_and_back(state):
    arrays = (np.arange(3.0),)
    observation = state.observation(arrays)
    assert observation.arrays is arrays
    assert State.of(observation, observation.stamp_ns) == state
