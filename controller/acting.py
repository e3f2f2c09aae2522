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
        anytime: draw fewer candidates, then take fewer steps, when the time left until an
            answer's deadline is too short for all of them. Of no effect where nothing has a
            deadline, as in an evaluation.
        min_steps: anytime, the fewest steps.
        min_candidates: anytime, the fewest candidates.
        reserve_ms: anytime, time before the deadline that is left to the answer's way back.
        prefix_draws: of a consistency or diffusion policy, answers drawn to find one that goes on
            from rows that are decided already, of a request that brings some; 1 only in-paints
            them, which a policy of few steps hardly feels. Of no effect with candidates.
    """

    steps: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    candidates: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    select: Select | None = None
    temperature: NonNegative | None = None
    anytime: bool = False
    min_steps: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    min_candidates: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1
    reserve_ms: NonNegative = 0.5
    prefix_draws: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32


AS_BUNDLED = ActSettings()
"""Everything as the bundle says."""
