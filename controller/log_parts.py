"""The files of one log: ``log.mcap``, then ``log_0001.mcap``, ``log_0002.mcap`` and so on.

Every file is a log of its own, with the whole header, which names the run and the number of the
part. Only files of one run and with the numbers of their names belong together: a file that
merely looks like a further part is another log.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from glob import escape
from pathlib import Path

import msgspec

from controller.errors import LogError
from controller.log_records import MAGIC, Opcode, RecordStream
from controller.log_schema import METADATA

SUFFIX = ".mcap"
RECOVERED = "-recovered"
"""End of the name of a log that was made of what could be read of another."""
_NUMBERED = re.compile(r"(.+)_(\d{4,})")


class Identity(msgspec.Struct, frozen=True):
    """What tells which log a file belongs to.

    Attributes:
        run: identity of the run; empty in logs of earlier versions.
        part: number of the file.
        first_part: number of the oldest file that was kept when this one was begun.
    """

    run: str = ""
    part: int = 0
    first_part: int = 0


def part_path(head: Path, number: int) -> Path:
    """Return the name of a part; part 0 is the head itself."""
    return head.with_name(f"{head.stem}_{number:04d}{head.suffix}") if number else head


def header_text(path: Path) -> str | None:
    """Return the header of a file as it stands there, None where it cannot be read."""
    try:
        with open(path, "rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                return None
            for record in RecordStream(stream, path.stat().st_size):
                if record.opcode == Opcode.METADATA:
                    found = record.metadata()
                    return found.metadata.get("header") if found.name == METADATA else None
    except Exception:  # Whatever a damaged file makes the decoders raise.
        return None
    return None


def identity_of(path: Path) -> Identity | None:
    """Return what the header of a file says of its place, None where it cannot be read."""
    try:
        return msgspec.json.decode(header_text(path) or "", type=Identity)
    except msgspec.MsgspecError:
        return None


def parts_of(head: Path) -> dict[int, Path]:
    """Return the files of a log that are there, by number, in order.

    A file between two of them whose header cannot be read is taken to be one of them.

    Args:
        head: the log's first file, which may be gone; a later part that is named itself stands
            alone.
    """
    about = identity_of(head)
    if about is not None and about.part:
        return {about.part: head}
    there = dict(_numbered(head))
    said = {number: identity_of(path) for number, path in sorted(there.items())}
    whole = {number: i.run for number, i in said.items() if i is not None and i.part == number}
    run = about.run if about is not None else next(reversed(whole.values()), "")
    ours = [number for number, other in whole.items() if other == run]
    found = {number: there[number] for number in said if number in ours}
    if ours:
        first = 0 if head.exists() else ours[0]
        found |= {n: there[n] for n, i in said.items() if i is None and first < n < ours[-1]}
    if head.exists() or not found:
        found[0] = head
    return dict(sorted(found.items()))


def is_log(head: Path) -> bool:
    """Return whether any file of a log is there."""
    return any(path.is_file() for path in parts_of(head).values())


def log_at(path: Path) -> Path:
    """Return the first file of the log that a file or a directory means.

    Raises:
        LogError: a directory without a log, or with several of which none is log.mcap.
    """
    if not path.is_dir():
        return path
    logs = logs_in(path)
    usual = path / f"log{SUFFIX}"
    if usual in logs or len(logs) == 1:
        return usual if usual in logs else logs[0]
    names = ", ".join(log.name for log in logs[:5])
    what = f"several logs ({names}{', ...' if len(logs) > 5 else ''}): name one" if logs else ""
    raise LogError(f"{path} is a directory, expected a log: it has {what or 'none in it'}")


def logs_in(directory: Path) -> list[Path]:
    """Return the first file of each log in a directory, sorted; it may be one that is gone."""
    heads = set()
    for path in directory.glob(f"*{SUFFIX}"):
        match = _NUMBERED.fullmatch(path.stem)
        about = identity_of(path) if match else None
        later = match is not None and about is not None and about.part == int(match[2]) > 0
        heads.add(path.with_name(f"{match[1]}{SUFFIX}") if later and match else path)
    return sorted(heads)


def runs_in(directory: Path) -> list[Path]:
    """Return the logs in a directory, one for each run: a recovered log rather than its origin."""
    chosen: dict[str, Path] = {}
    for log in sorted(logs_in(directory), key=lambda path: not path.stem.endswith(RECOVERED)):
        about = identity_of(next(iter(parts_of(log).values())))
        chosen.setdefault(about.run if about and about.run else str(log), log)
    return sorted(chosen.values())


def set_aside(head: Path) -> None:
    """Rename the files of a log that is there, so that ``head`` is free for another.

    They are named after the time of the newest of them: log-20250131-120000.mcap and so on.
    """
    files = dict(_numbered(head)) | ({0: head} if head.exists() else {})
    if not files:
        return
    newest = max(path.stat().st_mtime for path in files.values())
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(newest))
    kept, again = head.with_name(f"{head.stem}-{stamp}{head.suffix}"), 1
    while any(part_path(kept, number).exists() for number in files):
        again += 1
        kept = head.with_name(f"{head.stem}-{stamp}-{again}{head.suffix}")
    for number, path in files.items():
        path.rename(part_path(kept, number))


def _numbered(head: Path) -> Iterator[tuple[int, Path]]:
    for path in head.parent.glob(f"{escape(head.stem)}_*{head.suffix}"):
        match = _NUMBERED.fullmatch(path.stem)
        if match and match[1] == head.stem and part_path(head, int(match[2])) == path:
            yield int(match[2]), path
