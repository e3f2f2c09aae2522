"""What the README says can be done: its commands parse, its files are there."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from controller.arguments import parse
from controller.cli import VERBS
from controller.command_line import overrides_of
from controller.config import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip()
    for document in DOCUMENTS
    for block in re.findall(r"```sh\n(.*?)```", document.read_text(), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("onebeat ")
]


def test_the_first_screen_has_the_two_commands_and_no_other():
    assert [line.split("#")[0].strip() for line in BLOCKS[0].splitlines()] == [
        "make demo",
        "make test",
    ]
    lines = README.splitlines()
    assert next(n for n, line in enumerate(lines) if line.startswith("make test")) < 45


def test_make_has_the_targets_the_readme_names():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_documents_is_understood(line):
    words = shlex.split(line)[1:]
    name = next(n for n in (" ".join(words[:2]), words[0]) if n in VERBS)
    verb, arguments = VERBS[name], parse(words[len(name.split()) :])
    if not verb.settings:
        assert not arguments.file
        assert not overrides_of(verb, arguments)
        return
    module, _, kind = verb.settings.partition(":")
    file = ROOT / arguments.file if arguments.file else None
    load(getattr(import_module(module), kind), file, overrides_of(verb, arguments))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name}: {target}"


SHIPPED = sorted((ROOT / "configs").glob("*/*.yaml"))
KINDS = {
    "data": "sim.settings:GenerateConfig",
    "delays": "controller.delays.settings:DelaysConfig",
    "demo": "controller.settings:DemoConfig",
    "doctor": "controller.settings:DoctorConfig",
    "eval": "controller.settings:EvalConfig",
    "finetune": "policies.finetuning.settings:FinetuneConfig",
    "latency": "controller.latency.settings:LatencyConfig",
    "reproduce": "policies.reproduction.settings:ReproduceConfig",
    "run": "controller.settings:RunConfig",
    "sac": "policies.settings:SacConfig",
    "serve": "policies.settings:ServeConfig",
    "sim": "sim.settings:SimConfig",
    "train": "policies.settings:TrainConfig",
}
ONLINE = "policies.reproduction.online_settings:OnlinePlan"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_shipped_configuration_loads(path):
    online = path.parent.name == "reproduce" and path.stem.startswith("online")
    module, _, kind = (ONLINE if online else KINDS[path.parent.name]).partition(":")
    load(getattr(import_module(module), kind), path)
