"""The verbs that do everything a plan names: trainings, and live fine-tunings."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from controller.arguments import Arguments
from controller.command_line import INTERRUPTED

if TYPE_CHECKING:
    from policies.reproduction.course import Course
    from policies.reproduction.online_course import OnlineCourse
    from policies.reproduction.online_settings import OnlinePlan
    from policies.reproduction.settings import ReproduceConfig


def reproduce(config: ReproduceConfig, arguments: Arguments) -> int:
    """Do what is left of a plan, and write the tables."""
    from controller.display import progress_bar, put_json, say
    from controller.signals import StopFlag
    from policies.reproduction import page
    from policies.reproduction.course import Course

    course = Course(config)
    whole = True
    if config.only != "tables":
        with StopFlag() as stop, progress_bar("reproducing") as advance:
            whole = course.finish(stop, advance)
    tables = [str(path) for path in page.write(course)] if config.docs else []
    facts = _facts(course) | {"tables": tables, "finished": whole}
    if arguments.json:
        put_json(facts | {"failed": course.tally.failed, "missing": course.tally.missing})
    else:
        say(facts, as_json=False)
    _complain(course)
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
    from controller.display import progress_bar, put_json, say
    from controller.signals import StopFlag
    from policies.reproduction import online_page
    from policies.reproduction.online_course import OnlineCourse

    course = OnlineCourse(plan)
    whole = True
    if plan.only != "tables":
        with StopFlag() as stop, progress_bar("fine-tuning") as advance:
            whole = course.finish(stop, advance)
    tables = [str(path) for path in online_page.write(course)] if plan.docs else []
    facts = _online_facts(course) | {"tables": tables, "finished": whole}
    if arguments.json:
        put_json(facts | {"failed": course.tally.failed, "waiting": course.tally.waiting})
    else:
        say(facts, as_json=False)
    _complain_online(course)
    if not whole:
        return INTERRUPTED
    return 1 if course.tally.failed else 0


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
