"""The command line: the one place that brings controller, sim and policies together.

Packages are imported when a verb needs them, so that ``onebeat --help`` is quick and a robot
without torch or mujoco has every verb that needs neither.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from controller.command_line import Verb
from controller.command_line import run as run_command

_CLI = "controller.cli"
_SETTINGS = "controller.settings"
_KEYS = "controller.key_settings"
_PART = "controller.tuning.settings:PartConfig"
VERBS: dict[str, Verb] = {
    "demo": Verb(
        "data, training, serving, running, fine-tuning and report, on built-in data",
        f"{_SETTINGS}:DemoConfig",
        f"{_CLI}.running:demo",
        "out",
    ),
    "data generate": Verb(
        "make a dataset anew: policy files, a bundle or a script drive a task",
        "sim.settings:GenerateConfig",
        f"{_CLI}.data:generate",
        "task",
    ),
    "data inspect": Verb(
        "episodes, returns, score and faults of a dataset or a log",
        f"{_SETTINGS}:InspectConfig",
        f"{_CLI}.data:inspect",
        "path",
    ),
    "data export": Verb(
        "write a dataset as a D4RL file or a Minari dataset",
        f"{_SETTINGS}:ExportConfig",
        f"{_CLI}.data:export",
        "path",
    ),
    "data fetch": Verb(
        "download a published D4RL dataset, or check the one that is there",
        f"{_SETTINGS}:FetchConfig",
        f"{_CLI}.data:fetch",
        "name",
    ),
    "data recover": Verb(
        "write what can be read of a damaged log into a new one",
        f"{_SETTINGS}:RecoverConfig",
        f"{_CLI}.logs:recover_log",
        "log",
    ),
    "train": Verb(
        "learn a policy from a dataset",
        "policies.settings:TrainConfig",
        f"{_CLI}.learning:train",
        "data",
    ),
    "sac": Verb(
        "learn a policy in simulation, with no data: snapshots, replay data and a bundle",
        "policies.settings:SacConfig",
        f"{_CLI}.learning:sac",
        "task",
    ),
    "serve": Verb(
        "answer a loop's requests",
        "policies.settings:ServeConfig",
        "policies.verbs:serve",
        "bundle",
    ),
    "control": Verb(
        "ask a running server to do something: swap, canary, promote, rollback, stats",
        "controller.control_settings:ControlConfig",
        f"{_CLI}.control:control",
        "verb",
    ),
    "metrics": Verb(
        "what a policy server counts, as Prometheus text, or as a page with listen=HOST:PORT",
        "policies.serving.metrics_page:MetricsConfig",
        "policies.serving.metrics_page:metrics",
        "endpoint",
    ),
    "sim list": Verb("every task, with sizes, rate and reference scores", "", "sim.verbs:sim_list"),
    "sim check": Verb(
        "whether tasks keep their promises: shapes, seeding, ends, substeps",
        "sim.settings:CheckConfig",
        "sim.verbs:sim_check",
        "tasks",
        many=True,
    ),
    "sim table": Verb(
        "write the page of all tasks from what was measured of them",
        "sim.settings:TableConfig",
        "sim.verbs:sim_table",
    ),
    "sim serve": Verb(
        "run a task's plant behind an address",
        "sim.settings:SimConfig",
        "sim.verbs:sim_serve",
        "task",
    ),
    "sim view": Verb(
        "watch a task: in a window, or as a GIF, MP4 or PNG",
        "sim.settings:ViewConfig",
        f"{_CLI}.simulation:view",
        "task",
    ),
    "run": Verb(
        "run a policy on a plant at a fixed rate",
        f"{_SETTINGS}:RunConfig",
        f"{_CLI}.running:run",
        "task",
    ),
    "teleop": Verb(
        "take over from the policy of a run, by keyboard",
        "controller.teleop_settings:TeleopConfig",
        f"{_CLI}.teleop:teleop",
        "endpoint",
    ),
    "view": Verb(
        "show a log to Foxglove: live while it is written, as a film afterwards",
        f"{_SETTINGS}:ViewLogConfig",
        f"{_CLI}.logs:view",
        "log",
    ),
    "loop": Verb(
        "the loop of a run", f"{_SETTINGS}:RunConfig", f"{_CLI}.running:loop", hidden=True
    ),
    "finetune": Verb(
        "improve a policy: from the logs of its runs, or live, while it runs",
        "policies.finetuning.settings:FinetuneConfig",
        f"{_CLI}.finetuning:finetune",
        "parent",
        rest="logs",
    ),
    **{
        f"finetune {name}": Verb(summary, _PART, act, hidden=True)
        for name, summary, act in (
            (
                "replay",
                "the replay service of a fine-tuning",
                "policies.finetuning.replay.verbs:replay",
            ),
            ("learner", "the learner of a fine-tuning", "policies.finetuning.learner:learner"),
            ("gate", "the gate of a fine-tuning", f"{_CLI}.gate:gate"),
            ("actor", "an actor in lockstep", f"{_CLI}.actor:actor"),
            (
                "feed",
                "what feeds a loop's log to the replay service",
                "controller.feed.feeder:feed",
            ),
        )
    },
    "eval": Verb(
        "score policies over seeded episodes",
        f"{_SETTINGS}:EvalConfig",
        f"{_CLI}.evaluation:evaluate",
        "bundle",
        many=True,
    ),
    "reproduce": Verb(
        "train and score everything a plan names, and write the tables",
        "policies.reproduction.settings:ReproduceConfig",
        f"{_CLI}.reproduce:reproduce",
    ),
    "reproduce online": Verb(
        "fine-tune live everything a plan names, and write the learning curves",
        "policies.reproduction.online_settings:OnlinePlan",
        f"{_CLI}.reproduce:online",
    ),
    "export": Verb(
        "write a policy as an ONNX file",
        "policies.export:ExportPolicyConfig",
        "policies.verbs:export",
        "bundle",
    ),
    "replay": Verb(
        "recompute every action of a log, or run it again under another latency",
        f"{_SETTINGS}:ReplayConfig",
        f"{_CLI}.logs:replay_log",
        "log",
    ),
    "latency": Verb(
        "time requests to the policy server, beside a server of today's design",
        "controller.latency.settings:LatencyConfig",
        f"{_CLI}.timing:latency",
        "policies",
        many=True,
    ),
    "baseline": Verb(
        "a policy server of today's design",
        "controller.latency.settings:BaselineConfig",
        f"{_CLI}.timing:baseline",
        hidden=True,
    ),
    "doctor": Verb(
        "which rate this machine can hold", f"{_SETTINGS}:DoctorConfig", f"{_CLI}.timing:doctor"
    ),
    "delays": Verb(
        "score policies over the latency of their answers",
        "controller.delays.settings:DelaysConfig",
        f"{_CLI}.delays:delays",
    ),
    "faults": Verb(
        "inject every fault into a running system, and report what it cost",
        "controller.faults.settings:FaultTrialsConfig",
        f"{_CLI}.faults:faults",
        "faults",
        many=True,
    ),
    "keys new": Verb(
        "make a key pair, for a server or a client beyond this machine",
        f"{_KEYS}:NewKeyConfig",
        f"{_CLI}.keys:new",
        "name",
    ),
    "keys show": Verb(
        "the public key of a pair, and its fingerprint",
        f"{_KEYS}:ShowKeyConfig",
        f"{_CLI}.keys:show",
        "name",
    ),
    "keys list": Verb(
        "the keys that are found by name", f"{_KEYS}:ListKeysConfig", f"{_CLI}.keys:list_keys"
    ),
    "show": Verb(
        "describe a log, a bundle or a dataset",
        f"{_SETTINGS}:ShowConfig",
        f"{_CLI}.running:show",
        "path",
    ),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; see ``command_line.run``."""
    return run_command(VERBS, sys.argv[1:] if words is None else words)
