"""Watching a task: what is replayed is what was driven."""

import numpy as np
import pytest
from PIL import Image

from controller.errors import ConfigError
from sim.errors import RenderUnavailable
from sim.registry import make_plant, task_spec
from sim.settings import ViewConfig
from sim.view import has_display, randomly, record, resting, view

TASK = "pointmaze-umaze"


@pytest.fixture(scope="module", autouse=True)
def any_backend():
    """Forget a backend or a display that this machine's environment may name."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def can_draw(tmp_path_factory):
    out = tmp_path_factory.mktemp("gl") / "a.png"
    try:
        view(ViewConfig(task=TASK, seconds=0.01, size=32, out=str(out)))
    except RenderUnavailable as error:
        pytest.skip(str(error))


def states(seed: int, actions) -> list[np.ndarray]:
    plant = make_plant(TASK, seed=seed, episode_steps=20)
    plant.reset(seed)
    seen = [plant.observe().arrays[0]]
    for tick, action in enumerate(actions):
        if plant.observe().done:
            plant.reset()
        plant.command(action, tick)
        seen.append(plant.observe().arrays[0])
    plant.close()
    return seen


def test_recorded_actions_lead_through_the_same_states_again():
    seen = []
    plant = make_plant(TASK, seed=3, episode_steps=20)

    def act(observation, tick):
        seen.append(observation.arrays[0])
        return np.array([np.sin(tick), 1.0])

    actions = record(plant, act, 3, 50, one_episode=False)
    seen.append(plant.observe().arrays[0])
    again = states(3, actions)
    assert len(again) == len(seen) == 51
    # Where an episode ended the driver saw the next one's first state: rows 20 and 40.
    same = [np.array_equal(a, b) for a, b in zip(seen, again, strict=True)]
    assert [row for row, equal in enumerate(same) if not equal] == [20, 40]


def test_one_episode_ends_where_the_episode_does():
    plant = make_plant(TASK, episode_steps=20)
    assert len(record(plant, resting(plant.spec), 0, 50, one_episode=True)) == 20


def test_drivers_stay_within_the_limits_and_repeat():
    spec = task_spec(TASK)
    observation = None
    actions = [[randomly(spec, seed)(observation, t) for t in range(9)] for seed in (1, 1, 2)]
    assert np.array_equal(actions[0], actions[1])
    assert not np.array_equal(actions[0], actions[2])
    assert np.abs(actions[0]).max() <= 1.0
    assert resting(spec)(observation, 0).tolist() == [0.0, 0.0]


def test_displays():
    assert has_display({"DISPLAY": ":0"})
    assert has_display({"WAYLAND_DISPLAY": "wayland-0"})
    assert not has_display({"DISPLAY": ""})


def test_files_of_another_kind():
    with pytest.raises(ConfigError, match=r"a\.avi ends in '\.avi', expected \.gif, \.mp4, \.png"):
        view(ViewConfig(task=TASK, out="a.avi"))


@pytest.mark.usefixtures("can_draw")
def test_cameras_that_the_model_lacks(tmp_path):
    out = tmp_path / "a.png"
    with pytest.raises(ConfigError, match="camera 'bird' is unknown"):
        view(ViewConfig(task=TASK, seconds=0.1, camera="bird", out=str(out)))
    assert not out.exists()


@pytest.mark.usefixtures("can_draw")
def test_a_file_of_each_kind(tmp_path):
    config = ViewConfig(task=TASK, seconds=1.0, size=96, fps=20, out=str(tmp_path / "a.gif"))
    shown = view(config)
    assert shown["steps"] == 100
    with Image.open(shown["out"]) as gif:
        # Every fifth of 100 steps of 10 ms, and the last: 21 frames of 50 ms.
        assert (gif.n_frames, gif.info["duration"], gif.size) == (21, 50, (96, 72))
    view(ViewConfig(task=TASK, seconds=1.0, size=96, out=str(tmp_path / "a.png")))
    with Image.open(tmp_path / "a.png") as still:
        assert np.ptp(np.asarray(still)) > 20
    pytest.importorskip("imageio_ffmpeg")
    view(ViewConfig(task=TASK, seconds=1.0, size=96, out=str(tmp_path / "a.mp4")))
    assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"
