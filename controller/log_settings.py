"""Settings of the log of a run."""

from __future__ import annotations

import msgspec

from controller.ranges import Count, Positive


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the log.

    Attributes:
        max_mb: size in megabytes (10^6 bytes) at which the log goes on in a further file,
            log_0001.mcap after log.mcap; null for one file.
        keep: newest files to keep, the one that is being written included; older ones are
            removed. null for all. Needs max_mb.
    """

    max_mb: Positive | None = None
    keep: Count | None = None

    def __post_init__(self) -> None:
        if self.keep is not None and self.max_mb is None:
            raise ValueError("keep is for a log in several files: it needs max_mb")

    @property
    def max_bytes(self) -> int | None:
        """Size at which a further file is begun, in bytes; None for never."""
        return None if self.max_mb is None else round(self.max_mb * 1e6)
