"""``onebeat reproduce`` from data to tables: everything at once, stopped, resumed, failing."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controller.cli import main
from policies.data.d4rl import write_d4rl
from policies.reproduction.results import read_csv, read_row
from policies.train_state import read_state
from tests.integration.test_evaluation import SPEC, hopper_data

NAME = "hopper-medium-regen"
PLAN = """
datasets: [hopper-medium-regen, kitchen-mixed-v0]
algorithms: [consistency_bc, consistency_ac]
seeds: [0, 1]
settings:
  - "optimiser={{steps: {steps}, batch: 16}}"
  - network.hidden=[8]
  - critic.hidden=[8]
  - log_every=10
  - save_every=20
  - tensorboard=false
evaluate_episodes: 2
workers: 2
out: {here}/runs
docs: {here}/docs
data: {here}/data
"""


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """A machine without published datasets."""
    for name in ("ONEBEAT_DATA", "ONEBEAT_DATASETS", "D4RL_DATASET_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))


def planned(here: Path, steps: int = 30) -> str:
    """Write a plan on made-up rows of Hopper; return its file."""
    (here / "data").mkdir()
    write_d4rl(here / "data" / f"{NAME}.hdf5", hopper_data(), SPEC)
    (here / "plan.yaml").write_text(PLAN.format(here=here, steps=steps))
    return str(here / "plan.yaml")


def told(capfd):
    out, errors = capfd.readouterr()
    return json.loads(out), errors


@pytest.mark.slow
def test_a_plan_is_trained_scored_and_tabled_and_once_is_enough(tmp_path, capfd):
    words = ["reproduce", planned(tmp_path), "--json"]
    assert main(words) == 0
    facts, errors = told(capfd)
    assert facts["cells"] == 8
    assert (facts["trained_now"], facts["scored_now"], facts["with_result"]) == (4, 4, 4)
    assert facts["missing"] == {"kitchen-mixed-v0": "D4RL's file is not on this machine"}
    assert "n/a: kitchen-mixed-v0: D4RL's file is not on this machine" in errors
    rows = read_csv(tmp_path / "docs/measurements/reproduction.csv")
    assert [(row.algorithm, row.seed) for row in rows] == [
        ("consistency_ac", 0), ("consistency_ac", 1), ("consistency_bc", 0), ("consistency_bc", 1),
    ]  # fmt: skip
    for row in rows:
        assert (row.updates, row.episodes, row.task, row.rows) == (30, 2, "hopper", 200)
        assert (row.action_us_50 is None) == (row.algorithm == "consistency_bc")
        # Softmax over 50 is how the released code acts.
        assert (row.candidates, row.select) == (
            (1, None) if row.algorithm == "consistency_bc" else (50, "softmax")
        )
    page = (tmp_path / "docs/reproduction.md").read_text()
    assert "| **30** of 2,000,000 (0.0015 %) | 2 of 2, 2 each |" in page
    assert "`kitchen-mixed-v0` | n/a: D4RL's file" in page
    assert main(words) == 0
    again, _ = told(capfd)
    assert (again["trained_now"], again["scored_now"], again["with_result"]) == (0, 0, 4)
    assert (tmp_path / "docs/reproduction.md").read_text() == page


def test_seeds_side_by_side_are_trained_and_scored(tmp_path, capfd):
    words = [
        "reproduce", planned(tmp_path), "together=true", "algorithms=[consistency_bc]",
        f"datasets=[{NAME}]", "--json",
    ]  # fmt: skip
    assert main(words) == 0
    facts, _ = told(capfd)
    assert (facts["trained_now"], facts["scored_now"], facts["with_result"]) == (2, 2, 2)
    rows = read_csv(tmp_path / "docs/measurements/reproduction.csv")
    assert [(row.seed, row.side_by_side, row.updates) for row in rows] == [(0, 2, 30), (1, 2, 30)]
    page = (tmp_path / "docs/reproduction.md").read_text()
    assert " for 2 seeds |" in page
    assert "| **30** of 2,000,000 (0.0015 %) | 2 of 2, 2 each |" in page


@pytest.mark.slow
def test_seeds_side_by_side_are_stopped_and_resumed(tmp_path, capfd):
    """A stop in the middle of a stacked training, which the next call takes up where it was."""
    words = [
        "reproduce", planned(tmp_path, steps=600), "together=true", "algorithms=[consistency_bc]",
        "settings=['optimiser={steps: 600, batch: 16}', 'network.hidden=[8]', 'save_every=20', "
        "'log_every=10', 'tensorboard=false']", f"datasets=[{NAME}]", "--json",
    ]  # fmt: skip
    store = tmp_path / "runs" / NAME / "consistency_bc"
    # The interpreter's own handler first, as a shell without job control has it ignored.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{start}; from controller.cli import main; raise SystemExit(main({words!r}))"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 90
    while not (store / "state/run.safetensors").is_file():
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert not json.loads(out)["finished"]
    assert "Traceback" not in errors
    stopped_at = read_state(store).about["step"]
    assert 0 < stopped_at < 600

    assert main(words) == 0
    facts, _ = told(capfd)
    assert (facts["trained_now"], facts["scored_now"], facts["with_result"]) == (2, 2, 2)
    for seed in (0, 1):
        row = read_row(store / f"seed_{seed}")
        assert (row.updates, row.side_by_side, row.seed) == (600, 2, seed)
        assert row.action_us > 0


def test_a_run_that_fails_is_one_line_and_the_tables_are_written(tmp_path, capfd):
    words = [
        "reproduce", planned(tmp_path), "algorithms=[consistency_bc]", "seeds=[0]",
        f"datasets=[{NAME}]", "settings=['optimiser={steps: 2, batch: 201}']", "--json",
    ]  # fmt: skip
    assert main(words) == 1
    facts, errors = told(capfd)
    reason = facts["failed"][f"{NAME}/consistency_bc/seed_0"]
    assert "200 rows, fewer than a batch of 201" in reason
    last = errors.strip().splitlines()[-1]
    assert last == f"onebeat reproduce: {NAME}/consistency_bc/seed_0: {reason}"
    assert reason in (tmp_path / "docs/reproduction.md").read_text()


def test_only_tables_runs_nothing(tmp_path, capfd):
    assert main(["reproduce", planned(tmp_path), "only=tables", "--json"]) == 0
    facts, _ = told(capfd)
    assert facts["with_result"] == facts["trained_now"] == 0
    assert not (tmp_path / "runs").exists()
    assert "n/a: not run" in (tmp_path / "docs/reproduction.md").read_text()
