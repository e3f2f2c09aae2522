"""A bundle as a policy that answers in this process.

The noise of a request derives from (seed, tick) alone, so any logged action can be computed
again. With the numpy engine, and with the torch engine on a CPU with one thread, the same
request gives the same bits in every process of a machine, asked for alone and drawn in as many
steps and from as many candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from controller.acting import AS_BUNDLED, ActSettings
from controller.clock import MonotonicClock
from controller.interfaces import Clock
from controller.ranges import Device, Engine
from policies.bundle import load_bundle
from policies.golden import check_golden
from policies.local_policy import MAX_BATCH, LocalPolicy
from policies.make_sampler import Samplers

Step = Callable[[str], AbstractContextManager[object]]
"""Surrounds one step of loading, given its name."""


def _unwatched(name: str) -> AbstractContextManager[object]:
    return nullcontext()


def load_policy(
    path: Path | str,
    engine: Engine = "numpy",
    device: Device = "cpu",
    clock: Clock | None = None,
    act: ActSettings = AS_BUNDLED,
    max_batch: int = MAX_BATCH,
    step: Step = _unwatched,
) -> LocalPolicy:
    """Load a bundle, or the current one of a store, as a policy, checked and warmed up.

    Args:
        path: a bundle or a store.
        engine: numpy, torch or onnx.
        device: cpu, or cuda with engine torch.
        clock: measures ``infer_ns``, and is that of the requests' deadlines; the machine's by
            default.
        act: how an action is chosen, where that is not left to the bundle.
        max_batch: most requests to be answered at once.
        step: surrounds each of the steps ``hash``, ``engine``, ``golden`` and ``costs``.

    Raises:
        BundleError: the bundle is damaged, does not give its golden actions, or cannot act as
            asked.
    """
    clock = clock or MonotonicClock()
    with step("hash"):
        bundle = load_bundle(path)
    with step("engine"):
        samplers = Samplers(bundle.manifest, bundle.weights, bundle.critics(), engine, device)
        policy = LocalPolicy(bundle.manifest, bundle.codec, samplers, clock, act, max_batch)
    with step("golden"):
        check_golden(bundle, LocalPolicy(bundle.manifest, bundle.codec, samplers, clock))
    with step("costs"):
        policy.warm_up()
    return policy
