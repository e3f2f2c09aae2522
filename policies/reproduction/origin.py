"""Where a run was trained: a note beside it, as it may be scored on another machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec

from controller.host import examine_host

ORIGIN = "trained.json"
GPUS = "/proc/driver/nvidia/gpus"


class Origin(msgspec.Struct, frozen=True):
    """Where a run was trained.

    Attributes:
        machine: processor and cores, or the GPU.
        side_by_side: seeds that were trained at once in the process.
        commit: of the product; empty where that is not known.
    """

    machine: str
    side_by_side: int = 1
    commit: str = ""


def machine(device: str = "cpu") -> str:
    """Return what people call this machine, or its first GPU for ``cuda``."""
    host = examine_host(realtime=False)
    processor = f"{host.cpu}, {host.cores} core{'s' if host.cores > 1 else ''}"
    return f"{_gpu()}, {processor}" if device == "cuda" else processor


def _gpu() -> str:
    for file in sorted(Path(GPUS).glob("*/information")):
        for line in file.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "Model":
                return value.strip()
    return "CUDA GPU"


def commit() -> str:
    """Return the commit this product is of, empty outside a repository of its own."""
    root = Path(__file__).resolve().parents[2]
    words = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "--short", "HEAD"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    top, _, short = done.stdout.strip().partition("\n")
    return short if done.returncode == 0 and Path(top) == root else ""


def write_origin(store: Path, origin: Origin) -> None:
    """Leave the note beside a run."""
    (store / ORIGIN).write_bytes(msgspec.json.format(msgspec.json.encode(origin), indent=1))


def read_origin(store: Path) -> Origin | None:
    """Return the note beside a run, None where there is none."""
    try:
        return msgspec.json.decode((store / ORIGIN).read_bytes(), type=Origin)
    except (OSError, msgspec.DecodeError):
        return None
