"""Updates per second of the paper's four algorithms, with the sizes of Hopper and 256 rows:

``updates_s``: ours, as training does them, drawing of rows included; of all seeds together;
``baseline_updates_s``: ``tests.benchmarks.plain``, the same as usually written, one seed;
``floor_updates_s``: as many as the matrix products of an update allow at the rate of a product of
256 x 256 x 256, of as many of them at once as there are seeds.

The three take turns; figures are medians of the turns. ``loss_diff`` is the largest relative
difference between the losses of both over the first 5 updates, from the same weights, rows and
random numbers.

    python tests/benchmarks/train_step.py [ALGORITHM ...] [--json] [--device cuda] [--quick]
"""

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch

from controller.config import load
from controller.display import put_rows
from controller.host import examine_host
from controller.spec import ArraySpec, Spec
from controller.transitions import Transitions, layout_of
from policies import codec
from policies.algos.learner import Sizes
from policies.learners import make_learner
from policies.settings import TrainConfig
from policies.stepper import make_stepper
from policies.table import Table
from tests.benchmarks.plain.agents import Buffer
from tests.benchmarks.plain.arithmetic import evaluations, multiply_adds
from tests.benchmarks.plain.draws import Draws
from tests.benchmarks.plain.match import Shadow, plain_batch, plain_of
from tests.benchmarks.sim_steps import commit_of

OBSERVATION, ACTION, ROWS = 11, 3, 20_000
LATE = 10_000
"""Update at which the figures are taken: averages move, and the curriculum is half way."""
STEPS = {
    "consistency_ac": (1, 2, 5, 10),
    "diffusion_ql": (2, 5, 10),
    "consistency_bc": (1,),
    "diffusion_bc": (5,),
}
COMPARED = 5


def config_of(algorithm, steps, fuse):
    """Return what the published code has for Hopper medium-expert, with another N."""
    key = "improve" if algorithm.startswith("consistency") else "chain"
    words = (
        "preset=released",
        "task=hopper-medium-expert",
        f"algorithm={algorithm}",
        f"{key}.steps={steps}",
        f"optimiser.compile={str(fuse).lower()}",
    )
    return load(TrainConfig, None, words)


def table_of(config, device):
    """Return random transitions of Hopper's sizes."""
    spec = Spec(
        task="sizes",
        observation=(ArraySpec("state", (OBSERVATION,)),),
        action=ArraySpec("torque", (ACTION,), "float32", "", (-1.0,) * ACTION, (1.0,) * ACTION),
        rate_hz=125.0,
    )
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((ROWS + 1, OBSERVATION)).astype(np.float32)
    data = Transitions(
        observations=observations[:-1],
        actions=rng.uniform(-0.9, 0.9, (ROWS, ACTION)).astype(np.float32),
        rewards=rng.standard_normal(ROWS).astype(np.float32),
        next_observations=observations[1:],
        terminals=np.arange(1, ROWS + 1) % 500 == 0,
        timeouts=np.zeros(ROWS, np.bool_),
        layout=layout_of(spec),
    )
    fitted = codec.fit(data, spec, normalise=config.normalise)
    return Table(data, fitted, config.reward, device)


def sync(device):
    if device == "cuda":
        torch.cuda.synchronize()


class Ours:
    """Our updates.

    Args:
        config: of the learner.
        sizes: of the learner.
        table: its data.
    """

    def __init__(self, config, sizes, table):
        self.config, self.sizes, self.table, self.step = config, sizes, table, LATE
        self.learner = make_learner(config, sizes)
        self.stepper = make_stepper(self.learner, table, config.optimiser.batch)

    def difference(self):
        """Do the first updates beside the baseline; return how far their losses are apart."""
        shadow = Shadow(self.config, self.sizes, {0, len(self.sizes.seeds) - 1})
        worst = 0.0
        for step in range(COMPARED):
            rows = shadow.rows(self.table, self.stepper.rows.shape)
            figures = self.stepper(step)
            assert torch.equal(rows, self.stepper.rows)
            theirs = shadow.update(self.table.take(rows), step)
            worst = max(worst, shadow.loss_difference(figures, theirs))
        return worst

    def __call__(self):
        figures = self.stepper(self.step)
        self.step += 1
        if self.sizes.device == "cpu":
            assert all(math.isfinite(float(each.sum())) for each in figures.values())

    def warm_up(self):
        """Meet every variant of an update often enough to be compiled or captured."""
        for _ in range(100 if self.sizes.device == "cuda" else 20):
            self()


class Theirs:
    """Updates of the baseline."""

    def __init__(self, config, table, device):
        sizes = Sizes(ACTION, OBSERVATION, (0,), device)
        self.agent = plain_of(config, sizes, draws=Draws(device))
        self.agent.step = LATE
        every = torch.arange(len(table), device=device)[None]
        self.buffer = Buffer(*(column.clone() for column in plain_batch(table.take(every))))
        self.batch = config.optimiser.batch

    def __call__(self):
        self.agent.update(self.buffer.sample(self.batch))


class Products:
    """Products of 256 x 256 x 256, R at once."""

    def __init__(self, runs, device):
        self.left, self.right, self.out = torch.randn(3, runs, 256, 256, device=device)
        self.multiply_adds = runs * 256**3

    def __call__(self):
        torch.bmm(self.left, self.right, out=self.out)


def duration(act, times, device):
    """Return the seconds of one call."""
    sync(device)
    start = time.perf_counter()
    for _ in range(times):
        act()
    sync(device)
    return (time.perf_counter() - start) / times


def medians(acts, device, turn_s, rounds):
    """Return the median seconds of a call of each, taken in turns."""
    counts = [max(1, round(turn_s / duration(act, 3, device))) for act in acts]
    turns = [
        [duration(act, times, device) for act, times in zip(acts, counts, strict=True)]
        for _ in range(rounds)
    ]
    return [statistics.median(column) for column in zip(*turns, strict=True)]


def measure(algorithm, steps, seeds, given):
    """Return one row of figures."""
    device, fuse = given.device, given.compile
    config = config_of(algorithm, steps, fuse)
    sizes = Sizes(ACTION, OBSERVATION, tuple(range(seeds)), device)
    table = table_of(config, device)
    ours, theirs = Ours(config, sizes, table), Theirs(config, table, device)
    products = Products(seeds, device)
    difference = ours.difference()
    ours.warm_up()
    turn_s, rounds = (0.05, 2) if given.quick else (0.3, given.rounds)
    own, plain, product = medians((ours, theirs, products), device, turn_s, rounds)
    floor = multiply_adds(config, sizes) * product / products.multiply_adds
    return {
        "algo": algorithm,
        "steps": evaluations(config),
        "device": device,
        "seeds": seeds,
        "threads": given.threads,
        "compile": fuse,
        "baseline_updates_s": round(1 / plain, 2),
        "updates_s": round(seeds / own, 2),
        "ratio": round(seeds * plain / own, 2),
        "loss_diff": float(f"{difference:.2g}"),
        "floor_updates_s": round(1 / floor, 2),
    }


def parse():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("algorithms", nargs="*", help=f"of {', '.join(STEPS)}; all by default")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="short turns: to see that it works")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, help="only rows with this N")
    parser.add_argument("--seeds", help="learned side by side; 1, or 1,8,32 on CUDA, by default")
    fuse = argparse.BooleanOptionalAction
    parser.add_argument("--compile", action=fuse, help="on a CPU by default")
    given = parser.parse_args()
    if unknown := [name for name in given.algorithms if name not in STEPS]:
        parser.error(f"{', '.join(unknown)}: expected {', '.join(STEPS)}")
    given.seeds = given.seeds or ("1,8,32" if given.device == "cuda" else "1")
    if given.compile is None:
        given.compile = given.device == "cpu"
    return given


def main():
    given = parse()
    torch.set_num_threads(given.threads)
    rows = []
    for algorithm in given.algorithms or STEPS:
        for steps in STEPS[algorithm]:
            if given.steps not in (None, steps):
                continue
            for seeds in map(int, given.seeds.split(",")):
                rows.append(measure(algorithm, steps, seeds, given))
                print(f"{algorithm} {steps}, {seeds} seeds: {rows[-1]['ratio']}", file=sys.stderr)
    if not given.json:
        host = examine_host(realtime=False)
        where = torch.cuda.get_device_name() if given.device == "cuda" else host.cpu
        print(f"{where}, {host.cores} cores, torch {torch.__version__}, commit {commit_of('.')}")
    put_rows(rows, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
