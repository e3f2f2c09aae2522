"""The verbs that do everything a plan names: trainings, and live fine-tunings."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from controller.arguments import Arguments
from controller.command_line import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from policies.reproduction.course import Course
    from policies.reproduction.online_course import OnlineCourse
    from policies.reproduction.online_settings import OnlinePlan
    from policies.reproduction.settings import ReproduceConfig


def reproduce(config: ReproduceConfig, arguments: Arguments) -> int:
    """Do what is left of a plan, and write the tables."""
    from policies.reproduction import page
    from policies.reproduction.course import Course

    course = Course(config)
    whole = _finish(course, config, "reproducing")
    tables = page.write(course) if config.docs else []
    more = {"failed": course.tally.failed, "missing": course.tally.missing}
    _tell(_facts(course), tables, whole, more, arguments)
    _complain(course)
    return _status(course, whole)


def _finish(course: Course | OnlineCourse, plan: ReproduceConfig | OnlinePlan, what: str) -> bool:
    """Do what is left of it, unless only tables are wanted; return whether all had its turn."""
    from controller.display import progress_bar
    from controller.signals import StopFlag

    if plan.only == "tables":
        return True
    with StopFlag() as stop, progress_bar(what) as advance:
        return course.finish(stop, advance)


def _tell(
    facts: Mapping[str, object],
    tables: Sequence[Path],
    whole: bool,
    more: Mapping[str, object],
    arguments: Arguments,
) -> None:
    """Say what was done; ``more`` is for programs."""
    from controller.display import put_json, say

    told = {**facts, "tables": [str(path) for path in tables], "finished": whole}
    if arguments.json:
        put_json({**told, **more})
    else:
        say(told, as_json=False)


def _status(course: Course | OnlineCourse, whole: bool) -> int:
    if not whole:
        return INTERRUPTED
    return 1 if course.tally.failed else 0


def _facts(course: Course) -> dict[str, object]:
    tally = course.tally
    return {
        "cells": len(course.cells),
        "with_result": sum(course.row(cell) is not None for cell in course.cells),
        "trained_now": len(tally.trained),
        "scored_now": len(tally.scored),
        "failed": len(tally.failed),
        "at_work_elsewhere": len(tally.busy),
        "without_data": sum(cell.dataset in tally.missing for cell in course.cells),
    }


def _complain(course: Course) -> None:
    """Tell on standard error what has no data, a line for each reason, and what failed."""
    from policies.reproduction.sources import REMEDIES

    reasons: dict[str, list[str]] = {}
    for dataset, reason in course.tally.missing.items():
        reasons.setdefault(reason, []).append(dataset)
    for reason, datasets in reasons.items():
        remedy = f" ({REMEDIES[reason]})" if reason in REMEDIES else ""
        sys.stderr.write(f"onebeat reproduce: n/a: {', '.join(datasets)}: {reason}{remedy}\n")
    for name, words in course.tally.failed.items():
        sys.stderr.write(f"onebeat reproduce: {name}: {words}\n")


def online(plan: OnlinePlan, arguments: Arguments) -> int:
    """Do what is left of a plan of live fine-tunings, and write curves and tables."""
    from policies.reproduction import online_page
    from policies.reproduction.online_course import OnlineCourse

    course = OnlineCourse(plan)
    whole = _finish(course, plan, "fine-tuning")
    tables = online_page.write(course) if plan.docs else []
    more = {"failed": course.tally.failed, "waiting": course.tally.waiting}
    _tell(_online_facts(course), tables, whole, more, arguments)
    _complain_online(course)
    return _status(course, whole)


def _online_facts(course: OnlineCourse) -> dict[str, object]:
    tally = course.tally
    return {
        "runs": len(course.cells),
        "finished_runs": len(course.cells) - len(course.reasons()),
        "finished_now": len(tally.run),
        "failed": len(tally.failed),
        "waiting": len(tally.waiting),
    }


def _complain_online(course: OnlineCourse) -> None:
    """Tell on standard error what could not begin, a line for each reason, and what failed."""
    reasons: dict[str, list[str]] = {}
    for name, reason in course.tally.waiting.items():
        reasons.setdefault(reason, []).append(name)
    for place, reason in course.tally.missing.items():
        if not any(reason in told for told in reasons):
            reasons.setdefault(reason, []).append(place)
    for reason, names in reasons.items():
        sys.stderr.write(f"onebeat reproduce online: n/a: {', '.join(names)}: {reason}\n")
    for name, words in course.tally.failed.items():
        sys.stderr.write(f"onebeat reproduce online: {name}: {words}\n")
