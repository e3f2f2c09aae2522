"""The command line as a person meets it: help, typos, missing things."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli import VERBS

ROOT = Path(__file__).parents[2]
ACTIONS = [name for name, verb in VERBS.items() if not verb.hidden]
HEAVY = ("torch", "mujoco", "gymnasium", "gymnasium_robotics", "dm_control", "matplotlib", "h5py")


def onebeat(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controller.cli", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_words_every_command_is_listed():
    done = onebeat()
    assert done.returncode == 0
    for name in ACTIONS:
        assert f"  {name} " in done.stdout


def test_help_of_every_command_names_its_settings_and_imports_nothing_heavy():
    script = (
        "import sys; from controller.cli import main\n"
        f"for name in {ACTIONS!r}:\n"
        "    assert main([*name.split(), '--help']) == 0, name\n"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: onebeat") == len(ACTIONS)
    assert "loop.answer_fraction" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["rnu"], "did you mean run?"),
        (["sim", "lst"], "did you mean list?"),
        (["run", "--rate"], "--rate: expected a value"),
        (["run", "configs/run/demo.yaml", "loop.rate_hzz=5"], "rate_hz"),
        (["run", "seconds=-1"], "number > 0"),
        (["run", "seconds=soon"], "number > 0"),
        (["run", "mode=realtim"], "realtime"),
        (["run", "configs/run/dmeo.yaml"], "demo.yaml"),
        (["run", "a", "b"], "expected one task"),
        (["sim", "list", "x=1"], "takes no settings"),
        (["doctor", "here"], "only key=value"),
        (
            ["run", "mode=virtual", "policy.endpoint=ipc:///tmp/p"],
            "policy.endpoint is for mode=real",
        ),
        (["run", "hopper", "policy.bundle=hopper", "loop.chunks.ask=ahead"], "answers with 1 row"),
        (["run", "hopper", "out=pyproject.toml"], "cannot be written to"),
    ],
)
def test_a_fault_in_the_words_is_one_line_and_status_2(words, expected):
    done = onebeat(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("onebeat")
    assert expected in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["replay", "no-such.mcap"],
        ["show", "no-such.mcap"],
        ["data", "inspect", "no-such.hdf5"],
        ["eval", "bundle=no-such-bundle"],
        ["train", "data=no-such.hdf5", "task=pointmaze-medium"],
        ["finetune", "parent=no-such-bundle", "logs=[a.mcap]"],
        ["serve", "bundle=no-such-bundle"],
        ["latency", "no-such-bundle"],
        ["run", "task=pointmaze-mediun", "mode=lockstep"],
        ["sim", "serve", "task=no-such-task"],
    ],
)
def test_a_missing_thing_is_one_line_and_names_it(words, tmp_path):
    extra = [f"out={tmp_path}"] if words[0] == "run" else []
    done = onebeat(*words, *extra, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "no-such" in lines[0] or "a.mcap" in lines[0] or "mediun" in lines[0]
    assert "Traceback" not in done.stderr


def test_a_yaml_typo_names_file_key_and_nearest(tmp_path):
    path = tmp_path / "typo.yaml"
    path.write_text("loop:\n  answer_fractoin: 0.5\n")
    done = onebeat("run", str(path))
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert "loop.answer_fractoin" in done.stderr
    assert "answer_fraction" in done.stderr.replace("answer_fractoin", "")


def test_sim_list_as_json_is_one_value():
    done = onebeat("sim", "list", "--json")
    rows = json.loads(done.stdout)
    assert {"pointmaze-medium", "kitchen-complete"} <= {row["task"] for row in rows}
    assert done.stderr == ""
