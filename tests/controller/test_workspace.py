import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import ConfigError
from controller.safety_filter import SafetyFilter
from controller.safety_settings import SafetySettings, WorkspaceAxis, WorkspaceSettings
from controller.spec import ArraySpec, Spec
from controller.types import Observation, Reason, Rung

PERIOD_S = 0.01
SPEC = Spec(
    "arm",
    (
        ArraySpec("place", (2,), "float64", "m", elements=("x", "y")),
        ArraySpec("pace", (2,), "float64", "m/s"),
        ArraySpec("grip", (1,), "float32"),
    ),
    ArraySpec("drive", (2,), "float64", low=(-1.0,) * 2, high=(1.0,) * 2, elements=("right", "up")),
    rate_hz=100.0,
)


def f64(*values):
    return np.array(values, np.float64)


def seen(x, y=0.0, *, pace=(0.0, 0.0), step=0, episode=0, stamp_ns=None):
    arrays = (f64(x, y), f64(*pace), np.zeros(1, np.float32))
    return Observation(arrays, step * 10_000_000 if stamp_ns is None else stamp_ns, episode, step)


def axis(element="place.x", low=-1.0, high=1.0, **more):
    return WorkspaceAxis(element, low, high, **more)


def guard(*axes, lookahead_s=0.2, spec=SPEC, **settings):
    space = WorkspaceSettings(axes, lookahead_s)
    return SafetyFilter(spec, SafetySettings(workspace=space, **settings))


# The commanded rate is gain times the action, and at most (bound - x) / 0.2 s.
VELOCITY = [
    # x, requested, gain, executed
    (0.0, 1.0, 1.0, 1.0),
    (0.9, 1.0, 1.0, 0.5),
    (0.9, 0.25, 1.0, 0.25),
    (1.0, 1.0, 1.0, 0.0),
    (1.5, 1.0, 1.0, 0.0),
    (1.5, -1.0, 1.0, -1.0),
    (-0.9, -1.0, 1.0, -0.5),
    (-1.5, -1.0, 1.0, 0.0),
    (-1.5, 1.0, 1.0, 1.0),
    (0.9, 1.0, 2.0, 0.25),
    (0.9, -1.0, -1.0, -0.5),
    (0.9, 1.0, -1.0, 1.0),
    (-0.9, 1.0, -2.0, 0.25),
]


@pytest.mark.parametrize(("x", "asked", "gain", "expected"), VELOCITY)
def test_an_axis_moved_by_its_velocity(x, asked, gain, expected):
    safety = guard(axis(action="right", gain=gain))
    safety.look(seen(x))
    executed, why = safety.command(0, Rung.FRESH, f64(asked, 0.75))
    assert executed == pytest.approx([expected, 0.75])
    assert why == (Reason.NONE if expected == asked else Reason.WORKSPACE)


# A force at an edge, which is where the axis is outside or will be within 0.2 s at its rate.
FORCE = [
    # x, rate, requested, gain, executed
    (0.9, 0.0, 1.0, 1.0, 1.0),
    (0.9, 0.4, 1.0, 1.0, 1.0),
    (0.9, 0.6, 1.0, 1.0, 0.0),
    (0.9, 0.6, -1.0, 1.0, -1.0),
    (1.1, -3.0, 1.0, 1.0, 0.0),
    (-0.9, -0.6, -1.0, 1.0, 0.0),
    (-0.9, -0.6, 1.0, 1.0, 1.0),
    (0.9, 0.6, -1.0, -1.0, 0.0),
    (0.9, 0.6, 1.0, -0.5, 1.0),
]


@pytest.mark.parametrize(("x", "rate", "asked", "gain", "expected"), FORCE)
def test_an_axis_that_is_pushed(x, rate, asked, gain, expected):
    pushed = axis(action="right", control="force", gain=gain, rate="pace[0]")
    safety = guard(pushed)
    safety.look(seen(x, pace=(rate, 9.0)))
    executed, why = safety.command(0, Rung.FRESH, f64(asked, 0.75))
    assert executed.tolist() == [expected, 0.75]
    assert why == (Reason.NONE if expected == asked else Reason.WORKSPACE)


@pytest.mark.parametrize(
    ("gain", "offset", "asked", "expected"),
    [
        (1.0, 0.0, 0.9, 0.5),
        (1.0, 0.0, -0.9, -0.25),
        (2.0, 0.0, 0.9, 0.25),
        (-1.0, 0.0, 0.9, 0.25),
        (-1.0, 0.0, -0.9, -0.5),
        (1.0, 0.2, 0.9, 0.3),
        (0.1, 0.0, 0.9, 0.9),
    ],
)
def test_an_axis_that_is_sent_places(gain, offset, asked, expected):
    sent = axis(low=-0.25, high=0.5, action=0, control="position", gain=gain, offset=offset)
    safety = guard(sent)
    safety.look(seen(5.0))  # Where it is now does not matter.
    executed, why = safety.command(0, Rung.FRESH, f64(asked, 0.75))
    assert executed == pytest.approx([expected, 0.75])
    assert why == (Reason.WORKSPACE if abs(expected - asked) > 1e-9 else Reason.NONE)


def test_the_safe_command_is_within_the_places_allowed():
    inside = axis(low=0.25, high=0.5, action=0, control="position")
    assert guard(inside).safe.tolist() == [0.25, 0.0]
    assert guard(inside, safe_action=(0.5, 0.0)).safe.tolist() == [0.5, 0.0]
    with pytest.raises(ConfigError, match=r"leads out of the workspace: expected \[0.25, -1.0\]"):
        guard(inside, safe_action=(0.0, 0.0))
    with pytest.raises(ConfigError, match="no action is within both its limits and the workspace"):
        guard(axis(low=2.0, high=3.0, action=0, control="position"))


@pytest.mark.parametrize(
    ("x", "rate", "forbidden"),
    [(0.9, 0.4, False), (0.9, 0.6, True), (1.1, -9.0, True), (-0.9, -0.6, True), (0.0, 4.9, False)],
)
def test_an_axis_that_nothing_moves_forbids_policies_to_act(x, rate, forbidden):
    safety = guard(axis(rate="pace[0]"))
    safety.look(seen(x, pace=(rate, 0.0)))
    assert safety.forbids() is forbidden
    assert safety.forbids(person=True) is False
    executed, why = safety.command(0, Rung.HUMAN, f64(1.0, 1.0))
    assert executed.tolist() == [1.0, 1.0]
    assert why == (Reason.WORKSPACE if forbidden else Reason.NONE)


def test_what_is_not_observed_forbids_everybody():
    safety = guard(axis(action="right"))
    safety.look(seen(np.nan))
    assert safety.forbids()
    assert safety.forbids(person=True)
    safety.look(seen(0.0))
    assert not safety.forbids()


def test_the_rate_is_that_between_two_observations_of_an_episode():
    safety = guard(axis())
    places = [
        # x, step, episode, at an edge. From 0.89 to 0.9 in 10 ms: 1.1 in 0.2 s.
        (0.89, 0, 0, False),
        (0.90, 1, 0, True),
        (0.90, 1, 0, True),
        (0.90, 2, 0, False),
        (0.895, 3, 0, False),
        (0.90, 0, 1, False),
        (0.80, 1, 1, True),
    ]
    for x, step, episode, forbidden in places:
        safety.look(seen(x, step=step, episode=episode))
        assert safety.forbids() is forbidden, (x, step, episode)


def test_bounds_on_one_side():
    safety = guard(axis(high=None, action="right"))
    safety.look(seen(1e9))
    assert safety.command(0, Rung.FRESH, f64(1.0, 0.0))[0].tolist() == [1.0, 0.0]
    safety.look(seen(-2.0))
    assert safety.command(1, Rung.FRESH, f64(-1.0, 0.0))[0].tolist() == [0.0, 0.0]


def test_the_tightest_of_several_axes_counts():
    safety = guard(axis(action="up"), axis("place.y", action="up", gain=-1.0))
    safety.look(seen(0.9, 0.95))
    assert safety.command(0, Rung.FRESH, f64(0.0, 1.0))[0] == pytest.approx([0.0, 0.5])
    assert safety.command(0, Rung.FRESH, f64(0.0, -1.0))[0] == pytest.approx([0.0, -0.25])


def test_the_edge_is_not_put_off_by_slowness_and_what_it_stops_is_at_rest():
    settings = {"slew_per_s": 25.0, "acceleration_per_s2": 1000.0}
    safety = guard(axis(action="right"), **settings)
    safety.look(seen(0.0))
    for tick in range(4):
        executed, _ = safety.command(tick, Rung.FRESH, f64(1.0, 1.0))
    assert executed == pytest.approx([0.8, 0.8])
    safety.look(seen(1.0))
    executed, why = safety.command(4, Rung.FRESH, f64(1.0, 1.0))
    assert executed == pytest.approx([0.0, 0.95])
    assert why & Reason.WORKSPACE
    safety.look(seen(0.0))
    executed, _ = safety.command(5, Rung.FRESH, f64(1.0, 1.0))
    # The stopped element begins anew with one step of the acceleration limit.
    assert executed == pytest.approx([0.1, 1.0])


@given(
    st.lists(st.floats(-1, 1), min_size=5, max_size=80),
    st.floats(0.05, 1.0),
    st.none() | st.floats(1.0, 100.0),
    st.sampled_from([-2.0, -1.0, 0.5, 1.0]),
)
def test_an_axis_that_follows_its_command_never_leaves(asked, lookahead_s, slew, gain):
    safety = guard(
        axis(low=-0.3, high=0.2, action=0, gain=gain), slew_per_s=slew, lookahead_s=lookahead_s
    )
    x = 0.0
    for tick, request in enumerate(asked * 3):
        safety.look(seen(x, step=tick))
        executed, _ = safety.command(tick, Rung.FRESH, f64(request, 0.0))
        x += gain * executed[0] * PERIOD_S
        assert -0.3 - 1e-12 <= x <= 0.2 + 1e-12
        assert np.abs(executed).max() <= 1.0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"element": "place.z"}, r"'place.z' is not observed; did you mean place.x"),
        ({"element": "place"}, "'place' is not observed"),
        ({"element": "pace[2]"}, r"valid: place.x, place.y, pace\[0\], pace\[1\], grip\[0\]"),
        ({"element": "place.x", "rate": "speed"}, "'speed' is not observed"),
        ({"element": "place.x", "action": "left"}, "place.x: 'left' is no element of drive"),
        ({"element": "place.x", "action": 2}, "2 is no element of drive; "),
    ],
)
def test_elements_that_are_not_there_are_refused(bad, message):
    with pytest.raises(ConfigError, match=message):
        guard(WorkspaceAxis(low=0.0, **bad))


@pytest.mark.parametrize("name", ["place.x", "place[1]", "pace[1]", "grip", "grip[0]"])
def test_names_of_elements(name):
    guard(WorkspaceAxis(name, 0.0)).look(seen(0.0))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"element": "x"}, "x: expected low, high or both"),
        ({"element": "x", "low": 1, "high": 1}, "low 1 is not below high 1"),
        ({"element": "x", "low": 1, "gain": 0}, "gain is 0"),
        ({"element": "x", "low": 1, "offset": 1}, "offset is for control=position, not velocity"),
    ],
)
def test_axes_that_make_no_sense_are_refused(bad, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(bad, WorkspaceAxis)


def test_whole_numbers_cannot_be_cut_at_an_edge():
    spec = msgspec.structs.replace(SPEC, action=ArraySpec("drive", (2,), "uint8"))
    with pytest.raises(ConfigError, match="needs real numbers, not uint8"):
        guard(axis(action=0), spec=spec)
    assert guard(axis(), spec=spec).forbids() is False
