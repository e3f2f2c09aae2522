"""Recipes: which behaviour policies, on which task, for how many steps, make which dataset.

The names end in ``-regen``: these are datasets made again with policies of the same kind, not
the published files. What is known of the published ones stands beside. Those that end in
``-scripted`` have no published counterpart.

Which soft actor-critic snapshot stands for which level was chosen by its mean return:

=========== ========= ============================= ==========================
robot       level     snapshot                      D4RL's mean return
=========== ========= ============================= ==========================
HalfCheetah medium    1                             4770
HalfCheetah expert    8                             10656
Hopper      medium    10                            1422, length 457
Hopper      expert    6, the best there is          3511
Walker2d    medium    3                             2852
Walker2d    expert    9, the best there is          4920
=========== ========= ============================= ==========================

Hopper's medium: over 100 000 steps each, snapshot 10 has a mean return of 1310 and length of 360,
snapshot 3 of 1729 and 533, snapshot 4 of 1062 and 346. The nearest is the last of the run.

There is no replay buffer of those runs. ``medium-replay`` is a stand-in: the first snapshots, the
same number of steps each, in the order of training, up to the one that first reaches about the
medium return.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

Driver = Literal["random", "policy", "navigation", "scripted"]

SUFFIX = "-regen"


@dataclass(frozen=True)
class Published:
    """What is known of D4RL's dataset.

    Attributes:
        return_mean: mean return of an episode.
        score_mean: the same, normalised.
        length_mean: mean length of an episode.
    """

    return_mean: float | None = None
    score_mean: float | None = None
    length_mean: float | None = None


@dataclass(frozen=True)
class Part:
    """A stretch of a dataset with one driver.

    Attributes:
        driver: what drives.
        steps: control steps.
        policy: file of the policy within the directory of policies; empty without one.
        stream: episodes of different streams share no random number.
    """

    driver: Driver
    steps: int
    policy: str = ""
    stream: int = 0


@dataclass(frozen=True)
class Recipe:
    """How one dataset is made.

    Attributes:
        name: name of the dataset.
        task: name of the task.
        parts: what drives, one after another.
        published: what is known of D4RL's dataset.
        noise: standard deviation of noise on the actions.
        options: options of the environment; see ``actors.make_environment``.
        episode_steps: steps after which an episode is cut; 0 for the task's own.
        note: what a reader of the numbers has to know.
    """

    name: str
    task: str
    parts: tuple[Part, ...]
    published: Published = Published()
    noise: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    episode_steps: int = 0
    note: str = ""

    @property
    def steps(self) -> int:
        """Steps of the whole dataset."""
        return sum(part.steps for part in self.parts)

    @property
    def policies(self) -> tuple[str, ...]:
        """Policy files it takes, each once."""
        return tuple(dict.fromkeys(part.policy for part in self.parts if part.policy))

    def lengths(self, steps: int | None = None) -> tuple[int, ...]:
        """Return the steps of each part when the whole is to have ``steps``."""
        whole, total = self.steps, self.steps if steps is None else steps
        ends, done = [0], 0
        for part in self.parts:
            done += part.steps
            ends.append(done * total // whole)
        return tuple(end - start for start, end in pairwise(ends))


@dataclass(frozen=True)
class _Levels:
    """Snapshots and sizes of one robot's datasets; ``replay`` is the last snapshot of it."""

    medium: int
    expert: int
    replay: int
    replay_steps: int
    published: Mapping[str, Published]


MILLION = 1_000_000
LOCOMOTION: Mapping[str, _Levels] = MappingProxyType(
    {
        "halfcheetah": _Levels(
            medium=1,
            expert=8,
            replay=1,
            replay_steps=202_000,
            published={
                "medium": Published(4770.0, 40.7),
                "medium-replay": Published(3093.0, 27.2),
                "expert": Published(10656.0, 88.1),
            },
        ),
        "hopper": _Levels(
            medium=10,
            expert=6,
            replay=4,
            replay_steps=402_000,
            published={
                "medium": Published(1422.0, 44.3, 457.0),
                "medium-replay": Published(467.0, 15.0),
                "expert": Published(3511.0, 108.5),
            },
        ),
        "walker2d": _Levels(
            medium=3,
            expert=9,
            replay=3,
            replay_steps=302_000,
            published={
                "medium": Published(2852.0, 62.1),
                "medium-replay": Published(683.0, 14.8),
                "expert": Published(4920.0, 107.0),
            },
        ),
    }
)

ANTMAZES = (
    "umaze",
    "umaze-diverse",
    "medium-play",
    "medium-diverse",
    "large-play",
    "large-diverse",
)
ANTMAZE_POLICY = "antmaze/ant_navigation.npz"
ANTMAZE_STEPS = 1001
"""D4RL's generator looks at the count of steps before it adds one."""
ANTMAZE_NOISE = 0.2
ADROIT_STEPS = {"pen": 500_000, "door": MILLION}
ADROIT_PUBLISHED = {"pen": 3076.8331017826877, "door": 2880.5693087298737}
"""Return of score 100: D4RL took it from its own expert dataset."""
SCRIPTED = ("FetchReach-v4", "FetchPush-v4", "FetchSlide-v4", "FetchPickAndPlace-v4")
SCRIPT_STEPS = 200_000
SCRIPT_NOISE = 0.1


@functools.cache
def recipes() -> Mapping[str, Recipe]:
    """Return every recipe by name."""
    found = [*_locomotion(), *_antmaze(), *_adroit(), *_scripted()]
    return MappingProxyType({recipe.name: recipe for recipe in found})


def snapshot(robot: str, index: int, steps: int) -> Part:
    """Return a part that a soft actor-critic snapshot drives; its stream is its number.

    Parts of several datasets with one seed thereby consist of the same episodes: medium-expert
    is medium followed by expert, as in D4RL.
    """
    return Part("policy", steps, f"{robot}/sac_snapshot_{index:02d}.npz", stream=index)


def _locomotion() -> Iterator[Recipe]:
    for robot, levels in LOCOMOTION.items():
        medium = snapshot(robot, levels.medium, MILLION)
        expert = snapshot(robot, levels.expert, MILLION)
        share = levels.replay_steps // (levels.replay + 1)
        replay = [snapshot(robot, index, share) for index in range(levels.replay)]
        replay.append(snapshot(robot, levels.replay, levels.replay_steps - share * levels.replay))
        parts: dict[str, tuple[Part, ...]] = {
            "random": (Part("random", MILLION),),
            "medium-replay": tuple(replay),
            "medium": (medium,),
            "medium-expert": (medium, expert),
            "expert": (expert,),
        }
        mixture = (
            f"a mixture of snapshots 0 to {levels.replay}, equal steps of each, in order of "
            "training: a stand-in for a replay buffer"
        )
        for level, of_level in parts.items():
            yield Recipe(
                f"{robot}-{level}{SUFFIX}",
                robot,
                of_level,
                published=levels.published.get(level, Published()),
                note=mixture if level == "medium-replay" else "",
            )


def _antmaze() -> Iterator[Recipe]:
    for maze in ANTMAZES:
        yield Recipe(
            f"antmaze-{maze}{SUFFIX}",
            f"antmaze-{maze}",
            (Part("navigation", MILLION, ANTMAZE_POLICY, stream=int(maze.endswith("diverse"))),),
            noise=ANTMAZE_NOISE,
            options={"multistart": maze != "umaze"},
            episode_steps=ANTMAZE_STEPS,
            # Play and diverse data of a maze differ in nothing but the draw: D4RL's generator
            # takes a flag for several goals and uses it in the file's name alone.
            note="rewards and terminals relabelled for one goal of the evaluation maze",
        )


def _adroit() -> Iterator[Recipe]:
    for hand, steps in ADROIT_STEPS.items():
        yield Recipe(
            f"{hand}-expert{SUFFIX}",
            hand,
            (Part("policy", steps, f"{hand}/dapg_expert.npz"),),
            published=Published(ADROIT_PUBLISHED[hand], 100.0),
        )


def _scripted() -> Iterator[Recipe]:
    for task in SCRIPTED:
        part = Part("scripted", SCRIPT_STEPS)
        yield Recipe(f"{task}-scripted", task, (part,), noise=SCRIPT_NOISE)


def rows() -> list[dict[str, Any]]:
    """Return one row of plain facts for every recipe."""
    return [
        {
            "dataset": recipe.name,
            "task": recipe.task,
            "steps": recipe.steps,
            "policies": list(recipe.policies),
            "d4rl_return_mean": recipe.published.return_mean,
            "d4rl_score_mean": recipe.published.score_mean,
            "d4rl_length_mean": recipe.published.length_mean,
            "note": recipe.note,
        }
        for recipe in recipes().values()
    ]
