"""``onebeat train`` as a process: stopped, killed, resumed, and without the simulator."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pytest

from controller.arguments import parse
from controller.cli import VERBS, main
from controller.command_line import overrides_of
from controller.config import describe, load
from policies import bundle, checkpoints
from policies.data.d4rl import write_d4rl
from policies.metrics import read_lines
from policies.settings import Algorithm, TrainConfig
from policies.train_state import read_state
from tests.policies.robots import SPEC, toy_data

ROOT = Path(__file__).parents[2]
STEPS = 600
SETTINGS = (
    "network={hidden: [8], dropout: 0.1}",
    f"optimiser={{steps: {STEPS}, batch: 16}}",
    "log_every=20",
    "save_every=50",
    "checkpoint_every=300",
    "tensorboard=false",
)
WITHOUT = ("mujoco", "gymnasium", "gymnasium_robotics", "dm_control", "zmq", "matplotlib", "PIL")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The words of a command line that learns from a file that carries its robot's spec."""
    file = tmp_path_factory.mktemp("data") / "toy.hdf5"
    write_d4rl(file, toy_data(), SPEC)
    return ("train", f"data={file}", *SETTINGS, "--json")


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """A run that nothing interrupted, in this process."""
    out = tmp_path_factory.mktemp("whole")
    assert main([*words, f"out={out}"]) == 0
    return out


def started(words, out):
    """Start a training and return its process once it has left a state in ``out``."""
    # The interpreter's own handler first, as a shell without job control has it ignored.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    every = [*words, f"out={out}"]
    code = f"{start}; from controller.cli import main; raise SystemExit(main({every!r}))"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not (out / "state" / "run.safetensors").is_file():
        if child.poll() is not None or time.monotonic() > until:
            child.kill()
            raise AssertionError(child.communicate()[1])
        time.sleep(0.005)
    return child


def require_same(whole, out):
    one, other = bundle.load_bundle(whole), bundle.load_bundle(out)
    assert one.version == other.version
    for name, array in one.weights.items():
        assert np.array_equal(array, other.weights[name]), name
    first, second = read_state(whole), read_state(out)
    assert first.about == second.about
    for name, array in first.arrays.items():
        assert np.array_equal(array, second.arrays[name]), name
    assert checkpoints.read(whole) == checkpoints.read(out)
    for store in (whole, out):
        steps = [line["step"] for line in read_lines(store / "metrics.jsonl")]
        assert steps == list(range(20, STEPS + 1, 20))


def test_a_killed_run_goes_on_bit_for_bit(words, whole, tmp_path, capfd):
    child = started(words, tmp_path)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    about = read_state(tmp_path).about
    assert 0 < about["step"] < STEPS
    assert not about["finished"]
    assert main([*words, f"out={tmp_path}"]) == 1
    told = f"stopped at update {about['step']}: resume=true goes on with it"
    assert told in capfd.readouterr().err
    assert main([*words, f"out={tmp_path}", "--resume"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said == {"bundle": str(bundle.load_bundle(tmp_path).path), "finished": True}
    require_same(whole, tmp_path)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_saves_publishes_and_says_how_to_go_on(words, whole, tmp_path, number):
    child = started(words, tmp_path)
    child.send_signal(number)
    out, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    step = read_state(tmp_path).about["step"]
    assert 0 < step < STEPS
    assert f"stopped at update {step} of {STEPS}; resume=true goes on" in errors
    assert "Traceback" not in errors
    made = bundle.load_bundle(tmp_path)
    assert json.loads(out) == {"bundle": str(made.path), "finished": False}
    assert made.manifest.training["steps"] == step
    assert main([*words, f"out={tmp_path}", "--resume"]) == 0
    require_same(whole, tmp_path)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            ("--resume", "network.hidden=[9]"),
            "cannot resume: the run has network.hidden=[8], these settings have [9]",
        ),
        (
            ("--resume", "algorithm=diffusion_bc"),
            "cannot resume: the run has algorithm=consistency_bc, these settings have diffusion_bc",
        ),
        (("--resume", "out=nowhere"), "nowhere: nothing to resume: no run left a state there"),
        (("out=/proc/nowhere",), "choose another out"),
        (("data=nowhere.hdf5",), "nowhere.hdf5: no such file, directory or dataset"),
        (("data=",), "expected text, got null"),
        (("task=hopper",), "is of toy, expected hopper"),
        (("optimiser.batch=601",), "600 rows, fewer than a batch of 601"),
        (("algorithm=consistency_bd",), "did you mean consistency_bc?"),
    ],
)
def test_a_fault_is_one_line(words, whole, capfd, monkeypatch, more, expected):
    monkeypatch.chdir(whole)
    assert main([*words, f"out={whole}", *more]) in (1, 2)
    out, errors = capfd.readouterr()
    assert out == ""
    *bar, told = errors.splitlines()
    assert told.startswith("onebeat train: ")
    assert expected in told
    assert all(line.startswith("training") for line in bar if line)
    assert not Path("nowhere").exists()


def bare(*words):
    """Run a command line on a machine with torch and h5py, but without the simulator."""
    code = (
        "import sys\n"
        f"for name in {WITHOUT!r}: sys.modules[name] = None\n"
        f"from controller.cli import main\nraise SystemExit(main({list(map(str, words))!r}))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=False, env=os.environ | {"DISPLAY": "", "MUJOCO_GL": "none"},
    )  # fmt: skip


def test_a_machine_without_the_simulator_learns(words, whole, tmp_path):
    done = bare(*words, f"out={tmp_path}")
    assert done.returncode == 0, done.stderr
    require_same(whole, tmp_path)


def published_like(file, rows=300):
    """Write what D4RL published for Hopper looks like: columns, and nothing of the robot."""
    rng = np.random.default_rng(0)
    with h5py.File(file, "w") as made:
        made["observations"] = rng.standard_normal((rows, 11)).astype(np.float32)
        made["actions"] = rng.uniform(-1, 1, (rows, 3)).astype(np.float32)
        made["rewards"] = rng.random(rows).astype(np.float32)
        made["terminals"] = np.zeros(rows, bool)
        made["timeouts"] = np.arange(1, rows + 1) % 100 == 0
    return file


SMALL = ("network.hidden=[8]", "optimiser={steps: 3, batch: 16}", "tensorboard=false", "--json")


def test_a_published_file_needs_no_simulator_either(tmp_path):
    file = published_like(tmp_path / "hopper-medium-v2.hdf5")
    done = bare("train", f"data={file}", f"out={tmp_path}/out", *SMALL)
    assert done.returncode == 0, done.stderr
    assert bundle.load_bundle(tmp_path / "out").spec.task == "hopper"


def test_a_file_that_says_nothing_of_its_robot_needs_a_task(tmp_path, capfd):
    file = published_like(tmp_path / "mine.hdf5")
    assert main(["train", f"data={file}", f"out={tmp_path}/a", *SMALL]) == 2
    told = capfd.readouterr().err
    assert "task: expected the name of a task, as in task=hopper" in told
    assert told.count("\n") == 1
    assert main(["train", f"data={file}", f"out={tmp_path}/b", *SMALL, "task=hopper"]) == 0
    assert bundle.load_bundle(tmp_path / "b").spec.task == "hopper"


def test_scores_on_the_way_need_the_simulator_and_say_so(words, tmp_path):
    done = bare(*words, f"out={tmp_path}/bundles", "task=toy", "evaluate_episodes=1")
    assert done.returncode in (1, 2)
    assert done.stderr.count("\n") == 1, done.stderr


COMMANDS = [
    line
    for block in re.findall(
        r"```sh\n(.*?)```", (ROOT / "docs/algorithms.md").read_text(), re.DOTALL
    )
    for line in block.splitlines()
]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_page_on_algorithms_are_understood(line):
    name, *rest = shlex.split(line)[1:]
    verb, arguments = VERBS[name], parse(rest)
    module, _, kind = verb.settings.partition(":")
    file = ROOT / arguments.file if arguments.file else None
    load(getattr(import_module(module), kind), file, overrides_of(verb, arguments))


def test_the_page_on_algorithms_names_them_all():
    page = (ROOT / "docs/algorithms.md").read_text()
    for name in get_args(Algorithm):
        assert f"| `{name}` |" in page, name


def test_settings_named_on_the_page_exist():
    page = (ROOT / "docs/algorithms.md").read_text()
    known = {row.key for row in describe(TrainConfig)}
    known |= {key.rpartition(".")[0] for key in known if "." in key}
    groups = {key.partition(".")[0] for key in known if "." in key}
    named = set(re.findall(rf"`((?:{'|'.join(groups)})\.\w+)", page))
    assert named
    assert named <= known
