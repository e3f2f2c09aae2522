import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import ConfigError
from controller.safety import (
    Limits,
    filter_action,
    fits,
    is_finite,
    limit_acceleration,
    limit_slew,
)
from controller.safety_filter import SafetyFilter
from controller.safety_settings import SafetySettings
from controller.spec import ArraySpec, Spec
from controller.types import Reason, Rung


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
    safety = SafetyFilter(robot(), SafetySettings(slew_per_s=25.0))
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


def test_each_element_has_its_own_slew_limit():
    limits = Limits.of(robot(), slew_per_s=(25.0, None))
    executed, why = filter_action(f32(1.0, 2.0), f32(0.0, 0.0), limits)
    assert same(executed, f32(0.25, 2.0))
    assert why == Reason.SLEW


@pytest.mark.parametrize(
    ("dtype", "settings", "message"),
    [
        ("float32", {"slew_per_s": (1.0,)}, "slew_per_s has 1 elements, expected 1 or 2"),
        ("float32", {"acceleration_per_s2": (1.0,) * 3}, "acceleration_per_s2 has 3 elements"),
        ("uint8", {"acceleration_per_s2": 1.0}, "needs an action of real numbers, not uint8"),
        ("uint8", {"slew_per_s": 99.0}, "change by 0.99 per tick, expected at least 1"),
    ],
)
def test_limits_that_do_not_fit_the_action_are_refused(dtype, settings, message):
    with pytest.raises(ConfigError, match=message):
        Limits.of(robot((0.0, 0.0), (1.0, 2.0), dtype), **settings)


def driven(limits, requests, start=(0.0, 0.0)):
    """Commands and reasons for a list of requests, from rest at ``start``."""
    dtype = limits.low.dtype
    before = previous = np.array(start, dtype)
    for request in requests:
        executed, why = filter_action(np.array(request, dtype), previous, limits, before)
        before, previous = previous, executed
        yield executed, why


def test_acceleration_by_hand():
    limits = Limits.of(robot(dtype="float64"), acceleration_per_s2=1000.0)
    assert limits.bend == pytest.approx(0.1)
    moves = [u[0] for u, _ in driven(limits, [(1.0, 0.0)] * 7)]
    # One way of 1: faster by 0.1 per tick up to 0.6; the 0.4 that are left are covered by
    # w + (w - 0.1) + (w - 0.2).
    w = 0.7 / 3
    expected = [0.1, 0.3, 0.6, 0.6 + w, 0.6 + 2 * w - 0.1, 1.0, 1.0]
    assert moves == pytest.approx(expected, abs=1e-12)
    assert moves[-1] == 1.0


def test_reasons_of_slew_and_acceleration():
    spec = robot(dtype="float64", rate_hz=64.0)
    limits = Limits.of(spec, slew_per_s=8.0, acceleration_per_s2=256.0)
    assert (limits.step, limits.bend) == (0.125, 0.0625)
    sent = list(driven(limits, [(0.375, 0.0)] * 5))
    assert [u[0] for u, _ in sent] == [0.0625, 0.1875, 0.3125, 0.375, 0.375]
    both = Reason.SLEW | Reason.ACCELERATION
    assert [why for _, why in sent] == [both, Reason.SLEW, Reason.SLEW, 0, 0]
    # The request turns round: what was begun has to be slowed down first.
    sent = list(driven(limits, [(0.375, 0.0), (0.375, 0.0), (-1.0, 0.0), (-1.0, 0.0)]))
    assert [u[0] for u, _ in sent] == [0.0625, 0.1875, 0.25, 0.25]
    assert [why for _, why in sent[2:]] == [both, both]


slopes = st.floats(0.05, 50.0)
bends = st.floats(0.5, 5000.0)
requests = st.lists(st.tuples(*[st.floats(-3, 3, width=32)] * 2), min_size=1, max_size=60)


@given(requests, st.none() | slopes, bends, st.sampled_from(["float32", "float64"]))
def test_limits_slew_and_acceleration_hold_together(asked, slew, acceleration, dtype):
    limits = Limits.of(
        robot((-1.0, None), (1.0, 2.0), dtype), slew_per_s=slew, acceleration_per_s2=acceleration
    )
    sent = np.array([np.zeros(2), np.zeros(2), *(u for u, _ in driven(limits, asked))])
    rounding = 8 * np.finfo(dtype).eps * 3
    assert (sent >= limits.low).all()
    assert (sent <= limits.high).all()
    change = np.diff(sent, axis=0)
    assert (np.abs(np.diff(change, axis=0)) <= limits.bend * (1 + 1e-6) + 3 * rounding).all()
    if slew is not None:
        assert (np.abs(change) <= limits.step * (1 + 1e-6) + rounding).all()


@given(st.floats(-1, 1), st.floats(-1, 1), st.none() | slopes, st.floats(5.0, 5000.0))
def test_from_rest_a_constant_request_is_reached_and_never_overshot(start, goal, slew, bend):
    limits = Limits.of(robot(dtype="float64"), slew_per_s=slew, acceleration_per_s2=bend)
    way, a = abs(goal - start), bend * 1e-4
    # Half the way speeding up and half slowing down, and in between at the slew limit.
    ticks = int(2 * np.sqrt(way / a) + way / (limits.step or np.inf)) + 6
    sent = np.array([u[0] for u, _ in driven(limits, [(goal, 0.0)] * ticks, (start, 0.0))])
    toward = np.sign(goal - start)
    assert (np.diff(sent * toward) >= -1e-12).all()
    assert (toward * (goal - sent) >= -1e-12).all()
    assert sent[-1] == goal


@given(requests, bends)
def test_a_slew_limit_of_any_size_is_the_acceleration_filter_without_one(asked, acceleration):
    free = Limits.of(robot(), acceleration_per_s2=acceleration)
    wide = Limits.of(robot(), slew_per_s=1e9, acceleration_per_s2=(acceleration, acceleration))
    for (a, _), (b, _) in zip(driven(free, asked), driven(wide, asked), strict=True):
        assert same(a, b)


@given(wild, pair, slopes)
def test_without_acceleration_limit_the_slew_limit_alone_decides(raw, before, slew):
    """An acceleration limit too wide to bind changes no bit."""
    loose = Limits.of(robot(), slew_per_s=slew, acceleration_per_s2=(None, 1e12))
    plain = Limits.of(robot(), slew_per_s=slew)
    previous, _ = filter_action(f32(*before), plain.safe, Limits.of(robot()))
    expected, why = filter_action(f32(*raw), previous, plain)
    got, reasons = filter_action(f32(*raw), previous, loose)
    assert np.abs(got - expected).max() <= 2e-7
    assert reasons & ~Reason.ACCELERATION == why


def test_a_stop_is_not_slowed_and_rest_follows_it():
    safety = SafetyFilter(robot(), SafetySettings(slew_per_s=25.0, acceleration_per_s2=1000.0))
    speeds = [float(safety.apply(f32(1.0, 0.0))[0][0]) for _ in range(4)]
    assert speeds == pytest.approx([0.1, 0.3, 0.55, 0.8], abs=1e-6)
    assert same(safety.hold(), f32(0.0, 0.0))
    # Without the rest after it, the change before it would carry on.
    assert float(safety.apply(f32(1.0, 0.0))[0][0]) == pytest.approx(0.1)
    nan, why = safety.apply(f32(np.nan, 0.0))
    assert same(nan, f32(0.0, 0.0))
    assert why == Reason.NONFINITE
    assert float(safety.apply(f32(-1.0, 0.0))[0][0]) == pytest.approx(-0.1)


def test_a_hold_on_the_way_to_the_safe_command_is_filtered():
    safety = SafetyFilter(robot(), SafetySettings(slew_per_s=25.0, acceleration_per_s2=1000.0))
    sent = [float(safety.apply(f32(1.0, 0.0))[0][0]) for _ in range(3)]
    for tick in range(12):
        command, _ = safety.command(tick, Rung.HOLD, safety.safe, Reason.BLENDED)
        sent.append(float(command[0]))
    assert sent[-1] == 0.0
    assert np.abs(np.diff(sent)).max() <= 0.25 + 1e-6
    assert np.abs(np.diff(sent, 2)).max() <= 0.1 + 1e-6
    safety.apply(f32(1.0, 0.0))
    assert same(safety.command(13, Rung.HOLD, safety.safe)[0], f32(0.0, 0.0))


def test_only_what_acts_is_filtered():
    safety = SafetyFilter(robot(), SafetySettings(safe_action=(0.5, 0.5)))
    for rung in Rung:
        executed, _ = safety.command(0, rung, f32(1.0, 1.0))
        assert same(executed, f32(1.0, 1.0) if rung.acts else f32(0.5, 0.5))


def test_pure_functions_leave_their_arguments_alone():
    limits = Limits.of(robot(), slew_per_s=25.0, acceleration_per_s2=1000.0)
    arrays = [f32(1.0, 0.5), f32(0.2, 0.2), f32(0.1, 0.1)]
    for array in arrays:
        array.flags.writeable = False
    limit_slew(arrays[0], arrays[1], limits.step)
    limit_acceleration(arrays[0], arrays[1], arrays[2], limits)
