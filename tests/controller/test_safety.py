import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import ConfigError
from controller.safety import Limits, SafetyFilter, filter_action, fits, is_finite
from controller.spec import ArraySpec, Spec
from controller.types import Reason


def robot(low=(-1.0, -2.0), high=(1.0, 2.0), dtype="float32", shape=(2,), rate_hz=100.0):
    return Spec("robot", (), ArraySpec("torque", shape, dtype, "Nm", low, high), rate_hz)


def f32(*values):
    return np.array(values, np.float32)


def same(a, b):
    return a.dtype == b.dtype and np.array_equal(a, b)


CASES = [
    # requested, previous, slew per s, executed, reasons
    ((0.5, -0.5), (0.0, 0.0), None, (0.5, -0.5), Reason.NONE),
    ((1.5, -3.0), (0.0, 0.0), None, (1.0, -2.0), Reason.LIMIT),
    ((0.5, -0.5), (0.0, 0.0), 25.0, (0.25, -0.25), Reason.SLEW),
    ((0.25, 0.0), (0.0, 0.0), 25.0, (0.25, 0.0), Reason.NONE),
    ((9.0, 0.0), (0.75, 0.0), 12.5, (0.875, 0.0), Reason.LIMIT | Reason.SLEW),
    ((9.0, 0.0), (0.875, 0.0), 12.5, (1.0, 0.0), Reason.LIMIT),
    ((np.nan, 0.0), (1.0, 1.0), 25.0, (0.0, 0.0), Reason.NONFINITE),
    ((0.0, -np.inf), (1.0, 1.0), None, (0.0, 0.0), Reason.NONFINITE),
]


@pytest.mark.parametrize(("requested", "previous", "slew", "executed", "reasons"), CASES)
def test_filter(requested, previous, slew, executed, reasons):
    limits = Limits.of(robot(), slew_per_s=slew)
    got, why = filter_action(f32(*requested), f32(*previous), limits)
    assert same(got, f32(*executed))
    assert why == reasons


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ((), (), (0.0, 0.0)),
        ((0.5, -1.0), (2.0, -0.5), (0.5, -0.5)),
        ((None, 0.25), (None, None), (0.0, 0.25)),
    ],
)
def test_the_default_safe_command_is_zero_within_the_limits(low, high, expected):
    assert same(Limits.of(robot(low, high)).safe, f32(*expected))


def test_a_declared_safe_command_is_taken_as_it_is():
    spec = robot((-1.0,) * 4, (1.0,) * 4, shape=(2, 2))
    safe = Limits.of(spec, safe_action=(0.1, 0.2, 0.3, 0.4)).safe
    assert same(safe, np.array([[0.1, 0.2], [0.3, 0.4]], np.float32))
    assert not safe.flags.writeable


@pytest.mark.parametrize(
    ("safe", "message"),
    [
        ((0.0,), "safe_action has 1 elements, expected 2"),
        ((0.0, 2.5), r"leaves the limits of torque: expected \[-1.0, -2.0\] to \[1.0, 2.0\]"),
        ((0.0, float("nan")), "is not finite"),
    ],
)
def test_a_safe_command_that_does_not_fit_is_refused(safe, message):
    with pytest.raises(ConfigError, match=message):
        Limits.of(robot(), safe_action=safe)


def test_rounding_to_the_dtype_never_widens_a_limit():
    # float32(0.1) > 0.1 and float32(-0.1) < -0.1.
    spec = robot((-0.1, -0.1), (0.1, 0.1))
    executed, _ = filter_action(f32(1.0, -1.0), f32(0.0, 0.0), Limits.of(spec))
    assert float(executed[0]) <= 0.1 < float(np.nextafter(executed[0], np.float32(1)))
    assert float(executed[1]) >= -0.1 > float(np.nextafter(executed[1], np.float32(-1)))


def test_integer_actions():
    spec = robot((1.5, 0.0), (200.5, None), "uint8")
    limits = Limits.of(spec, slew_per_s=250.0)
    executed, why = filter_action(
        np.array([255, 0], np.uint8), np.array([199, 1], np.uint8), limits
    )
    assert same(executed, np.array([200, 0], np.uint8))
    assert why == Reason.LIMIT
    executed, why = filter_action(
        np.array([2, 255], np.uint8), np.array([10, 250], np.uint8), limits
    )
    assert same(executed, np.array([8, 252], np.uint8))
    assert why == Reason.SLEW


finite = st.floats(-1e6, 1e6, width=32)
pair = st.tuples(finite, finite)
wild = st.tuples(st.floats(width=32), st.floats(width=32))


@given(wild, pair, st.none() | st.floats(0.01, 1e3))
def test_whatever_is_requested_the_command_is_within_limits_and_not_too_fast(raw, before, slew):
    limits = Limits.of(robot(), slew_per_s=slew)
    requested = f32(*raw)
    previous, _ = filter_action(f32(*before), limits.safe, Limits.of(robot()))
    executed, why = filter_action(requested, previous, limits)
    assert same(executed, filter_action(requested, previous, limits)[0])
    assert executed.dtype == np.float32
    assert executed.shape == (2,)
    assert ((executed >= limits.low) & (executed <= limits.high)).all()
    if why & Reason.NONFINITE:
        assert same(executed, limits.safe)
    elif slew is not None:
        change = np.abs(executed.astype(np.float64) - previous)
        assert (change <= slew * 0.01 * (1 + 1e-6) + 1e-6).all()
    assert bool(why) == (not np.array_equal(executed, requested))


def test_the_filter_slews_from_the_command_before():
    safety = SafetyFilter(robot(), slew_per_s=25.0)
    sent = [safety.apply(f32(1.0, 0.0))[0][0] for _ in range(3)]
    assert sent == [0.25, 0.5, 0.75]
    assert same(safety.hold(), f32(0.0, 0.0))
    assert safety.apply(f32(1.0, 0.0))[0][0] == 0.25


def test_the_slew_limit_counts_in_periods_of_the_loop():
    limits = Limits.of(robot(rate_hz=100.0), slew_per_s=25.0, period_ns=20_000_000)
    assert limits.step == pytest.approx(0.5)


def test_commands_are_read_only():
    safety = SafetyFilter(robot())
    requested = f32(0.5, 0.5)
    executed, _ = safety.apply(requested)
    assert not executed.flags.writeable
    assert requested.flags.writeable


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        (np.zeros((1, 2), np.float32), True),
        (np.zeros((8, 2), np.float32), True),
        (np.zeros((0, 2), np.float32), False),
        (np.zeros((1, 3), np.float32), False),
        (np.zeros(2, np.float32), False),
        (np.zeros((1, 2), np.float64), False),
        (np.zeros((1, 1, 2), np.float32), False),
    ],
)
def test_shape_of_a_chunk(actions, expected):
    assert fits(actions, robot().action) is expected


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (f32(1.0, 2.0), True),
        (f32(1.0, np.nan), False),
        (np.array([np.inf]), False),
        (np.array([255], np.uint8), True),
    ],
)
def test_finite(array, expected):
    assert is_finite(array) is expected
