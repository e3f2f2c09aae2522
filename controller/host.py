"""Facts of this machine that decide how punctual a process can be."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable
from pathlib import Path

import msgspec

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Host(msgspec.Struct, frozen=True):
    """The machine, as this process sees it.

    Attributes:
        cpu: model of the processor.
        cores: cores this process may use.
        kernel: name and release.
        preemption: the kernel's preemption model where it says so, or empty.
        governor: frequency governor of core 0; None where there is none, as in most VMs.
        realtime: whether SCHED_FIFO is allowed.
        rtprio: limit of the real-time priority; -1 is unlimited.
        memlock_bytes: limit of locked memory; -1 is unlimited.
        python: version of the interpreter.
        blas_threads: what the environment sets, by variable; empty where unset.
        virtual: whether a hypervisor runs below, which can take the processor away.
        huge_pages: transparent huge pages: always, madvise or never; empty where unknown.
        isolated: cores that the scheduler leaves alone, as a list in words; empty for none.
        realtime_share: part of a second that SCHED_FIFO may use; 1 for all of it.
    """

    cpu: str
    cores: int
    kernel: str
    preemption: str
    governor: str | None
    realtime: bool
    rtprio: int
    memlock_bytes: int
    python: str
    blas_threads: dict[str, str]
    virtual: bool = False
    huge_pages: str = ""
    isolated: str = ""
    realtime_share: float = 1.0


class Steal:
    """Time that the hypervisor ran something else, as ``/proc/stat`` counts it.

    Args:
        text: gives the contents of ``/proc/stat``.
    """

    def __init__(self, text: Callable[[], str] | None = None) -> None:
        self._text = text or (lambda: _text("/proc/stat"))
        self._before = self._counts()

    def share(self) -> float | None:
        """Return the share of all processor time since the start; None where it is not told."""
        now = self._counts()
        if now is None or self._before is None:
            return None
        stolen, whole = (after - before for after, before in zip(now, self._before, strict=True))
        return stolen / whole if whole > 0 else 0.0

    def _counts(self) -> tuple[int, int] | None:
        """Return stolen and all jiffies: user nice system idle iowait irq softirq steal."""
        for line in self._text().splitlines():
            name, *words = line.split()
            if name == "cpu" and len(words) >= 8:
                counts = [int(word) for word in words[:8]]
                return counts[7], sum(counts)
        return None


def examine_host(*, realtime: bool) -> Host:
    """Return the facts; ``realtime`` says whether SCHED_FIFO was granted when tried."""
    return Host(
        cpu=_cpu_model(),
        cores=_cores(),
        kernel=f"{platform.system()} {platform.release()}",
        preemption=_preemption(platform.version()),
        governor=_governor(),
        realtime=realtime,
        rtprio=_limit(getattr(resource, "RLIMIT_RTPRIO", None)),
        memlock_bytes=_limit(resource.RLIMIT_MEMLOCK),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        blas_threads={name: os.environ.get(name, "") for name in THREAD_VARIABLES},
        virtual=" hypervisor" in _text("/proc/cpuinfo"),
        huge_pages=chosen(_text("/sys/kernel/mm/transparent_hugepage/enabled")),
        isolated=_text("/sys/devices/system/cpu/isolated").strip(),
        realtime_share=_realtime_share(),
    )


def chosen(text: str) -> str:
    """Return the word in brackets of ``always [madvise] never``; empty without one."""
    return text.partition("[")[2].partition("]")[0]


def _realtime_share() -> float:
    try:
        runtime, period = (
            int(_text(f"/proc/sys/kernel/sched_rt_{name}_us")) for name in ("runtime", "period")
        )
    except ValueError:
        return 1.0
    return 1.0 if runtime < 0 or period <= 0 else runtime / period


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _preemption(version: str) -> str:
    return next((word for word in version.split() if word.startswith("PREEMPT")), "")


def _governor() -> str | None:
    return _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None


def _limit(which: int | None) -> int:
    """Return the soft limit; RLIM_INFINITY is -1 on Linux."""
    return 0 if which is None else resource.getrlimit(which)[0]


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
