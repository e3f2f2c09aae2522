"""How the verbs show what they found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from controller.arguments import Arguments
from controller.cli.sources import has_success, reference

if TYPE_CHECKING:
    from rich.console import Console

    from controller.transitions import Transitions
    from policies.data.dataset import Dataset


def put(report: object, print_report: Callable[[Any, Console], None], arguments: Arguments) -> int:
    """Put a report on the screen, or on standard output as JSON."""
    from controller.display import console, put_json

    if arguments.json:
        put_json(report)
    else:
        print_report(report, console())
    return 0


def report_log(path: Path, arguments: Arguments, dropped: int = 0) -> int:
    """Report on a log.

    Args:
        path: the log.
        arguments: of the verb.
        dropped: records that are not in it, as whoever sent them counted; the log itself cannot
            tell of the last ones.
    """
    from controller.log_reader import read_log
    from controller.report import print_table
    from controller.stats import summarise

    log = read_log(path)
    report = summarise(log, reference(log.header.task), has_success=has_success(log.header.task))
    if dropped > report.dropped:
        report = msgspec.structs.replace(report, dropped=dropped)
    return put(report, print_table, arguments)


def describe_dataset(
    data: Transitions,
    path: str,
    task: str,
    arguments: Arguments,
    *,
    dataset: Dataset | None = None,
    picture: Path | None = None,
) -> int:
    """Report on a dataset.

    Args:
        data: the transitions.
        path: where they are, as the user knows it.
        task: task or published dataset whose reference scores apply; empty for none.
        arguments: of the verb.
        dataset: what the data came with.
        picture: PNG to draw; None for none.
    """
    from controller.cli.sources import expectations
    from controller.dataset_report import describe_data, print_data
    from controller.display import console, put_json

    published = dataset.published if dataset else None
    known = reference(task) or (dataset.reference if dataset else None)
    expected = expectations(data.task or task, dataset, data.actions[:1].size)
    facts = describe_data(
        data,
        path,
        known,
        expected=expected,
        dataset=published.name if published else "",
        attributes=dataset.attributes if dataset else {},
        notes=dataset.notes if dataset else (),
    )
    if picture is not None:
        from controller.dataset_plots import dataset_png

        title = f"{facts['dataset'] or facts['task'] or path}: {facts['episodes']:,} episodes, "
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(dataset_png(data, f"{title}{facts['steps']:,} steps", expected))
        facts["picture"] = str(picture)
    if arguments.json:
        put_json(facts)
    else:
        print_data(facts, data.returns(), console())
    return 0


def describe_opened(dataset: Dataset, task: str, arguments: Arguments, picture: Path | None) -> int:
    """Report on a dataset that was opened; ``task`` is one the user named, or empty."""
    published = dataset.published.name if dataset.published else ""
    name = task or published or dataset.transitions.task
    data = dataset.transitions
    return describe_dataset(data, dataset.source, name, arguments, dataset=dataset, picture=picture)
