"""A dataset as it was opened: the transitions, and what came with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.spec import Spec
from controller.transitions import Transitions
from policies.data.names import Published

Attribute = str | int | float


@dataclass(frozen=True)
class Dataset:
    """Transitions, and what is known of where they come from.

    Attributes:
        transitions: the data, real numbers in float32.
        source: the file or directory.
        spec: the robot it was written with, None for data from elsewhere.
        published: the published dataset it is called after, None for another.
        reference: returns of score 0 and 100 that came with the data.
        attributes: further facts by name, such as the seed or the policy.
        notes: how the file was understood, where it leaves room for doubt; one line each.
    """

    transitions: Transitions
    source: str
    spec: Spec | None = None
    published: Published | None = None
    reference: tuple[float, float] | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
