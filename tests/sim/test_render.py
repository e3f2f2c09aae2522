"""Pictures from logged observations, and machines that cannot draw."""

import sys

import numpy as np
import pytest
from PIL import Image

from controller.errors import ControllerError, DataError
from sim.d4rl.kitchen import kitchen_task
from sim.errors import RenderUnavailable
from sim.pointmaze import centre, walls
from sim.render import draw_run

TASK = "pointmaze-medium"


@pytest.fixture(scope="module", autouse=True)
def any_backend():
    """Forget a backend that this machine's environment may ask for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MUJOCO_GL", raising=False)
        yield


@pytest.fixture(scope="module")
def can_draw(tmp_path_factory):
    try:
        draw_run(TASK, rows_at((1, 1)), tmp_path_factory.mktemp("gl") / "a.png", size=32)
    except RenderUnavailable as error:
        pytest.skip(str(error))


def rows_at(*cells, goal=(6, 1)) -> np.ndarray:
    grid, _ = walls(TASK)
    places = np.array([centre(grid, cell) for cell in cells])
    goals = np.tile(centre(grid, goal), (len(cells), 1))
    return np.hstack([places, np.zeros_like(places), places, goals])


def centroid(path, channel: int) -> np.ndarray:
    """Return (x, y) in shares of the picture of where one colour stands out."""
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=int)
    others = np.delete(pixels, channel, axis=2).max(axis=2)
    found = np.argwhere(pixels[..., channel] - others > 60)
    assert len(found) > 10
    return found.mean(axis=0)[::-1] / (pixels.shape[1], pixels.shape[0])


@pytest.mark.usefixtures("can_draw")
def test_ball_and_goal_are_where_the_observation_has_them(tmp_path):
    """Row 0 of the maze is at the top, column 0 on the left."""
    balls, goals = {}, {}
    for ball, goal in (((1, 1), (6, 6)), ((6, 6), (1, 1))):
        path = draw_run(TASK, rows_at(ball, goal=goal), tmp_path / "maze.png", size=200)
        assert Image.open(path).size == (200, 200)
        balls[ball], goals[goal] = centroid(path, 2), centroid(path, 0)
    for places in (balls, goals):
        assert (places[1, 1] > 0.1).all()
        assert (places[1, 1] < 0.4).all()
        assert (places[6, 6] > 0.6).all()
        assert (places[6, 6] < 0.9).all()


@pytest.mark.usefixtures("can_draw")
def test_d4rls_maze_is_drawn_as_its_layout_reads(tmp_path):
    """D4RL's x is the row and its y the column; the goal is in cell (6, 6) of 8 by 8."""
    balls = {}
    for cell in ((1, 1), (6, 1), (1, 6)):
        rows = np.array([[*cell, 0.0, 0.0]])
        path = draw_run("maze2d-medium", rows, tmp_path / "maze.png", size=320)
        balls[cell], goal = centroid(path, 2), centroid(path, 0)
        assert (goal > 0.6).all()
        assert (goal < 0.9).all()
    (left, top), (_, bottom), (right, _) = balls[1, 1], balls[6, 1], balls[1, 6]
    assert 0.1 < left < 0.4 < 0.6 < right < 0.9
    assert 0.1 < top < 0.4 < 0.6 < bottom < 0.9


@pytest.mark.usefixtures("can_draw")
def test_gif_has_the_frames_asked_for_at_the_speed_of_the_run(tmp_path):
    rows = np.repeat(rows_at((4, 4)), 100, axis=0)
    rows[:, 0] += np.linspace(0.0, 2.0, 100)
    rows[7] = np.nan
    path = draw_run(TASK, rows, tmp_path / "deep" / "maze.gif", size=96, max_frames=12)
    with Image.open(path) as gif:
        # 99 finite rows of 10 ms, every ninth drawn.
        assert (gif.n_frames, gif.info["duration"], gif.size) == (11, 90, (96, 96))
        assert gif.info["loop"] == 0
    assert path.stat().st_size < 60_000


@pytest.mark.usefixtures("can_draw")
def test_kitchen_by_channel_name(tmp_path):
    rows = np.zeros((3, 60))
    rows[:, 30:] = kitchen_task("kitchen-complete").goal
    rows[:, 0] = (0.0, 0.5, 1.0)
    path = draw_run(
        "kitchen-complete", {"observations": rows}, tmp_path / "k.gif", size=64, stride=2, fps=5
    )
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.info["duration"]) == (2, 200)
        assert len(gif.convert("RGB").getcolors()) > 8


def test_observations_of_another_task(tmp_path):
    with pytest.raises(DataError, match=r"observations have shape \(3, 60\), expected \(T, 8\)"):
        draw_run(TASK, np.zeros((3, 60)), tmp_path / "a.gif")
    with pytest.raises(DataError, match="no finite observation"):
        draw_run(TASK, np.full((3, 8), np.nan), tmp_path / "a.gif")


def refusal(tmp_path, **options) -> str:
    with pytest.raises(RenderUnavailable) as caught:
        draw_run(TASK, rows_at((1, 1)), tmp_path / "a.gif", **options)
    assert isinstance(caught.value, ControllerError)
    assert not list(tmp_path.glob("*.gif"))
    message = str(caught.value)
    assert "\n" not in message
    assert "libegl1" in message
    return message


def test_a_library_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "abacus")
    assert "abacus:" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("kill -SEGV $$", "egl: ended with status -11; osmesa: ended with status -11"),
        ("exec sleep 60", "not done within 0.2 s"),
        ("exit 0", "ended with status 0"),
        ("echo first >&2; echo no display >&2; exit 1", "egl: no display"),
    ],
)
def test_a_drawing_process_that_fails_is_only_a_line(tmp_path, monkeypatch, program, said):
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\n{program}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    timeout_s = 0.2 if "sleep" in program else 30.0
    assert said in refusal(tmp_path, timeout_s=timeout_s)
