"""A small policy for the point maze, trained once for all integration tests."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Onebeat = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def onebeat() -> Onebeat:
    def call(*words: object, cwd: Path = ROOT, timeout: float = 60.0):
        return subprocess.run(
            [sys.executable, "-m", "controller.cli", *map(str, words)],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return call


@pytest.fixture(scope="session")
def dataset(onebeat: Onebeat, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "maze.hdf5"
    done = onebeat("data", "generate", "task=pointmaze-umaze", "steps=3000", f"out={path}")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="session")
def store(onebeat: Onebeat, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one bundle; 40 updates teach nothing, and the mechanics do not mind."""
    path = tmp_path_factory.mktemp("store") / "bundles"
    words = ("optimiser.steps=40", "optimiser.batch=64", "network.hidden=[64,64]")
    done = onebeat("train", "task=pointmaze-umaze", f"data={dataset}", f"out={path}", *words)
    assert done.returncode == 0, done.stderr
    return path
