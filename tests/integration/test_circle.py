"""The whole circle with real processes, small: data, train, run, log, fine-tune, swap, replay."""

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from controller.control import control
from controller.launch import LiveRun
from controller.log import McapSink
from controller.log_reader import read_log
from controller.settings import PolicySettings, RunConfig
from controller.types import Rung

FIELDS = {
    "rate_hz",
    "ticks",
    "missed",
    "return",
    "score",
    "success",
    "episodes",
    "rungs",
    "versions",
    "stages",
    "log",
}


def live(store: Path, out: Path, seconds: float, **policy) -> RunConfig:
    return RunConfig(
        task="pointmaze-umaze",
        seconds=seconds,
        out=str(out),
        policy=PolicySettings(bundle=str(store), **policy),
    )


@pytest.fixture(scope="module")
def run(onebeat, store, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    done = onebeat(
        "run",
        "task=pointmaze-umaze",
        "seconds=2",
        f"out={out}",
        f"policy.bundle={store}",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), out


def test_run_answers_with_one_json_value_of_the_documented_fields(run):
    report, _ = run
    assert set(report) >= FIELDS
    assert set(report["rungs"]) == {"fresh", "tail", "local", "hold", "stop", "human"}
    stages = {"wake", "observe", "transport", "queue", "infer", "act", "rest", "total"}
    assert set(report["stages"]) == stages
    assert set(report["stages"]["total"]) == {"p50", "p99", "p99_9", "max"}
    assert report["ticks"] + report["skipped"] == 200
    assert len(report["versions"]) == 1


def test_a_command_was_sent_on_every_tick_of_the_log(run):
    report, out = run
    log = read_log(out / "log.mcap")
    assert not log.truncated
    assert len(log) == report["ticks"]
    assert (log.sent_ns > log.deadline_ns).all()
    assert np.isfinite(log.executed).all()


def test_stages_of_an_answered_tick_add_up_to_it(run):
    _, out = run
    log = read_log(out / "log.mcap")
    fresh = log.rung == Rung.FRESH
    assert fresh.sum() > 100
    parts = sum(log.stages[name] for name in log.stages if name != "total")
    np.testing.assert_array_equal(parts[fresh], log.stages["total"][fresh])


def test_replay_recomputes_every_action_bit_for_bit(onebeat, run):
    _, out = run
    done = onebeat("replay", out / "log.mcap", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["matched"] is True
    assert result["ticks_checked"] == result["ticks"]
    assert result["policy_actions"] > 100


def test_replay_names_the_first_tick_whose_action_was_altered(onebeat, run, store, tmp_path):
    _, out = run
    log = read_log(out / "log.mcap")
    altered = tmp_path / "log.mcap"
    sink = McapSink(altered, log.header)
    row = int(np.flatnonzero(log.rung == Rung.FRESH)[20])
    for index, record in enumerate(log.records()):
        if index == row:
            record.requested = np.nextafter(record.requested, np.float32(np.inf))
        sink.tick(record)
    sink.close()
    done = onebeat("replay", altered, f"bundles={store}")
    assert done.returncode == 1
    assert f"tick {log.tick[row]}: requested action is" in done.stderr
    assert done.stderr.count("\n") == 1


def test_replay_without_the_bundle_says_so(onebeat, run, tmp_path):
    _, out = run
    log = read_log(out / "log.mcap")
    elsewhere = tmp_path / "log.mcap"
    sink = McapSink(elsewhere, msgspec.structs.replace(log.header, bundles={}))
    for record in log.records():
        sink.tick(record)
    sink.close()
    done = onebeat("replay", elsewhere)
    assert done.returncode == 1
    assert "cannot be had" in done.stderr
    assert done.stderr.count("\n") == 1


def test_finetune_from_the_log_publishes_a_child_and_hot_swaps_it(
    onebeat, store, dataset, run, tmp_path
):
    _, out = run
    mine = tmp_path / "bundles"
    shutil.copytree(store, mine, symlinks=True)
    done = onebeat(
        "finetune",
        mine,
        f"offline={dataset}",
        f"out={tmp_path}",
        "updates=8",
        "learn.batch=64",
        "learn.critic_updates=4",
        "evaluate_episodes=2",
        "gate.sim_drop=10",
        "--json",
        "--logs",
        out,
    )
    assert done.returncode == 0, done.stderr
    learned = json.loads(done.stdout)
    assert learned["version_before"] != learned["version_after"], learned["reasons"]
    assert learned["rows"]["policy"]["rows"] > 100
    assert learned["before"]["score_mean"] is not None
    assert learned["after"]["version"] == learned["version_after"]
    before = mine / learned["version_before"]
    swapped: list[dict] = []
    with LiveRun(live(before, tmp_path / "swap", seconds=3.0)) as process:

        def look(status) -> bool:
            if status["ticks"] > 60 and not swapped:
                bundle = {"bundle": learned["bundle"]}
                swapped.append(control(process.policy_endpoint, "swap", bundle, timeout_s=10.0))
            return False

        assert process.wait(look) == []
    log = read_log(process.log)
    versions = list(dict.fromkeys(v for v in log.versions if v))
    assert versions == [learned["version_before"], learned["version_after"]]
    # One switch, and every action of either version is named by it.
    acted = [v for v in log.versions if v]
    assert acted == sorted(acted, key=versions.index)
    done = onebeat("replay", process.log, f"bundles={mine}", "--json")
    assert done.returncode == 0, done.stderr


def test_lockstep_runs_are_the_same_bit_for_bit(onebeat, store, tmp_path):
    logs = []
    for name in ("a", "b"):
        done = onebeat(
            "run",
            "task=pointmaze-umaze",
            "mode=lockstep",
            "seconds=2",
            f"out={tmp_path / name}",
            f"policy.bundle={store}",
            "--json",
        )
        assert done.returncode == 0, done.stderr
        logs.append(read_log(tmp_path / name / "log.mcap"))
    first, second = logs
    assert first.executed.tobytes() == second.executed.tobytes()
    for name, column in first.observations.items():
        assert column.tobytes() == second.observations[name].tobytes()
