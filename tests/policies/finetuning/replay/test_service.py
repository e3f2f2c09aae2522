"""The replay service, message by message, under a virtual clock."""

import numpy as np
import pytest

from controller.wire import Ask, Bye, Fetch, Insert, Refusal, Reject
from policies.bundle import load_bundle
from policies.finetuning.replay.limiter import LONGEST_PATIENCE_NS, Limiter
from tests.policies.finetuning.replay.rows import SPEC, rows_of, told
from tests.policies.finetuning.replay.talk import Stage, no_rows
from tests.policies.weights import MODELS, bundle_of, robot, weights_of

MODEL = MODELS["deterministic"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two versions for the robot, and one for another."""
    root = tmp_path_factory.mktemp("bundles")
    made = [bundle_of(root, MODELS[name], spec=SPEC) for name in ("deterministic", "gaussian-mean")]
    return [*made, bundle_of(root, MODEL, spec=robot(4, 2))]


@pytest.fixture
def stage(tmp_path):
    with Stage(tmp_path) as stage:
        yield stage


def test_rows_come_and_are_acknowledged(stage):
    arm, leg = stage.client(), stage.client()
    assert arm.insert(0, rows_of(0, 3)).rows == 3
    assert arm.insert(0, rows_of(0, 3)).rows == 3
    assert arm.insert(2, rows_of(2, 4)).rows == 6
    assert arm.insert(9, rows_of(9, 4)).rows == 6
    answer = leg.insert(0, no_rows(), actor="arm")
    assert (answer.actor, answer.rows, answer.version, answer.bundle) == ("arm", 6, "", "")
    assert leg.insert(0, no_rows(), actor="leg").rows == 0
    ok, stats = leg.control("stats")
    assert ok
    assert (stats["inserted"], stats["rows"]) == (6, 6)
    assert set(stats["actors"]) == {"arm"}


def test_bad_rows_are_rejected_with_the_reason(stage):
    arm, bad = stage.client(), rows_of(0, 3)
    bad[1, 2] = np.nan
    answer = arm.insert(0, bad)
    assert isinstance(answer, Reject)
    assert answer.detail == "row 1: observation[2] is nan, expected a finite number"
    answer, _ = arm.ask(Insert("arm", 0, 3, ("v1",)), (rows_of(0, 3)[:, :-1],))
    assert isinstance(answer, Reject)
    assert answer.detail == "204 bytes of rows, expected 216 for 3 of 18"
    assert arm.insert(0, rows_of(0, 3, version=1)).detail == "row 0: version is 1, expected 0 to 0"
    assert arm.control("stats")[1]["inserted"] == 0
    assert arm.control("stats")[1]["rejected"] == 3


def test_batches_are_whole_rows_of_every_actor(stage):
    stage.client().insert(0, rows_of(0, 40))
    stage.client().insert(0, rows_of(0, 40, actor=1), actor="leg")
    answer, rows = stage.client().draw(8, 50, updates=7)
    assert (answer.batches, answer.size, answer.inserted, answer.rows) == (8, 50, 80, 80)
    assert (answer.allowed, answer.version, answer.rollbacks, answer.finished) == (70, "", 0, False)
    assert set(told(rows)) == {(actor, k) for actor in (0, 1) for k in range(40)}
    stats = stage.client().control("stats")[1]
    assert (stats["updates"], stats["drawn_batches"], stats["allowed"]) == (7, 8, 70)
    assert stats["samples_per_insert"] == 5.0


def test_too_few_rows_and_too_many_updates_give_none(stage):
    arm, learner = stage.client(), stage.client("learner")
    arm.insert(0, rows_of(0, 9))
    assert learner.draw(8, 5)[0].batches == 0
    arm.insert(9, rows_of(9, 3))
    assert learner.draw(8, 13)[0].batches == 0
    # 2 rows beyond the warm-up, 4 of slack.
    assert learner.draw(8, 5)[0].batches == 6
    assert learner.draw(8, 5, updates=6)[0].batches == 0
    answer, _ = learner.draw(8, 1001)
    assert answer.detail.startswith("batches of 1001 rows, expected 1 to 1000")
    assert learner.draw(8, 0)[0].detail.startswith("batches of 0 rows")
    assert learner.draw(0, 0)[0].batches == 0


def test_an_answer_never_outgrows_a_frame(tmp_path):
    with Stage(tmp_path, capacity=70_000, limiter=Limiter(1e6, 0, 1)) as stage:
        stage.client().insert(0, rows_of(0, 100))
        gate = stage.client("gate")
        answer, rows = gate.draw(1024, 65_536)
        assert answer.batches == 3
        assert rows.nbytes <= 16 * 2**20


def test_the_gate_draws_freely_and_is_not_counted(stage):
    stage.client().insert(0, rows_of(0, 12))
    gate, learner = stage.client("gate"), stage.client("learner")
    assert gate.draw(1, 100, updates=999)[0].batches == 1
    assert learner.draw(9, 5)[0].batches == 6
    stats = gate.control("stats")[1]
    assert (stats["updates"], stats["drawn_batches"]) == (0, 6)
    # Nor is it a learner that anyone would wait for.
    learner.session.send(Bye())
    stage.service.turn(10**9)
    assert gate.draw(1, 100)[0].batches == 1
    assert stage.client().insert(12, rows_of(12, 80)).wait_ms == 0


def test_an_actor_is_asked_to_wait_for_a_learner_that_lives(stage):
    arm, learner = stage.client(), stage.client("learner")
    assert arm.insert(0, rows_of(0, 40)).wait_ms == 0
    learner.draw(0, 5)
    assert arm.insert(40, no_rows()).wait_ms > 0
    assert arm.control("stats")[1]["learner"] is True
    # It does 30 updates: 4 fewer than are allowed is no reason to wait.
    learner.draw(0, 5, updates=26)
    assert arm.insert(40, no_rows()).wait_ms == 0
    assert arm.insert(40, rows_of(40, 1)).wait_ms > 0
    stage.pass_s(LONGEST_PATIENCE_NS / 1e9)
    assert arm.insert(41, no_rows()).wait_ms == 0
    stats = arm.control("stats")[1]
    assert (stats["learner"], stats["actors"]["arm"]["waits"]) == (False, 2)


def test_a_published_version_is_in_force_at_once(stage, bundles):
    arm, gate = stage.client(), stage.client("gate", role="control")
    version = load_bundle(bundles[0]).version
    ok, report = gate.control("publish", bundle=str(bundles[0]))
    assert ok
    assert (report["version"], report["before"], report["rollbacks"]) == (version, "", 0)
    answer = arm.insert(0, rows_of(0, 20), versions=(version,))
    assert (answer.version, answer.bundle) == (version, str(bundles[0].resolve()))
    assert stage.client().session.welcome.version == version
    gate.control("publish", bundle=str(bundles[1]))
    answer, _ = stage.client("learner").draw(1, 5)
    assert (answer.version, answer.rollbacks) == (load_bundle(bundles[1]).version, 0)
    for _ in range(2):  # The same request once more changes nothing.
        report = gate.control("rollback", bundle=str(bundles[0]))[1]
        assert (report["version"], report["rollbacks"]) == (version, 1)
    answer, _ = stage.client("learner").draw(1, 5)
    assert (answer.version, answer.rollbacks) == (version, 1)
    stats = gate.control("stats")[1]
    assert stats["versions"] == {version: 20}
    assert stats["staleness_p50"] == 1
    assert gate.control("restart") == (True, {"rollbacks": 2})
    answer, _ = stage.client("learner").draw(1, 5)
    assert (answer.version, answer.rollbacks) == (version, 2)


def test_what_cannot_be_published_is_told(stage, bundles, tmp_path):
    gate = stage.client("gate", role="control")
    ok, report = gate.control("publish", bundle=str(bundles[2]))
    assert not ok
    assert "is of sizes" in report["reason"]
    assert not gate.control("publish", bundle=str(tmp_path / "nothing"))[0]
    damaged = bundle_of(tmp_path / "damaged", MODEL, spec=SPEC)
    (damaged / "weights.safetensors").write_bytes(b"")
    ok, report = gate.control("rollback", bundle=str(damaged))
    assert not ok
    assert "0 bytes, manifest says" in report["reason"]
    assert gate.control("ready")[1]["version"] == ""


@pytest.mark.parametrize(
    ("verb", "args", "reason"),
    [
        ("publsh", {}, "unknown verb 'publsh'; did you mean publish?"),
        ("publish", {}, "arguments of publish: none; expected bundle"),
        ("stats", {"policy": "x"}, "arguments of stats: policy; expected none"),
        ("episodes", {"since": "-1"}, "since: '-1', expected the number of an episode, from 0"),
        ("sample", {"rows": "5"}, "unknown verb 'sample'"),
    ],
)
def test_control_requests_that_make_no_sense(stage, verb, args, reason):
    ok, report = stage.client(role="control").control(verb, **args)
    assert not ok
    assert report["reason"].startswith(reason)


def test_messages_that_make_no_sense(stage):
    arm = stage.client()
    assert isinstance(arm.ask(Ask(0, 0, 0, 0, 0, 0), (np.zeros(3),))[0], Refusal)


def test_episodes_are_told_from_a_number_on(stage):
    arm = stage.client()
    arm.insert(0, rows_of(0, 30, ends=(9, 19, 29), total=5.0))
    ok, report = arm.control("episodes", since="1")
    assert ok
    assert report["next"] == 3
    assert report["episodes"][0] == {
        "actor": "arm",
        "episode": 1,
        "return": 5.0,
        "length": 10,
        "success": False,
        "version": "v1",
        "mixed": False,
        "env_step": 20,
        "commanded": 10,
    }
    assert arm.control("episodes", since="3")[1] == {"episodes": [], "next": 3}


def test_episodes_of_long_names_fit_into_a_report(stage):
    arm, name = stage.client(), "é" * 200
    arm.insert(0, rows_of(0, 300, ends=range(300)), actor=name, versions=("v" * 200,))
    report = arm.control("episodes", since="0")[1]
    assert 50 < len(report["episodes"]) < 256
    assert (report["episodes"][-1]["episode"], report["next"]) == (299, 300)


def test_stats_of_many_long_names_fit_into_a_report(stage):
    arm = stage.client()
    for k in range(80):
        versions = tuple(f"{j}{k}" + "ü" * 190 for j in range(2))
        mixed = np.concatenate([rows_of(0, 1), rows_of(1, 1, version=1)])
        arm.insert(0, mixed, actor=f"{k}" + "é" * 190, versions=versions)
    ok, stats = arm.control("stats")
    assert ok
    assert len(stats["actors"]) == 64


def test_finish_is_told_to_the_learner(stage):
    stage.client().insert(0, rows_of(0, 12))
    assert stage.client(role="control").control("finish") == (
        True,
        {"finished": True, "inserted": 12},
    )
    assert stage.client("learner").draw(1, 5)[0].finished


def test_files_of_published_versions(stage, bundles, tmp_path):
    arm, gate = stage.client(), stage.client(role="control")
    first = load_bundle(bundles[0])
    gate.control("publish", bundle=str(bundles[0]))
    gate.control("publish", bundle=str(bundles[1]))
    answer, frames = arm.ask(Fetch(first.version))
    for name, frame in zip(answer.names, frames, strict=True):
        (tmp_path / name).write_bytes(frame)
    again = load_bundle(tmp_path)
    assert again.version == first.version
    assert set(again.weights) == set(weights_of(MODEL, 3, 2))
    answer, frames = arm.ask(Fetch("v9999-00000000"))
    assert (answer.version, answer.names, frames) == ("v9999-00000000", (), [])


def test_a_version_that_was_taken_off_the_disk_is_not_known(stage, tmp_path):
    arm, bundle = stage.client(), bundle_of(tmp_path / "gone", MODEL, spec=SPEC)
    arm.control("publish", bundle=str(bundle))
    (bundle / "codec.safetensors").unlink()
    assert arm.ask(Fetch(bundle.name))[0].names == ()


def test_what_is_kept_is_written_now_and_then(stage):
    arm = stage.client()
    arm.insert(0, rows_of(0, 5))
    assert stage.store.stale
    stage.pass_s(1.9)
    assert stage.store.stale
    stage.pass_s(0.2)
    assert not stage.store.stale
    arm.control("finish")
    assert not stage.store.stale


def test_a_full_disk_stops_nobody(stage, bundles, monkeypatch):
    arm = stage.client()
    arm.insert(0, rows_of(0, 5))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("policies.disk.os.fsync", full)
        stage.pass_s(3.0)
        assert arm.insert(5, rows_of(5, 5)).rows == 10
        ok, report = arm.control("publish", bundle=str(bundles[0]))
        assert not ok
        assert "cannot be written: No space left on device" in report["reason"]
    assert arm.control("publish", bundle=str(bundles[0]))[0]
    assert not stage.store.stale
