"""Judging off-line, with policies and critics whose figures are known on paper."""

import re

import msgspec
import numpy as np
import pytest

from controller.acting import ActSettings
from policies.codec import of_limits
from policies.errors import BundleError
from policies.finetuning.judging import at_limit, distances, judge
from policies.finetuning.settings import GateSettings
from policies.model import ConsistencyModel, NetworkSettings
from tests.policies.finetuning import constants
from tests.policies.finetuning.constants import SEEN, SPEC, constant, other_robot, weights_of
from tests.policies.robots import toy_bundle
from tests.policies.weights import CRITICS_OF, bundle_of, robot

GATE = GateSettings(distance=0.25, q_drop=0.1, at_limit=0.2)
TIMES = ("action_us", "action_us_in_force")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return constant(tmp_path_factory.mktemp("old"), 0.5, 0.0, slope=2.0)


def judged(tmp_path, old, *encoded, gate=GATE, **about):
    return judge(constant(tmp_path, *encoded, **about), old, SEEN, gate)


def test_the_same_policy_passes_with_the_figures_of_the_paper(tmp_path, old):
    verdict = judged(tmp_path, old, 0.5, 0.0, slope=2.0)
    figures = {name: value for name, value in verdict.figures.items() if name not in TIMES}
    assert verdict.ok
    assert verdict.reasons == ()
    assert figures == {
        "rows": 300.0,
        "distance_mean": 0.0,
        "distance_max": 0.0,
        "at_limit": 0.0,
        "at_limit_in_force": 0.0,
        "q": pytest.approx(1.0, rel=1e-6),
        "q_in_force": pytest.approx(1.0, rel=1e-6),
        "q_then": pytest.approx(1.0, rel=1e-6),
        "q_in_force_then": pytest.approx(1.0, rel=1e-6),
    }
    assert all(verdict.figures[name] > 0 for name in TIMES)


def test_distance_and_values_by_hand(tmp_path, old):
    """Encoded (0.5, 0) against (0.7, -0.4): 0.1 and 0.2 of the range; Q is slope times e0."""
    verdict = judged(tmp_path, old, 0.7, -0.4, slope=3.0)
    assert verdict.ok
    expected = {
        "distance_mean": 0.15,
        "distance_max": 0.2,
        "q": 2.1,
        "q_in_force": 1.5,
        "q_then": 1.4,
        "q_in_force_then": 1.0,
    }
    assert {name: verdict.figures[name] for name in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("encoded", "slope", "reason"),
    [
        # 0.1 and 0.495 of the range away.
        ((0.7, 1.0 - 1e-2), 2.0, r"^actions are 0\.297 of the range away .* at most 0\.25$"),
        # One of two elements at its limit, none of the other's.
        ((1.0, 0.0), 2.0, r"^50% of its actions are at their limits, 0% of those .* 20% more$"),
        # Q falls from 1 to 0.89, by more than a tenth.
        ((0.445, 0.0), 2.0, r"^mean Q of its actions is 0\.89, 1 of those .* at most 0\.1 of it"),
        # Q falls from -1 to -1.2: a share of its size, whatever its sign.
        ((0.6, 0.0), -2.0, r"^mean Q of its actions is -1\.2, -1 of those of the version in force"),
    ],
)
def test_each_fault_is_refused_for_its_own_reason(tmp_path, old, encoded, slope, reason):
    verdict = judged(tmp_path, old, *encoded, slope=slope)
    assert not verdict.ok
    [found] = verdict.reasons
    assert re.search(reason, found), found


@pytest.mark.parametrize(
    ("encoded", "slope"), [((0.74, 0.25), 2.0), ((0.46, 0.0), 2.0), ((0.54, 0.0), -2.0)]
)
def test_what_is_just_good_enough_passes(tmp_path, old, encoded, slope):
    assert judged(tmp_path, old, *encoded, slope=slope).ok


def test_several_faults_are_told_together(tmp_path, old):
    verdict = judged(tmp_path, old, -1.0, -1.0, slope=2.0)
    assert len(verdict.reasons) == 3


def test_more_at_the_limits_is_measured_against_the_version_in_force(tmp_path):
    old = constant(tmp_path / "old", 1.0, 0.0)
    assert judged(tmp_path, old, 1.0, 0.1).ok
    verdict = judged(tmp_path, old, 1.0, 1.0, gate=msgspec.structs.replace(GATE, distance=1.0))
    assert verdict.figures["at_limit"] == 1.0
    assert verdict.figures["at_limit_in_force"] == 0.5
    assert len(verdict.reasons) == 1


def test_without_critics_values_are_not_looked_at(tmp_path, old):
    verdict = judged(tmp_path, old, 0.4, 0.0)
    assert verdict.ok
    assert verdict.figures["q"] is verdict.figures["q_in_force"] is None
    assert verdict.figures["q_then"] == pytest.approx(0.8, rel=1e-6)


def test_weights_that_are_no_numbers_are_refused(tmp_path, old):
    weights = weights_of(0.5, 0.0)
    weights["last_fc.bias"][1] = np.nan
    verdict = judge(constant(tmp_path, weights=weights), old, SEEN, GATE)
    assert not verdict.ok
    assert verdict.reasons[0].endswith("the policy's actions are not finite")


@pytest.mark.filterwarnings("ignore:.*encountered in dot")
def test_actions_that_are_no_numbers_on_some_rows_are_refused(tmp_path, old):
    """Two units overflow alike for large observations, and their difference is no number."""
    weights = weights_of(0.5, 0.0)
    weights["fc0.weight"][:, 0] = 3e38
    weights["last_fc.weight"][:] = [[1.0, -1.0], [0.0, 0.0]]
    path = constant(tmp_path, weights=weights, seen=np.zeros((8, 3)))
    seen = np.zeros((100, 3))
    seen[:25, 0] = 1e3
    verdict = judge(path, old, seen, GATE)
    assert verdict.reasons == ("actions on 25% of the held-out rows are not finite",)


def test_values_that_are_no_numbers_are_refused(tmp_path, old):
    verdict = judged(tmp_path, old, 0.5, 0.0, slope=float("nan"))
    assert verdict.reasons == ("its critics give values that are not finite",)


def test_a_damaged_bundle_and_one_of_another_robot_are_refused(tmp_path, old):
    path = constant(tmp_path, 0.5, 0.0)
    (path / "weights.safetensors").write_bytes(b"")
    verdict = judge(path, old, SEEN, GATE)
    assert not verdict.ok
    assert "0 bytes, manifest says" in verdict.reasons[0]
    verdict = judge(constant(tmp_path, 0.5, 0.0, spec=other_robot()), old, SEEN, GATE)
    assert not verdict.ok
    assert "50" in verdict.reasons[0]


def test_a_bundle_with_other_golden_actions_is_refused(tmp_path, old, monkeypatch):
    real = constants.golden

    def false(*words):
        kept = real(*words)
        return kept | {"actions": kept["actions"] + 0.01}

    monkeypatch.setattr(constants, "golden", false)
    verdict = judge(constant(tmp_path, 0.5, 0.0), old, SEEN, GATE)
    assert "golden actions differ" in verdict.reasons[0]


def test_without_a_version_in_force_only_the_policy_itself_is_looked_at(tmp_path):
    verdict = judge(constant(tmp_path, 1.0, 1.0, slope=1.0), None, SEEN, GATE)
    assert verdict.ok
    assert set(verdict.figures) == {"rows", "at_limit", "q", "action_us"}
    weights = weights_of(0.5, np.nan)
    assert not judge(constant(tmp_path, weights=weights), None, SEEN, GATE).ok


def test_a_broken_version_in_force_is_nobodys_fault_but_ours(tmp_path, old):
    with pytest.raises(BundleError):
        judge(old, tmp_path / "nothing", SEEN, GATE)


def test_rows_that_are_not_finite_are_left_out(tmp_path, old):
    seen = SEEN.copy()
    seen[:10, 1] = np.inf
    path = constant(tmp_path, 0.5, 0.0)
    assert judge(path, old, seen, GATE).figures["rows"] == 290.0
    verdict = judge(path, old, np.full((4, 3), np.nan), GATE)
    assert "no finite observation" in verdict.reasons[0]


@pytest.mark.parametrize("act", [ActSettings(), ActSettings(steps=3), ActSettings(candidates=4)])
def test_both_draw_the_same_noise(tmp_path, act):
    """Of a policy that draws its actions: against itself nothing differs, drawn anew it does."""
    model = ConsistencyModel(NetworkSettings(hidden=(8,)))
    path = bundle_of(tmp_path, model, critic=CRITICS_OF["mish"], spec=robot(3, 2))
    same = judge(path, path, SEEN, GATE, act=act)
    assert same.ok
    assert same.figures["distance_max"] == 0.0
    assert same.figures["q"] == same.figures["q_in_force"]
    again = judge(path, path, SEEN, GATE, seed=1, act=act)
    assert again.figures["q"] != same.figures["q"]
    quiet = {k: v for k, v in same.figures.items() if k not in TIMES}
    once_more = judge(path, path, SEEN, GATE, act=act).figures
    assert {k: v for k, v in once_more.items() if k not in TIMES} == quiet


def test_chunks_are_judged_row_by_row(tmp_path):
    path = toy_bundle(tmp_path, horizon=3)
    verdict = judge(path, path, np.random.default_rng(1).standard_normal((20, 6)), GATE)
    assert verdict.ok
    assert verdict.figures["distance_max"] == 0.0


def test_limits_and_distances_of_elements_by_hand():
    codec = of_limits(SPEC)
    actions = np.array([[[-2.0, 2.0]], [[1.997, -1.9]]], np.float32)
    assert at_limit(actions, codec) == 0.75
    apart = distances(actions, np.zeros_like(actions), codec)
    assert apart == pytest.approx(np.array([[0.5, 0.5], [0.49925, 0.475]]), rel=1e-6)
