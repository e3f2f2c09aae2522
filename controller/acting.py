"""How an action is chosen, where a policy leaves a choice to whoever uses it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from controller.ranges import NonNegative

Select = Literal["softmax", "argmax"]


class ActSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an action is chosen; null leaves it as the policy's bundle says.

    Attributes:
        steps: network evaluations per action.
        candidates: actions drawn at once, of which the critics choose one; 1 draws one.
        select: ``softmax`` of the least Q of the candidates, or ``argmax``.
        temperature: factor on the noise that sampling starts from; 0 for the middle of a
            Gaussian.
    """

    steps: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    candidates: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    select: Select | None = None
    temperature: NonNegative | None = None


AS_BUNDLED = ActSettings()
"""Everything as the bundle says."""
