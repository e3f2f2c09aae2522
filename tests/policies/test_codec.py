"""The codec: selection, scale, limits, and that it survives being stored."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from controller.errors import DataError
from controller.spec import ArraySpec
from policies import codec
from policies.codec import Codec
from tests.policies.robots import SPEC, toy_data


def test_encodes_the_chosen_arrays_to_zero_mean_and_unit_spread():
    data = toy_data()
    fitted = codec.fit(data, SPEC, ["target", "position"])
    assert fitted.arrays == ("position", "target")
    assert fitted.columns.tolist() == [0, 1, 4, 5]
    encoded = fitted.encode_observation(data.observations)
    assert encoded.dtype == np.float32
    assert np.allclose(encoded.mean(0), 0, atol=1e-6)
    assert np.allclose(encoded.std(0), 1, atol=1e-6)


def test_arrays_and_flat_rows_encode_alike():
    data = toy_data(10)
    fitted = codec.fit(data, SPEC)
    row = data.observations[3]
    arrays = [row[0:2], row[2:4], row[4:6]]
    assert np.array_equal(fitted.encode_observation(arrays), fitted.encode_observation(row[None]))


def test_a_constant_element_is_centred_but_not_blown_up():
    data = toy_data()
    data.observations[:, 5] = 7.0
    fitted = codec.fit(data, SPEC)
    assert fitted.scale[5] == 1.0
    shifted = data.observations[:1] + 0.25
    assert fitted.encode_observation(shifted)[0, 5] == np.float32(0.25)


def test_chunks_are_their_actions_row_by_row():
    fitted = codec.fit(toy_data(), SPEC)
    chunk = np.array([[[-2.0, 2.0], [0.0, 1.0], [1.0, -1.0]]] * 2, np.float32)
    encoded = fitted.encode_chunk(chunk)
    assert encoded.tolist() == [[-1.0, 1.0, 0.0, 0.5, 0.5, -0.5]] * 2
    decoded = fitted.decode_chunk(encoded)
    assert decoded.dtype == np.float32
    assert np.array_equal(decoded, chunk)
    beyond = fitted.decode_chunk(3.0 * encoded)
    assert beyond[0].tolist() == [[-2.0, 2.0], [0.0, 2.0], [2.0, -2.0]]


def test_action_limits_map_to_one():
    fitted = codec.fit(toy_data(), SPEC)
    limits = np.array([[-2.0, 2.0]], np.float32)
    assert fitted.encode_action(limits).tolist() == [[-1.0, 1.0]]
    decoded = fitted.decode_action(np.array([[-3.0, 0.5]], np.float32))
    assert decoded.tolist() == [[-2.0, 1.0]]
    assert decoded.dtype == np.float32


def test_an_unbounded_action_takes_the_range_of_the_data():
    free = ArraySpec("force", (2,), "float64", low=(None, -1.0), high=(4.0, None))
    spec = msgspec.structs.replace(SPEC, action=free)
    data = toy_data()
    fitted = codec.fit(data, spec)
    lowest, highest = data.actions[:, 0].min(), data.actions[:, 1].max()
    ends = np.array([[lowest, -1.0], [4.0, highest]])
    assert fitted.encode_action(ends) == pytest.approx(np.array([[-1, -1], [1, 1]]), abs=1e-6)
    # Beyond the data but within no limit: not clipped.
    assert fitted.decode_action(np.array([[-9.0, 9.0]], np.float32))[0, 1] > highest


@given(hnp.arrays(np.float32, (4, 2), elements=st.floats(-2, 2, width=32)))
def test_actions_within_limits_round_trip(actions):
    fitted = codec.fit(toy_data(50), SPEC)
    again = fitted.decode_action(fitted.encode_action(actions))
    assert np.abs(again - actions).max() <= 3e-7


@given(hnp.arrays(np.float32, (3, 2), elements=st.floats(width=32, allow_nan=False)))
def test_decoded_actions_are_always_within_limits(encoded):
    decoded = codec.fit(toy_data(50), SPEC).decode_action(encoded)
    assert (np.abs(decoded) <= 2.0).all()


def test_what_is_not_finite_stays_so():
    fitted = codec.fit(toy_data(), SPEC)
    row = toy_data(1).observations
    row[0, 1] = np.nan
    assert np.isnan(fitted.encode_observation(row)[0, 1])
    assert np.isnan(fitted.decode_action(np.array([[np.nan, 0.0]], np.float32))[0, 0])


def test_stored_and_rebuilt_it_gives_the_same_bits():
    data = toy_data()
    fitted = codec.fit(data, SPEC, ["position"])
    again = Codec.from_arrays(fitted.to_arrays(), fitted.arrays, SPEC)
    assert np.array_equal(
        fitted.encode_observation(data.observations), again.encode_observation(data.observations)
    )
    assert np.array_equal(fitted.decode_action(data.actions), again.decode_action(data.actions))


@pytest.mark.parametrize(("names", "said"), [(["speed"], "speed is not"), ([], "no array is not")])
def test_an_unknown_array_is_refused_with_the_valid_names(names, said):
    with pytest.raises(DataError, match=f"{said}.*valid: position, shadow, target"):
        codec.fit(toy_data(10), SPEC, names)
