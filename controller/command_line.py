"""Finding and running a command: verbs, help, errors in one line, exit statuses."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from controller.arguments import Arguments, nearest, parse
from controller.errors import ConfigError, ControllerError
from controller.process import SINGLE_THREADED
from controller.signals import die_with_parent

INTERRUPTED = 130
"""Exit status of what was stopped by Ctrl-C, also where it saved and can go on."""
EXTRAS = {
    "torch": "train",
    "h5py": "train",
    "mujoco": "sim",
    "gymnasium": "sim",
    "gymnasium_robotics": "sim",
    "dm_control": "sim",
    "matplotlib": "report",
    "PIL": "report",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "foxglove": "view",
    "ray": "ray",
}


@dataclass(frozen=True)
class Verb:
    """One command.

    Attributes:
        summary: one line for ``onebeat --help``.
        settings: ``module:Struct`` of its settings; empty when it has none.
        act: does it, given its settings (if it has any) and the arguments, and returns the
            exit status; or ``module:function`` of such a one.
        subject: the setting that a plain word stands for.
        many: the subject takes several words.
        rest: the setting, a list, that plain words after the subject stand for.
        hidden: started by other verbs, not by people.
    """

    summary: str
    settings: str
    act: Callable[..., int] | str
    subject: str = ""
    many: bool = False
    rest: str = ""
    hidden: bool = False


def run(verbs: Mapping[str, Verb], words: Sequence[str]) -> int:
    """Run one command line and return its exit status.

    0 is success, 1 a failure that was told in one line, 2 a fault in the command line or a
    settings file, 130 a Ctrl-C.
    """
    # A second BLAS thread on a small product costs the loop milliseconds at the tail. The
    # libraries read this when numpy is imported, which happens with the verb.
    for variable, value in SINGLE_THREADED.items():
        os.environ.setdefault(variable, value)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    name = ""
    try:
        name, verb, rest = _find(verbs, list(words))
        if verb is None:
            sys.stdout.write(_overview(verbs, name))
            return 0
        die_with_parent(signum=signal.SIGTERM if verb.hidden else signal.SIGKILL)
        return _act(name, verb, parse(rest))
    except ConfigError as error:
        return _fail(name, error, 2)
    except ControllerError as error:
        return _fail(name, error, 1)
    except ModuleNotFoundError as error:
        return _fail(name, _missing(error), 1)
    except KeyboardInterrupt:
        return _fail(name, "stopped by Ctrl-C", INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe has left; its shell is told by the status.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _find(verbs: Mapping[str, Verb], words: list[str]) -> tuple[str, Verb | None, list[str]]:
    """Return the verb of a command line and the words after it; no verb means help."""
    if not words or words[0] in ("-h", "--help", "help"):
        return "", None, []
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in verbs:
            return name, verbs[name], words[length:]
    inner = [verb.split()[1] for verb in verbs if verb.startswith(f"{words[0]} ")]
    if inner and words[1:2] in ([], ["-h"], ["--help"]):
        return words[0], None, []
    if inner:
        raise ConfigError(f"{words[0]} {words[1]}: no such command; {nearest(words[1], inner)}")
    top = dict.fromkeys(name.split()[0] for name, verb in verbs.items() if not verb.hidden)
    raise ConfigError(f"{words[0]}: no such command; {nearest(words[0], top)}")


def _overview(verbs: Mapping[str, Verb], group: str) -> str:
    shown = {n: v for n, v in verbs.items() if not v.hidden and n.startswith(group)}
    lines = [f"  {name:<14} {verb.summary}" for name, verb in shown.items()]
    return "\n".join(
        [
            f"usage: onebeat {group or 'COMMAND'} "
            "[SUBJECT] [SETTINGS.yaml] [key=value ...] [--json]",
            "",
            "Runs learned policies on robots at a fixed rate, and trains them.",
            "",
            *lines,
            "",
            "onebeat COMMAND --help lists every setting of a command.",
            "",
        ]
    )


def _act(name: str, verb: Verb, arguments: Arguments) -> int:
    if not verb.settings:
        if arguments.help:
            sys.stdout.write(f"usage: onebeat {name} [--json]\n\n{verb.summary}\n")
            return 0
        if arguments.subjects or arguments.overrides or arguments.file:
            raise ConfigError("takes no settings, only --json")
        return _action(verb)(arguments)
    from controller.config import load

    kind = _named(verb.settings)
    if arguments.help:
        return _help(name, verb, kind)
    settings = load(kind, arguments.file, overrides_of(verb, arguments))
    return _action(verb)(settings, arguments)


def _action(verb: Verb) -> Callable[..., int]:
    return verb.act if callable(verb.act) else _named(verb.act)


def _named(place: str) -> Any:  # noqa: ANN401
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def overrides_of(verb: Verb, arguments: Arguments) -> list[str]:
    """Return the ``key=value`` words of a command line, its plain words among them.

    Raises:
        ConfigError: more plain words than the verb takes.
    """
    if verb.rest:
        return _with_rest(verb, arguments)
    subjects = arguments.subjects
    if not subjects:
        return list(arguments.overrides)
    if not verb.subject or (len(subjects) > 1 and not verb.many):
        expected = f"one {verb.subject}" if verb.subject else "only key=value words"
        raise ConfigError(f"expected {expected}, got {' '.join(subjects)}")
    value = f"[{', '.join(subjects)}]" if verb.many else subjects[0]
    return [f"{verb.subject}={value}", *arguments.overrides]


def _with_rest(verb: Verb, arguments: Arguments) -> list[str]:
    """Return the words of a verb whose list of ``rest`` may be given in several words.

    A shell makes ``--logs runs/a/ runs/b/`` of ``--logs runs/*/``: the first is the value, the
    others are plain words. The subject comes before them, or is named.
    """
    keys = [word.partition("=")[0].strip() for word in arguments.overrides]
    plain = list(arguments.subjects)
    words: list[str] = []
    if plain and verb.subject not in keys:
        words.append(f"{verb.subject}={plain.pop(0)}")
    given = [w for w, key in zip(arguments.overrides, keys, strict=True) if key == verb.rest]
    words += [w for w, key in zip(arguments.overrides, keys, strict=True) if key != verb.rest]
    if plain and not given:
        raise ConfigError(
            f"expected one {verb.subject}, got {' '.join(arguments.subjects)}; {verb.rest} come "
            f"after --{verb.rest}"
        )
    if not plain and len(given) <= 1:
        return words + given
    listed = [item for word in given for item in _listed(word)] + plain
    return [*words, f"{verb.rest}={json.dumps(listed, ensure_ascii=False)}"]


def _listed(word: str) -> list[Any]:
    """Return the entries of ``key=[a, b]``, or the one of ``key=a``."""
    text = word.partition("=")[2]
    if not text.lstrip().startswith("["):
        return [text]
    from controller.yaml_source import parse as parse_yaml

    value = parse_yaml(text, f"override {word}")
    return value if isinstance(value, list) else [text]


def _help(name: str, verb: Verb, kind: type[Any]) -> int:
    from controller.config import describe

    subject = f" [{verb.subject.upper()}]" if verb.subject else ""
    subject += f" [--{verb.rest} {verb.rest.upper()} ...]" if verb.rest else ""
    rows = describe(kind)
    width = max(len(row.key) for row in rows)
    sys.stdout.write(
        f"usage: onebeat {name}{subject} [SETTINGS.yaml] [key=value | --key value ...] [--json]\n\n"
        f"{(kind.__doc__ or verb.summary).strip().splitlines()[0]}\n\n"
    )
    for row in rows:
        sys.stdout.write(f"  {row.key:<{width}}  {row.type} = {row.default}\n")
        indent = " " * (width + 6)
        doc = row.doc.replace("``", "")
        sys.stdout.writelines(
            f"{line}\n"
            for line in textwrap.wrap(doc, 100, initial_indent=indent, subsequent_indent=indent)
        )
    return 0


def _fail(name: str, error: object, status: int) -> int:
    line = " ".join(str(error).split())
    sys.stderr.write(f"onebeat {name}: {line}\n" if name else f"onebeat: {line}\n")
    return status


def _missing(error: ModuleNotFoundError) -> str:
    module = (error.name or "").split(".")[0]
    if module not in EXTRAS:
        raise error
    return f"{module} is not installed: pip install 'onebeat[{EXTRAS[module]}]'"
