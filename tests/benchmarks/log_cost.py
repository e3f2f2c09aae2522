"""What the log costs: the loop per tick, the recorder per tick, the disk per tick.

Loop: ``pack`` into the datagram, and ``tick`` (pack and send), beside ``floor``, a bare send of as
many bytes on such a socket. Recorder: ``unpack`` and ``write``, beside ``floor``, a bare write of
as many bytes to a file. Both take turns; a figure is the median of its turns' fastest thirds.
``paced`` sends at a rate to a real recorder and reads from /proc what both sides used of a core.

    python tests/benchmarks/log_cost.py [--task hopper] [--seconds 5] [--rates 200 1000] [--json]
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from controller.display import put_json, say
from controller.host import examine_host
from controller.log_frame import TickFrame
from controller.log_reader import read_log
from controller.log_recovery import recover
from controller.log_schema import LogHeader
from controller.log_settings import LogSettings
from controller.log_writer import LogWriter
from controller.recorder import ProcessSink
from controller.spec import Spec
from controller.types import Mode, Observation, Rung, TickRecord

TURNS, CALLS = 21, 400
TICKS = 20_000


def record_of(spec: Spec, number: int = 0) -> TickRecord:
    """Return a tick as a run of this robot has them."""
    rng = np.random.default_rng(number)
    arrays = tuple(
        rng.integers(0, 256, array.shape, dtype=np.uint8)
        if array.dtype == "uint8"
        else rng.standard_normal(array.shape).astype(array.dtype)
        for array in spec.observation
    )
    action = rng.standard_normal(spec.action.shape).astype(spec.action.dtype)
    now_ns = time.monotonic_ns()
    return TickRecord(
        tick=number, deadline_ns=now_ns, sent_ns=now_ns + 500_000, mode=Mode.RUN, rung=Rung.FRESH,
        reasons=0, observation=Observation(arrays, now_ns, step=number, applied_tick=number - 1),
        requested=action, executed=action, version="v0001-12345678", answer_tick=number,
        evaluations=1, wake_ns=20_000, observe_ns=60_000, transport_ns=250_000, queue_ns=40_000,
        infer_ns=90_000, act_ns=40_000, total_ns=500_000, candidates=1, batch=1, rtt_ns=380_000,
    )  # fmt: skip


def turns(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return microseconds per call, the works taking turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(TURNS):
        for name, work in works.items():
            start = time.perf_counter_ns()
            for _ in range(CALLS):
                work()
            times[name].append((time.perf_counter_ns() - start) / CALLS / 1e3)
    return {name: statistics.median(sorted(seen)[: TURNS // 3]) for name, seen in times.items()}


def loop_side(spec: Spec) -> dict[str, float]:
    """Return what a tick costs the loop, with a reader that keeps up."""
    frame, record = TickFrame(spec), record_of(spec)
    size = len(frame.pack(record))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    blank, sink = memoryview(bytes(size)), bytearray(size)

    def send(datagram: memoryview) -> None:
        ours.send(datagram)
        theirs.recv_into(sink)

    try:
        seen = turns(
            {
                "pack": lambda: frame.pack(record),
                "pack_and_send": lambda: send(frame.pack(record)),
                "floor": lambda: send(blank),
            }
        )
    finally:
        ours.close()
        theirs.close()
    return {"datagram_bytes": size, **seen, "ratio": seen["pack_and_send"] / seen["floor"]}


def recorder_side(spec: Spec, directory: Path) -> dict[str, float]:
    """Return what a tick costs the recorder, and how long its bytes are."""
    frame, record = TickFrame(spec), record_of(spec)
    datagram = memoryview(bytes(frame.pack(record)))
    writer = LogWriter(directory / "cost.mcap", _header(spec))
    before = writer.size
    writer.tick(record)
    size = writer.size - before
    bare = os.open(directory / "bare", os.O_WRONLY | os.O_CREAT)
    blank = bytes(size)
    try:
        seen = turns(
            {
                "unpack": lambda: frame.unpack(datagram),
                "write": lambda: writer.tick(record),
                "floor": lambda: os.write(bare, blank),
            }
        )
    finally:
        os.close(bare)
        writer.finish()
    whole = seen["unpack"] + seen["write"]
    return {"log_bytes": size, **seen, "ratio": whole / seen["floor"]}


def paced(spec: Spec, directory: Path, rate_hz: float, seconds: float) -> dict[str, float]:
    """Return what a real recorder costs at a rate: shares of a core, and the loop's call."""
    sink = ProcessSink(directory / f"paced{rate_hz:g}.mcap", _header(spec))
    ticks = round(rate_hz * seconds)
    records = [record_of(spec, number) for number in range(64)]
    calls = np.zeros(ticks, np.int64)
    used_s = _cpu_s(sink.pid)
    start_ns = time.monotonic_ns()
    for number in range(ticks):
        deadline_ns = start_ns + round(number * 1e9 / rate_hz)
        time.sleep(max(0, deadline_ns - time.monotonic_ns()) / 1e9)
        record = replace(records[number % 64], tick=number)
        begin_ns = time.perf_counter_ns()
        sink.tick(record)
        calls[number] = time.perf_counter_ns() - begin_ns
    time.sleep(0.2)
    recorder_s = _cpu_s(sink.pid) - used_s
    sink.close()
    p50, p99, worst = np.percentile(calls / 1e3, (50, 99, 100), method="higher")
    return {
        "rate_hz": rate_hz,
        "ticks": ticks,
        "dropped": sink.dropped,
        "tick_p50_us": float(p50),
        "tick_p99_us": float(p99),
        "tick_max_us": float(worst),
        "loop_core_percent": float(calls.sum()) / 1e9 / seconds * 100,
        "recorder_core_percent": recorder_s / seconds * 100,
        "recorder_us_per_tick": recorder_s / ticks * 1e6,
    }


def file_side(spec: Spec, directory: Path) -> dict[str, float]:
    """Return what reading, recovering and a further file cost."""
    path = directory / "file.mcap"
    writer, record = LogWriter(path, _header(spec)), record_of(spec)
    for number in range(TICKS):
        writer.tick(replace(record, tick=number))
    writer.finish()
    start = time.perf_counter()
    read_log(path)
    read_s = time.perf_counter() - start
    start = time.perf_counter()
    recover(path)
    recover_s = time.perf_counter() - start
    return {
        "read_us_per_tick": read_s / TICKS * 1e6,
        "recover_us_per_tick": recover_s / TICKS * 1e6,
        "further_file_us": _rotation_us(spec, directory),
    }


def _rotation_us(spec: Spec, directory: Path) -> float:
    from controller.log import LogFiles

    files, record = (
        LogFiles(directory / "parts.mcap", _header(spec), LogSettings(0.02)),
        record_of(spec),
    )
    times = []
    for number in range(2000):
        part, start = files.part, time.perf_counter_ns()
        files.tick(replace(record, tick=number))
        if files.part != part:
            times.append(time.perf_counter_ns() - start)
    files.finish()
    return statistics.median(times) / 1e3


def _header(spec: Spec) -> LogHeader:
    return LogHeader(spec=spec, mode="realtime", rate_hz=spec.rate_hz, seed=0)


def _cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="hopper")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rates", type=float, nargs="+", default=[200.0, 1000.0])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    from sim.registry import task_spec

    spec = task_spec(arguments.task)
    with tempfile.TemporaryDirectory(prefix="onebeat-log-") as name:
        directory = Path(name)
        found: dict[str, Any] = {
            "task": arguments.task,
            "loop_us": loop_side(spec),
            "recorder_us": recorder_side(spec, directory),
            "file": file_side(spec, directory),
            "paced": [paced(spec, directory, rate, arguments.seconds) for rate in arguments.rates],
            "host": msgspec.structs.asdict(examine_host(realtime=False)),
        }
    if arguments.json:
        put_json(found)
    else:
        for title, figures in found.items():
            rows = figures if isinstance(figures, list) else [figures]
            for row in rows:
                say({title: row} if not isinstance(row, dict) else _rounded(title, row), False)


def _rounded(title: str, row: dict[str, Any]) -> dict[str, Any]:
    short = {k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}
    return {f"{title}: {key}": value for key, value in short.items()}


if __name__ == "__main__":
    main()
