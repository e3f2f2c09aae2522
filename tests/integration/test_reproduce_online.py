"""``onebeat reproduce online`` from its plan to its page."""

import json
import subprocess
import sys

import pytest

from controller.cli import main

PLAN = """\
out: {root}/runs
docs: {root}/docs
seeds: [0]
steps: 200
tasks: {{maze: {{task: pointmaze-umaze}}}}
settings: [gate.score_every=100, gate.score_episodes=1, evaluate_episodes=1]
arms:
  sac:
    settings:
      - learn.algorithm=sac
      - learn.warmup_steps=50
      - learn.batch=16
      - learn.network.hidden=[16]
      - learn.critic.hidden=[16]
"""


@pytest.fixture
def plan(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN.format(root=tmp_path))
    return file


def test_tables_alone_need_no_run(plan, tmp_path, capsys):
    assert main(["reproduce", "online", str(plan), "only=tables", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["runs"], facts["finished_runs"]) == (1, 0)
    page = (tmp_path / "docs" / "online.md").read_text()
    assert "No run has ended yet." in page
    assert "- `sac`: not run: `maze` (0)" in page


def test_a_fault_in_a_plan_is_one_line(plan, capsys):
    assert main(["reproduce", "online", str(plan), "settings=[gate.evry=1]"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("onebeat reproduce online: override gate.evry=1: unknown key")
    assert said.count("\n") == 1


@pytest.mark.slow
def test_a_plan_is_done_once_and_its_curve_is_on_the_page(plan, tmp_path):
    command = [sys.executable, "-m", "controller.cli", "reproduce", "online", str(plan), "--json"]
    facts = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        facts.append(json.loads(done.stdout))
    assert [fact["finished_now"] for fact in facts] == [1, 0]
    assert [fact["finished_runs"] for fact in facts] == [1, 1]
    points = (tmp_path / "docs" / "measurements" / "online.csv").read_text().splitlines()
    assert points[0].startswith("task,arm,steps,seed,env_steps,wall_s")
    assert len(points) >= 3
    assert all(line.startswith("maze,sac,200,0,") for line in points[1:])
    page = (tmp_path / "docs" / "online.md").read_text()
    assert "| `maze` | `sac` | 1 of 1 | 200 |" in page
    assert "## Not finished" not in page
