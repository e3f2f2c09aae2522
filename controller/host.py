"""Facts of this machine that decide how punctual a process can be."""

from __future__ import annotations

import os
import platform
import resource
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
    )


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
