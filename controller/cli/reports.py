"""How the verbs show what they found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.arguments import Arguments
from controller.cli.sources import reference

if TYPE_CHECKING:
    from rich.console import Console

    from controller.transitions import Transitions


def put(report: object, print_report: Callable[[Any, Console], None], arguments: Arguments) -> int:
    """Put a report on the screen, or on standard output as JSON."""
    from controller.display import console, put_json

    if arguments.json:
        put_json(report)
    else:
        print_report(report, console())
    return 0


def report_log(path: Path, arguments: Arguments) -> int:
    """Report on a log."""
    from controller.log_reader import read_log
    from controller.report import print_table
    from controller.stats import summarise

    log = read_log(path)
    report = summarise(log, reference(log.header.task))
    return put(report, print_table, arguments)


def describe_dataset(data: Transitions, path: str, task: str, arguments: Arguments) -> int:
    """Report on a dataset."""
    from controller.dataset_report import describe_data
    from controller.display import say

    say(describe_data(data, path, reference(task)), arguments.json)
    return 0
