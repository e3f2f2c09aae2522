"""The verbs that measure: what the machine can hold, and what an answer takes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from controller.arguments import Arguments
from controller.cli.reports import put
from controller.cli.sources import open_policy
from controller.interfaces import Policy
from controller.latency.callers import Kind
from controller.latency.servers import Stop
from controller.latency.settings import BaselineConfig, Bench, LatencyConfig, cells, made_up
from controller.settings import DoctorConfig
from controller.spec import Spec


def doctor(config: DoctorConfig, arguments: Arguments) -> int:
    """Measure what this machine can hold."""
    from controller.doctor import examine
    from controller.doctor_report import print_report
    from controller.latency import resting
    from controller.types import Request

    infer = None
    if config.bundle:
        policy = open_policy(config.bundle, "numpy", "cpu")
        request = Request(0, 0, resting(policy.spec), 0, 2**62)

        def infer() -> None:
            policy.infer(request)

    report = examine(config.seconds, infer)
    return put(report, print_report, arguments)


def latency(config: LatencyConfig, arguments: Arguments) -> int:
    """Time requests, paced, loaded and faulted, beside a server of today's design."""
    from controller.display import progress_bar
    from controller.latency.pictures import write_page
    from controller.latency.rows import print_report
    from controller.latency.sweep import sweep
    from controller.process import RuntimeDirectory

    with RuntimeDirectory() as directory:
        # All of them first: a name that is wrong is told before minutes of measuring.
        names = dict.fromkeys(cell.bench.policy.bundle for cell in cells(config))
        found = {name: _bundle(name, Path(directory)) for name in names}
        with progress_bar("measuring") as advance:
            report, measured = sweep(
                config, lambda bench: found[bench.policy.bundle], _serve_in_thread, advance
            )
    if config.out is not None:
        out = Path(config.out)
        out.mkdir(parents=True, exist_ok=True)
        page = out / "latency.html"
        write_page(page, report, measured)
        report = msgspec.structs.replace(report, page=str(page))
        figures = msgspec.json.format(msgspec.json.encode(report), indent=1)
        (out / "latency.json").write_bytes(figures)
    return put(report, print_report, arguments)


def baseline(config: BaselineConfig, arguments: Arguments) -> int:
    """Be a policy server of today's design until told to stop."""
    from controller.clock import MonotonicClock
    from controller.floor import say_ready
    from controller.latency.baseline import serve_baseline
    from controller.process import StopFlag
    from controller.realtime import urgent
    from policies.baseline_server import eager

    with StopFlag() as stop, urgent(config.sched_fifo):
        act = eager(config.bundle, config.device, config.act)
        serve_baseline(config.endpoint, act, MonotonicClock(), stop, say_ready)
    return 0


def _bundle(name: str, directory: Path) -> tuple[str, Spec]:
    from policies.bundle import load_bundle

    made = made_up(name)
    if made is not None:
        from policies.untrained import untrained_bundle

        path = untrained_bundle(directory / name, *made)
        return str(path), load_bundle(path).spec
    bundle = load_bundle(name)
    return str(bundle.path), bundle.spec


def _serve_in_thread(kind: Kind, bench: Bench, endpoint: str, stop: Stop) -> None:
    from controller.clock import MonotonicClock

    entry = bench.policy
    if kind == "baseline":
        from controller.latency.baseline import serve_baseline
        from policies.baseline_server import eager

        act = eager(entry.bundle, bench.device, entry.act)
        serve_baseline(endpoint, act, MonotonicClock(), stop)
        return
    from policies.serving.server import PolicyServer

    policy = open_policy(entry.bundle, bench.engine, bench.device, entry.act)
    PolicyServer({"policy": policy}, endpoint, MonotonicClock(), _no_swap).run(stop)


def _no_swap(path: str, *rest: object) -> Policy:
    raise AssertionError(f"nobody asked for {path}")
