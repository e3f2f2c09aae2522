"""Fine-tuning live with real processes: what comes of it, and of killing them one by one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from controller.cli import main
from controller.log import McapSink
from controller.log_parts import is_log
from controller.log_reader import read_log
from controller.log_schema import LogHeader
from policies.bundle import load_bundle, resolve
from policies.untrained import untrained_robot

ROOT = Path(__file__).parents[2]
SMALL = (
    "learn.critic.hidden=[16,16]",
    "learn.critic.count=2",
    "learn.batch=16",
    "learn.warmup_steps=50",
    "learn.critic_updates=10",
    "gate.every=40",
    "gate.sim_episodes=0",
    "gate.score_every=0",
    "save_every=20",
    "replay.save_every_s=0.2",
    "replay.capacity=20000",
    # A plant without substeps: what arrives within a step acts from the next one on.
    "rows.unapplied=imitate",
)
SERVICES = ("replay", "gate", "learner")
FIELDS = {
    "before",
    "after",
    "updates",
    "env_steps",
    "episodes",
    "versions",
    "ticks",
    "missed",
    "publish_to_action_ms_p50",
    "publish_to_action_ms_max",
    "rejected_versions",
    "rolled_back",
    "learner",
    "staleness",
    "samples_per_insert",
    "deaths",
    "ended",
    "seconds",
    "out",
}


def words(store: Path, out: Path, *more: str) -> list[str]:
    live = ["finetune", str(store), "--live", "--task", "pointmaze-umaze", f"out={out}"]
    return [*live, *SMALL, *more, "--json"]


@pytest.fixture(scope="module")
def lockstep(onebeat, store, tmp_path_factory):
    out = tmp_path_factory.mktemp("lockstep") / "out"
    more = ("mode=lockstep", "--steps", "300", "num_actors=2", "evaluate_episodes=1")
    done = onebeat(*words(store, out, *more), timeout=120.0)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), out


def test_the_result_is_one_json_value_of_the_documented_fields(lockstep, store):
    result, out = lockstep
    assert set(result) == FIELDS
    assert json.loads((out / "result.json").read_text()) == result
    assert result["env_steps"] >= 300
    assert result["ticks"] == result["env_steps"]
    assert result["updates"] > 100
    assert result["ended"] == "300 steps"
    assert set(result["deaths"]) == {*SERVICES, "actor-0", "actor-1"}
    assert not any(result["deaths"].values())
    assert result["before"]["version"] == result["versions"][0] == load_bundle(store).version
    assert result["after"]["version"] == result["versions"][-1] == resolve(out / "bundles").name
    assert result["before"]["score_mean"] is not None
    assert result["publish_to_action_ms_p50"] is None


def test_every_actor_left_a_whole_log_and_every_row_of_it_arrived(lockstep):
    result, out = lockstep
    logs = [read_log(out / "actors" / f"actor-{index}" / "log.mcap") for index in range(2)]
    assert not any(log.truncated for log in logs)
    assert result["env_steps"] == sum(len(log.transitions()) for log in logs)
    starts = [tuple(log.observations["observation"][0]) for log in logs]
    assert starts[0] != starts[1]


def test_a_second_fine_tuning_in_one_place_is_refused(lockstep, store, capsys):
    _, out = lockstep
    assert main(words(store, out, "mode=lockstep", "--steps", "400")) == 2
    assert "holds a fine-tuning: resume=true goes on with it" in capsys.readouterr().err


@pytest.mark.slow
def test_a_resumed_fine_tuning_goes_on_with_rows_learner_and_versions(onebeat, lockstep, store):
    first, out = lockstep
    more = ("mode=lockstep", "--steps", str(first["env_steps"] + 100), "--resume")
    done = onebeat(*words(store, out, *more, "evaluate_episodes=0"), timeout=120.0)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["env_steps"] >= first["env_steps"] + 100
    assert result["updates"] > first["updates"]
    assert result["versions"][: len(first["versions"])] == first["versions"]
    assert sum(map(is_log, (out / "actors" / "actor-0").glob("*.mcap"))) == 2


LIVE = ("finetune", "hopper", "--live", "--task", "hopper")


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (("finetune", "hopper"), 2, "logs: expected those of runs"),
        (("finetune", "hopper", "a"), 2, "logs come after --logs"),
        (("finetune", "--logs", "a"), 2, "parent: expected a bundle to improve"),
        (("finetune", "hopper", "--logs", "a", "--minutes", "1"), 2, "minutes is for live=true"),
        (("finetune", "hopper", "--logs", "nowhere"), 1, "nowhere"),
        (LIVE, 2, "expected minutes or steps"),
        ((*LIVE, "--logs", "a"), 2, "logs and live=true: expected one of them"),
        ((*LIVE, "--steps", "9", "updates=3"), 2, "updates is for learning from logs"),
        ((*LIVE, "--steps", "9", "actors=ray"), 2, "actors=ray is for mode=lockstep"),
        ((*LIVE, "--steps", "9", "--offline", "nowhere.hdf5"), 1, "no such file, directory or"),
        ((*LIVE, "--steps", "9", "num_actors=125"), 2, "expected at most 124"),
        ((*LIVE, "--steps", "9", "--resume"), 2, "holds no fine-tuning to go on with"),
        ((*LIVE[:-1], "walker2d", "--steps", "9"), 1, "describe different robots"),
        ((*LIVE[:-1], "hoper", "--steps", "9"), 2, "did you mean hopper?"),
        (("finetune", "--live", "--steps", "9"), 2, "task: expected the name of a task"),
        (
            ("finetune", "--live", "--task", "hopper", "--steps", "9"),
            2,
            "expected consistency_ac, diffusion_ql or sac to begin from scratch",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_before_anything_starts(
    words, status, expected, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "out=out"]) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert expected in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_run_in_the_place_of_the_bundle_is_named(tmp_path, capsys):
    header = LogHeader(spec=untrained_robot(), mode="lockstep", rate_hz=100.0, seed=0)
    McapSink(tmp_path / "log.mcap", header).close()
    assert main(["finetune", "--logs", "a", str(tmp_path)]) == 2
    assert f"parent: {tmp_path} is a run, expected a bundle" in capsys.readouterr().err


def test_a_part_that_fails_at_the_start_ends_it_and_leaves_nothing_to_resume(
    store, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(words(store, out, "mode=lockstep", "--steps", "9", "replay.capacity=8")) == 1
    assert "replay: replay.capacity: 8 rows, expected at least" in capsys.readouterr().err
    assert not (out / "finetune.yaml").exists()


class Process:
    """A fine-tuning under way, whose processes can be killed by name."""

    def __init__(self, args: list[str], out: Path) -> None:
        self.out = out
        command = [sys.executable, "-m", "controller.cli", *args]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def pids(self) -> dict[str, int]:
        try:
            found: dict[str, int] = json.loads((self.out / "processes.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def until(self, true: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not true():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, what
            time.sleep(0.05)

    def versions(self) -> int:
        try:
            lines = (self.out / "versions.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return 0
        return sum('"published"' in line for line in lines)

    def kill(self, name: str) -> None:
        """Kill a process, and wait until another is there and a further version in force."""
        pid, before = self.pids()[name], self.versions()
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: self.pids()[name] != pid, f"another {name}")
        self.until(lambda: self.versions() > before, f"a version after the end of {name}")

    def end(self) -> dict:
        self.process.send_signal(signal.SIGINT)
        out, error = self.process.communicate(timeout=120.0)
        assert self.process.returncode == 130, error
        result: dict = json.loads(out)
        return result | {"said": error}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_whatever_is_killed_the_run_goes_on_improving(store, tmp_path, mode):
    out = tmp_path / "out"
    run = Process(words(store, out, f"mode={mode}", "--minutes", "5"), out)
    victims = ("learner", "actor-0" if mode == "lockstep" else "server", "replay", "gate")
    more = ("feeder-0",) if mode == "realtime" else ()
    try:
        run.until(lambda: run.versions() > 0, "the first version")
        for name in (*victims, *more):
            run.kill(name)
        result = run.end()
    finally:
        run.process.kill()
        run.process.wait()
    deaths = result["deaths"]
    assert {name: deaths[name] for name in (*victims, *more)} == dict.fromkeys((*victims, *more), 1)
    assert result["ended"] == "stopped"
    assert result["said"].count("died (killed by SIGKILL)") == len(victims) + len(more)
    assert load_bundle(out / "bundles").version == result["after"]["version"]
    log = read_log(out / "actors" / "actor-0" / "log.mcap")
    assert not log.truncated
    if mode == "realtime":
        assert result["ticks"] == len(log)
        assert len({version for version in log.versions if version}) > 2
        assert np.isfinite(log.executed).all()
        assert result["publish_to_action_ms_p50"] > 0.0
