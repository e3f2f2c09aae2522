"""The verb that injects faults into a running system."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from controller.arguments import Arguments
from controller.faults.settings import FaultTrialsConfig


def faults(config: FaultTrialsConfig, arguments: Arguments) -> int:
    """Run the trials; status 1 when one of them fails."""
    from controller.display import console, put_json
    from controller.faults.bench import run_trials
    from controller.faults.table import print_rows
    from controller.faults.trials import Fault
    from controller.log_schema import host_facts
    from policies.bundle import load_bundle

    bundle = load_bundle(config.bundle)
    resolved = msgspec.structs.replace(
        config, bundle=str(Path(bundle.path).resolve()), task=config.task or bundle.spec.task
    )

    def begun(name: str, fault: Fault) -> None:
        sys.stderr.write(f"{name}: {fault.about}\n")

    rows = list(run_trials(resolved, begun))
    if arguments.json:
        put_json({"host": host_facts(), "bundle": resolved.bundle, "rows": rows})
    else:
        print_rows(rows, console())
    return 1 if any(row.ok is False for row in rows) else 0
