"""What the process in the middle does to answers."""

import numpy as np
import pytest

from controller.array_frames import unpack_chunk
from controller.errors import WireError
from controller.faults.meddling import DELAY_NS, MEDDLES, Meddler
from controller.wire import MAX_FRAME_BYTES, Answer, Welcome, decode, encode
from tests.controller.records import SPEC


def meddler() -> Meddler:
    return Meddler(np.random.default_rng(3), SPEC)


def answer(tick: int = 5) -> list[bytes]:
    actions = np.full((2, 2), 0.25, np.float32)
    frames = encode(Answer(tick, "v1", 1, 0, 0, 2), (actions,))
    return [bytes(frame) for frame in frames]


def sent(name: str, count: int = 1):
    state = meddler()
    return [MEDDLES[name](state, answer(tick)) for tick in range(count)]


def test_delay():
    ((parcel,),) = sent("delay")
    assert parcel.after_ns == DELAY_NS
    assert parcel.frames == answer(0)


def test_reorder_swaps_neighbours():
    first, second, third, fourth = sent("reorder", 4)
    assert first == third == []
    assert [p.frames for p in second] == [answer(1), answer(0)]
    assert [p.frames for p in fourth] == [answer(3), answer(2)]


def test_duplicate():
    (parcels,) = sent("duplicate")
    assert [p.frames for p in parcels] == [answer(0)] * 3
    assert [p.after_ns for p in parcels] == [0, 0, DELAY_NS]


def test_about_every_second_answer_is_lost():
    arrived = sum(bool(parcels) for parcels in sent("lose", 400))
    assert 150 < arrived < 250


def test_garbage_is_no_message():
    for parcels in sent("garbage", 50):
        with pytest.raises(WireError):
            decode(parcels[0].frames)


def test_some_frames_are_over_the_limit():
    sizes = [max(map(len, parcels[0].frames)) for parcels in sent("oversize", 60)]
    assert sum(size > MAX_FRAME_BYTES for size in sizes) in range(1, 20)


@pytest.mark.parametrize(("name", "value"), [("nonfinite", np.nan), ("far_out", 1e6)])
def test_actions_are_replaced(name, value):
    ((parcel,),) = sent(name)
    message, frames = decode(parcel.frames)
    assert message.tick == 0
    actions = unpack_chunk(frames[0], SPEC.action, message.horizon)
    assert np.array_equal(actions, np.full((2, 2), value, np.float32), equal_nan=True)


@pytest.mark.parametrize("name", ["nonfinite", "far_out"])
def test_other_messages_pass_as_they_are(name):
    frames = [bytes(frame) for frame in encode(Welcome(3, b"", "v1", 0, 0))]
    ((parcel,),) = [MEDDLES[name](meddler(), frames)]
    assert parcel.frames == frames
