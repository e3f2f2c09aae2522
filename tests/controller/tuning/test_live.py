"""The launcher of a live fine-tuning, with processes that only pretend."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from controller.launch import RunFailed
from controller.process import Child
from controller.tuning import live as module
from controller.tuning.kept import words_file
from controller.tuning.live import Diverged, LiveTuning, Look
from controller.tuning.settings import LivePlan

STANDIN = "tests.controller.tuning.standin"
ROOT = Path(__file__).parents[3]


def plan(out: Path, **more) -> LivePlan:
    (out / "bundles").mkdir(parents=True, exist_ok=True)
    settings = out / "finetune.yaml"
    endpoint = f"ipc://{out}/replay"
    return LivePlan(
        settings=settings, out=out, task="none", replay=endpoint, realtime=False, **more
    )


def make(replaced: dict[str, str] | None = None, endpoint: str = ""):
    """Return what makes a stand-in for each process; ``replaced`` ones run other code."""

    def made(verb: str, out: Path, name: str, *words: str, niceness: int = 0) -> Child:
        what = verb.split()[1]
        code = (replaced or {}).get(name)
        args = ["-c", code] if code else ["-m", STANDIN, f"ipc://{out}/replay", what]
        log = words_file(out, name)
        return Child([sys.executable, *args], name, log=log, environment={"PYTHONPATH": str(ROOT)})

    return made


def until(live: LiveTuning, true, timeout_s: float = 20.0) -> Look:
    deadline = time.monotonic() + timeout_s
    while not true(look := live.look()):
        assert time.monotonic() < deadline, live.notes
        time.sleep(0.02)
    return look


def gone(pids) -> bool:
    def alive(pid):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    return not any(alive(pid) for pid in pids)


def test_a_run_ends_by_its_steps_in_order_and_leaves_nobody_behind(tmp_path):
    shown: list[Look] = []
    with LiveTuning(plan(tmp_path, steps=30, num_actors=2), tmp_path, make()) as live:
        pids = [child.pid for child in live.processes.values()]
        assert live.wait(shown.append, lambda: False) == "30 steps"
        last = live.finish()
    assert last.seen.env_steps >= 30
    assert last.seen.updates == last.seen.env_steps // 2
    assert (last.seen.return_mean, last.seen.episodes) == (2.0, 2)
    assert shown[-1].actors == 2
    assert live.deaths == dict.fromkeys(("replay", "gate", "learner", "actor-0", "actor-1"), 0)
    assert live.notes == []
    assert gone(pids)
    for name in ("replay", "gate", "learner"):
        assert (tmp_path / f"{name}.log").read_text() == f"{name} left in order\n"


def test_whoever_is_killed_is_started_again(tmp_path):
    with LiveTuning(plan(tmp_path, minutes=1.0), tmp_path, make()) as live:
        until(live, lambda look: look.seen.env_steps > 0)
        for name in ("learner", "actor-0", "replay", "gate"):
            before = live.processes[name].pid
            os.kill(before, signal.SIGKILL)
            until(live, lambda look, name=name, pid=before: live.processes[name].pid != pid)
        rows = live.look().seen.env_steps
        until(live, lambda look: look.seen.env_steps != rows)
        live.finish()
    assert live.deaths == dict.fromkeys(("replay", "gate", "learner", "actor-0"), 1)
    assert live.failures == {}
    assert [note.partition(": ")[2].split(" (")[0] for note in live.notes] == [
        f"{name} died" for name in ("learner", "actor-0", "replay", "gate")
    ]


def test_a_part_that_cannot_do_its_work_ends_the_run_before_it_began(tmp_path):
    replaced = {"replay": "raise SystemExit('onebeat finetune replay: no room')"}
    with (
        pytest.raises(RunFailed, match=r"^replay: no room$"),
        LiveTuning(plan(tmp_path, steps=30), tmp_path, make(replaced)) as live,
    ):
        live.wait(lambda look: None, lambda: False)


def test_a_learner_that_diverged_is_given_up_and_the_run_goes_on(tmp_path):
    diverged = tmp_path / "diverged"
    code = (
        "import pathlib, time\n"
        f"while not pathlib.Path({str(tmp_path / 'now')!r}).exists(): time.sleep(0.02)\n"
        f"place = pathlib.Path({str(diverged)!r}); place.mkdir()\n"
        "(place / 'what.json').write_text('{}')\n"
        "raise SystemExit('onebeat finetune learner: q_loss is no longer finite')"
    )
    with LiveTuning(plan(tmp_path, minutes=1.0), tmp_path, make({"learner": code})) as live:
        until(live, lambda look: look.seen.env_steps > 0)
        (tmp_path / "now").touch()
        until(live, lambda look: bool(live.failures))
        rows = live.look().seen.env_steps
        assert until(live, lambda look: look.seen.env_steps > rows).actors == 1
        live.finish()
    assert live.failures == {"learner": "diverged: q_loss is no longer finite"}
    assert live.deaths["learner"] == 1


def test_the_fault_of_an_earlier_learner_is_no_fault_of_this_one(tmp_path):
    (tmp_path / "what.json").write_text("{}")
    diverged = Diverged(tmp_path)
    child = Child([sys.executable, "-c", ""], "learner")
    assert diverged(child) == ""


def test_a_learner_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LEARN_ON_S", 0.3)
    replaced = {"learner": "import time; time.sleep(600)"}
    with LiveTuning(plan(tmp_path, steps=10), tmp_path, make(replaced)) as live:
        live.wait(lambda look: None, lambda: False)
        live.finish()
    assert live.notes[-1].endswith("learner: still at work after 0.3 s, stopped")
    assert live.deaths["learner"] == 0


def test_one_that_is_told_to_stop_ends_in_order(tmp_path):
    with LiveTuning(plan(tmp_path, minutes=9.0), tmp_path, make()) as live:
        began = until(live, lambda look: (tmp_path / "actor.ready").exists())
        assert began.elapsed_s < 60.0
        assert live.wait(lambda look: None, lambda: True) == "stopped"
        live.finish()
    assert (tmp_path / "actor-0.log").read_text() == "actor left in order\n"


def test_an_impatient_end_kills_all_at_once(tmp_path):
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    live = LiveTuning(plan(tmp_path, minutes=9.0), tmp_path, make({"actor-0": stubborn}))
    with live:
        until(live, lambda look: "actor-0" in live.processes)
        pids = [child.pid for child in live.processes.values()]
        live.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert gone(pids)
    # In order the stubborn one would have been told first.
    assert live.processes["actor-0"].status() == "killed by SIGKILL"
