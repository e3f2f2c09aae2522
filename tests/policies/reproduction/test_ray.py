"""A plan whose runs are trained on a Ray of this machine, beside the same plan without."""

import msgspec
import pytest

from controller.ray_child import LOST
from policies.data.d4rl import write_d4rl
from policies.reproduction.children import Job, placed, work
from policies.reproduction.course import Course
from policies.train import train
from tests.policies.reproduction.made import plan
from tests.policies.robots import SPEC, toy_data

pytestmark = pytest.mark.ray
NAME = "hopper-medium-expert-regen"


@pytest.fixture(autouse=True)
def _ray():
    pytest.importorskip("ray", reason="pip install 'onebeat[ray]'")


def test_two_cells_come_to_the_same_weights_as_without_ray(tmp_path):
    file = tmp_path / f"{NAME}.hdf5"
    write_d4rl(file, toy_data(), SPEC)
    config = plan(
        out=str(tmp_path / "runs"), datasets=(NAME,), sources={NAME: str(file)},
        algorithms=("consistency_bc",), only="train", workers=2, ray=True,
        settings=("optimiser={steps: 4, batch: 32}", "network.hidden=[8]", "critic.hidden=[8]",
                  "tensorboard=false"),
    )  # fmt: skip
    course = Course(config)
    assert course.finish()
    assert course.tally.failed == {}
    assert sorted(course.tally.trained) == [f"{NAME}/consistency_bc/seed_{n}" for n in (0, 1)]
    for cell in course.cells:
        store, here = cell.store(config.out), tmp_path / "here" / cell.name
        assert (store / "train.log").is_file()
        settings = msgspec.structs.replace(cell.resolve(str(file)), seed=cell.seed)
        train(settings, toy_data(), SPEC, here)
        # The name of a bundle holds a digest of its weights.
        assert (store / "current").resolve().name == (here / "current").resolve().name


def test_what_fails_on_a_node_is_told_and_does_not_stop_the_others(tmp_path):
    failed, done = {}, []
    jobs = [
        Job("a", "show", ["/nowhere/x"], tmp_path / "logs" / "a.log",
            failed=lambda said: failed.update(a=said)),
        Job("b", "sim list", ["--json"], tmp_path / "logs" / "b.log", stdout=tmp_path / "b.json",
            after=lambda: done.append("b") or ()),
    ]  # fmt: skip
    with placed(True, 2, tmp_path / "runs") as make:
        assert work(jobs, 2, make=make)
    assert done == ["b"]
    assert (tmp_path / "b.json").read_text().startswith("[")
    assert "/nowhere/x" in failed["a"]
    assert failed["a"] in (tmp_path / "logs" / "a.log").read_text()
    assert list((tmp_path / "runs").iterdir()) == []
    assert LOST == -9
