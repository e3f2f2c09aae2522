"""Milliseconds of an update while a policy is fine-tuned, one core, 256 rows, Hopper's sizes:

``critics`` and ``policy``: one update of each, medians of turns that all cases take in rotation;
``of_offline``: both together over those of offline Consistency-AC in the same run;
``of_products``: both together over the matrix products of the update alone, at the rate of a
product of 256 x 256 x 256 in the same run.

    python -m tests.benchmarks.online_updates [--json] [--compile] [--rounds 40]
"""

import argparse
import statistics
import time
from itertools import pairwise

import torch

from controller.config import load
from controller.display import put_rows
from controller.spec import ArraySpec, Spec
from policies.algos.learner import Batch, Sizes
from policies.algos.sac import Batch as PlainBatch
from policies.algos.sac import SoftActorCritic
from policies.finetuning.agent import make_agent
from policies.finetuning.settings import FinetuneConfig
from policies.learners import make_learner
from policies.settings import TrainConfig

OBSERVATION, ACTION, ROWS, WIDTH = 11, 3, 256, 256
TIME_FEATURES, CALLS = 16, 2
SPEC = Spec(
    task="sizes",
    observation=(ArraySpec("state", (OBSERVATION,)),),
    action=ArraySpec("torque", (ACTION,), "float32", "", (-1.0,) * ACTION, (1.0,) * ACTION),
    rate_hz=125.0,
)
CASES = {
    "robust": ("learn.algorithm=consistency_ac",),
    "robust, targets of all": ("learn.algorithm=consistency_ac", "learn.subset=0"),
    "paper": ("preset=paper", "learn.algorithm=consistency_ac", "learn.steps=2"),
    "sac": ("learn.algorithm=sac",),
    "rlpd": ("learn.algorithm=sac", "offline=none"),
}


def rows():
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(1, ROWS, *shape, generator=draw)

    action = normal(ACTION).tanh()
    return Batch(
        normal(OBSERVATION), action, normal(), normal(OBSERVATION), torch.ones(1, ROWS), action
    )


def perceptron(inputs, hidden, outputs):
    """Return the multiply-adds of one row, forward."""
    widths = (inputs, *hidden, outputs)
    return sum(a * b for a, b in pairwise(widths))


def products_of(agent):
    """Return the multiply-adds of one update of critics and policy.

    A network goes back at twice the price of forward for its weights, at once for its input
    alone. Policies act for the target, act for L_q and come back, and imitate: twice forward,
    once back.
    """
    shape, subset = agent.learner.critic, agent.learner.values.subset
    critic = perceptron(OBSERVATION + ACTION, shape.hidden, 1)
    critics = (3 * shape.count + (subset or shape.count) + 2 * shape.count) * critic
    if agent.algorithm == "sac":
        return ROWS * (critics + 4 * perceptron(OBSERVATION, (WIDTH, WIDTH), 2 * ACTION))
    inputs = ACTION + TIME_FEATURES + OBSERVATION
    policy = perceptron(inputs, (WIDTH,) * 3, ACTION)
    imitation = 4 if agent.settings.imitation else 0
    return ROWS * (critics + (4 * CALLS + imitation) * policy)


def offline(batch, fuse):
    words = ("algorithm=consistency_ac", f"optimiser.compile={fuse}")
    learner = make_learner(load(TrainConfig, None, words), Sizes(ACTION, OBSERVATION))
    variant = learner.prepare(5)
    return (
        lambda: learner.update_critics(batch),
        lambda: learner.update_actor(batch, batch.condition, variant),
    )


def online(agent, batch):
    return (
        lambda: agent.update_critics(batch, 5),
        lambda: agent.update_actor(batch.condition, batch, 5),
    )


def by_hand(batch):
    learner = SoftActorCritic(
        OBSERVATION,
        ACTION,
        (WIDTH, WIDTH),
        learning_rate=3e-4,
        discount=0.99,
        tau=0.005,
        temperature=None,
        target_entropy=None,
        generator=torch.Generator().manual_seed(0),
    )
    columns = (batch.condition, batch.action, batch.reward, batch.alive, batch.next_condition)
    plain = PlainBatch(*(column[0] for column in columns))
    return (lambda: learner.update(plain), lambda: None)


def medians(acts, rounds):
    """Return the median milliseconds of a call of each, taken in turns."""
    for act in acts:
        for _ in range(3):
            act()
    times = [[] for _ in acts]
    for _ in range(rounds):
        for act, seen in zip(acts, times, strict=True):
            start = time.perf_counter()
            act()
            act()
            seen.append(500.0 * (time.perf_counter() - start))
    return [statistics.median(seen) for seen in times]


def table(fuse, rounds):
    """Return a row of figures for each case."""
    batch, word = rows(), f"learn.compile={str(fuse).lower()}"
    agents = {
        name: make_agent(load(FinetuneConfig, None, (*words, word)), SPEC, None)
        for name, words in CASES.items()
    }
    pairs = {"offline Consistency-AC": offline(batch, str(fuse).lower())}
    pairs |= {name: online(agent, batch) for name, agent in agents.items()}
    pairs["onebeat sac, by hand"] = by_hand(batch)
    left, right, out = torch.randn(3, ROWS, WIDTH)
    acts = [act for pair in pairs.values() for act in pair]
    *times, product = medians([*acts, lambda: torch.mm(left, right, out=out)], rounds)
    whole = times[0] + times[1]
    made = []
    for index, name in enumerate(pairs):
        critics, policy = times[2 * index : 2 * index + 2]
        row = {
            "case": name,
            "critics_ms": round(critics, 2),
            "policy_ms": round(policy, 2),
            "of_offline": round((critics + policy) / whole, 2),
            "of_products": None,
        }
        if name in agents:
            floor = product * products_of(agents[name]) / (ROWS * WIDTH * WIDTH)
            row["of_products"] = round((critics + policy) / floor, 2)
        made.append(row)
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=40)
    words = parser.parse_args()
    torch.set_num_threads(1)
    put_rows(table(words.compile, words.rounds), words.json)


if __name__ == "__main__":
    main()
