"""The verb that improves policies: from the logs of their runs, or live, while they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.arguments import Arguments
from controller.cli.sources import read_dataset, task_spec
from controller.command_line import INTERRUPTED
from controller.errors import ConfigError

if TYPE_CHECKING:
    from policies.bundle import Bundle
    from policies.finetuning.settings import FinetuneConfig

HIDDEN = ("judged", "rows", "logs", "notes")
"""Parts of a result that are for programs, not for a table."""


def finetune(config: FinetuneConfig, arguments: Arguments) -> int:
    """Improve a policy and say what came of it."""
    if config.live and config.log_paths:
        raise ConfigError(
            "logs and live=true: expected one of them; live learns from its own runs, and from "
            "other data through offline"
        )
    if not config.live and not config.log_paths:
        raise ConfigError(
            "logs: expected those of runs, as in --logs runs/a runs/b; or --live --task TASK"
        )
    parent = _parent(config)
    if not config.live:
        return _from_logs(config, parent, arguments)
    from controller.cli.live import finetune_live

    return finetune_live(config, parent, arguments)


def _parent(config: FinetuneConfig) -> Bundle | None:
    """Return the bundle to start from, None to start from scratch.

    Raises:
        ConfigError: the path is that of a run, not of a bundle.
        BundleError: it is no bundle, or damaged.
    """
    from controller.log_parts import is_log
    from policies.bundle import load_bundle

    if config.parent is None:
        return None
    path = Path(config.parent)
    if is_log(path) or is_log(path / "log.mcap"):
        raise ConfigError(
            f"parent: {path} is a run, expected a bundle: the bundle comes first, as in onebeat "
            "finetune BUNDLE --logs runs/a runs/b"
        )
    return load_bundle(path)


def _from_logs(config: FinetuneConfig, parent: Bundle | None, arguments: Arguments) -> int:
    """Improve a policy from logs, and publish it where it is good enough."""
    from controller.cli.gate import Stage, plays
    from controller.display import progress_bar
    from controller.signals import StopFlag
    from policies.finetuning.from_logs import finetune as improve
    from policies.finetuning.logged import read_logs

    parent = _checked(config, parent)
    spec = parent.spec
    logs = read_logs(config.log_paths, spec)
    offline = read_dataset(config.offline, spec) if config.offline else None
    with StopFlag() as stop, progress_bar("fine-tuning") as advance:
        stage = Stage(config, spec.task, lambda: False)

        def score(bundle: Path) -> Any:  # noqa: ANN401
            return stage.score(bundle, config.evaluate_episodes, config.seed)

        try:
            result = improve(
                config,
                parent,
                offline,
                logs=logs,
                score=score if config.evaluate_episodes and plays(spec) else None,
                on_progress=advance,
                should_stop=stop,
            )
        finally:
            stage.close()
    _say(result, arguments)
    return 0 if result["finished"] else INTERRUPTED


def _checked(config: FinetuneConfig, parent: Bundle | None) -> Bundle:
    """Return the parent.

    Raises:
        ConfigError: settings that are for live fine-tuning, no parent, or no such task.
        SpecMismatch: the parent is of another robot than the task.
    """
    for name in ("minutes", "steps", "actors"):
        if getattr(config, name) is not None:
            raise ConfigError(f"{name} is for live=true; from logs, expected updates or seconds")
    if parent is None:
        raise ConfigError(
            "parent: expected a bundle to improve, as in onebeat finetune BUNDLE --logs DIR; "
            "only live=true begins from scratch"
        )
    if config.task:
        spec = task_spec(config.task)
        parent.spec.require(spec, f"the policy {config.parent}", f"the task {config.task}")
    return parent


def _say(result: dict[str, Any], arguments: Arguments) -> None:
    from controller.display import put_json, say

    if arguments.json:
        put_json(result)
        return
    facts = {name: value for name, value in result.items() if name not in HIDDEN}
    for name in ("before", "after"):
        facts[name] = brief(facts[name])
    say(facts, as_json=False)


def brief(figures: dict[str, Any]) -> dict[str, Any]:
    """Return of a version's figures what a table has room for."""
    names = ("version", "return_mean", "score_mean", "success")
    return {name: figures[name] for name in names if figures.get(name) is not None}
