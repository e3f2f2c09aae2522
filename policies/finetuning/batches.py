"""From rows as they travel to what a learner takes: network units, mixed with offline data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from controller.feed.rows import Float32, RowLayout
from policies.algos.learner import Batch
from policies.codec import Codec
from policies.finetuning.rules import Kinds, Rules
from policies.table import Table


class Encoder:
    """Translates rows into network units: one gather, one line, for all of them at once.

    Computed in float64, as the codec does, so that a row gives the numbers it gives there.

    Args:
        layout: of the rows.
        codec: of the policy.
        device: where the batches go.
    """

    def __init__(self, layout: RowLayout, codec: Codec, device: str = "cpu") -> None:
        columns = layout.split(np.arange(layout.width, dtype=np.float32)[None])
        place = {name: view.reshape(-1).astype(np.int64) for name, view in columns.items()}
        seen, after = (place[name][codec.columns] for name in ("observation", "next_observation"))
        self._columns = np.concatenate(
            [seen, place["acted"], after, place["action"], place["reward"], place["terminal"]]
        )
        self._offset = np.concatenate(
            [codec.mean, codec.centre, codec.mean, codec.centre, [0.0, 0.0]]
        )
        self._span = np.concatenate([codec.scale, codec.span, codec.scale, codec.span, [1.0, 1.0]])
        self._edges = np.cumsum([len(seen), layout.action, len(seen), layout.action]).tolist()
        self._device = device
        self._kind = layout.number("kind")

    def kinds(self, rows: Float32) -> Kinds:
        """Return (B,) the ``RowKind`` of each row."""
        return rows[:, self._kind].astype(np.int64)

    def batch(self, rows: Float32) -> tuple[Batch, Tensor]:
        """Return rows (B, width) as a batch (1, B, .) of what acted, and what answered (1, B, A).

        Nobody knows their next actions: zeros.
        """
        encoded = rows.take(self._columns, 1).astype(np.float64)
        encoded -= self._offset
        encoded /= self._span
        numbers = torch.from_numpy(encoded.astype(np.float32)).to(self._device)[None]
        first, second, third, fourth = self._edges
        action = numbers[..., first:second]
        batch = Batch(
            condition=numbers[..., :first],
            action=action,
            reward=numbers[..., -2],
            next_condition=numbers[..., second:third],
            alive=1.0 - numbers[..., -1],
            next_action=torch.zeros_like(action),
        )
        return batch, numbers[..., third:fourth]


def rows_of(batch: Batch, rows: slice | Tensor) -> Batch:
    """Return rows of a batch (1, B, .)."""
    return Batch(*(column[:, rows] for column in vars(batch).values()))


def joined(*parts: Batch) -> Batch:
    """Return batches one after the other."""
    if len(parts) == 1:
        return parts[0]
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Batch(*(torch.cat(column, 1) for column in columns))


@dataclass(frozen=True)
class Lesson:
    """What one update learns from.

    Attributes:
        batch: (1, B, .) for the critics, and the observations at which they judge the policy.
        anchors: (1, B, .) rows that the policy imitates; None where there are none.
    """

    batch: Batch
    anchors: Batch | None


class Offline:
    """Rows of the offline data, drawn evenly with the learner's own generator."""

    def __init__(self, table: Table, generator: torch.Generator) -> None:
        self._table, self._generator = table, generator

    def __len__(self) -> int:
        return len(self._table)

    def draw(self, count: int) -> Batch:
        """Draw a batch (1, count, .)."""
        return self._table.take(
            torch.randint(
                len(self._table),
                (1, count),
                generator=self._generator,
                device=self._generator.device,
            )
        )


def own_rows(batch: int, share: float, offline: bool) -> int:
    """Return the rows of a batch that are not offline: at least one, all without offline data."""
    return max(1, batch - round(batch * share)) if offline else batch


class Mixer:
    """Fills batches of B rows: those that were drawn from replay, the rest offline.

    Args:
        encoder: of the rows from replay.
        rules: what those teach.
        offline: the offline data; None for none.
        share: of a batch that is offline.
        batch: B.
        generator: source of the draws.

    Attributes:
        own: rows of a batch that come from replay.
    """

    def __init__(
        self,
        encoder: Encoder,
        rules: Rules,
        offline: Offline | None,
        share: float,
        batch: int,
        generator: torch.Generator,
    ) -> None:
        self._encoder, self._rules, self._offline = encoder, rules, offline
        self._generator, self._batch = generator, batch
        self.own = own_rows(batch, share, offline is not None)

    def lessons(self, rows: Float32) -> Iterator[Lesson]:
        """Yield what one update after the other learns from.

        What is random is drawn as each is taken, so that a learner that was saved between two
        draws the same again. Rows that teach nobody give way to others of the batch; a batch of
        nothing else is left out where there are no offline data.

        Args:
            rows: (batches * own, width) from replay.
        """
        kinds = self._encoder.kinds(rows)
        self._rules.count(kinds)
        whole, answers = self._encoder.batch(rows)
        for start in range(0, len(rows), self.own):
            part = slice(start, start + self.own)
            lesson = self._lesson(rows_of(whole, part), answers[:, part], kinds[part])
            if lesson is not None:
                yield lesson

    def offline_lesson(self) -> Lesson:
        """Return one that is offline from end to end."""
        assert self._offline is not None
        batch = self._offline.draw(self._batch)
        return Lesson(batch, batch)

    def _lesson(self, own: Batch, answers: Tensor, kinds: Kinds) -> Lesson | None:
        kept = np.flatnonzero(self._rules.kept(kinds))
        if len(kept) < len(kinds):
            if not len(kept):
                return self.offline_lesson() if self._offline is not None else None
            chosen = kept[self._draw(len(kept), len(kinds)).cpu().numpy()]
            places = torch.from_numpy(chosen)
            own, answers, kinds = rows_of(own, places), answers[:, places], kinds[chosen]
        extra = self._batch - self.own
        batch = joined(own, self._offline.draw(extra)) if self._offline and extra else own
        imitated = np.flatnonzero(self._rules.imitated(kinds))
        answered = replace(batch, action=torch.cat([answers, batch.action[:, self.own :]], 1))
        return Lesson(batch, self._anchors(answered, imitated, extra))

    def _anchors(self, batch: Batch, imitated: Kinds, extra: int) -> Batch | None:
        pool = np.append(imitated, np.arange(self._batch - extra, self._batch))
        if not len(pool):
            return None
        if len(pool) == self._batch:
            return batch
        places = torch.from_numpy(pool).to(batch.reward.device)
        return rows_of(batch, places[self._draw(len(pool), self._batch)])

    def _draw(self, pool: int, count: int) -> Tensor:
        device = self._generator.device
        return torch.randint(pool, (count,), generator=self._generator, device=device)
