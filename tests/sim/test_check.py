"""The checks find planted faults, and the runner survives what it checks."""

import os
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from controller.cli import main
from controller.spec import ArraySpec, Spec
from sim import check, check_runner, registry
from sim.check import check_task
from sim.check_runner import Verdict, check_tasks, verdict_of
from sim.task import Task

SPEC = Spec(
    "toy",
    (ArraySpec("x", (2,)), ArraySpec("y", (1,), "float32")),
    ArraySpec("action", (1,), "float32", low=(-1.0,), high=(1.0,)),
    25.0,
)


class Toy:
    """A mass point pushed by a force, in 4 physics steps of 10 ms a control step."""

    name = "toy"
    spec = SPEC
    declared_steps, made_steps = 4, 4
    has_success = True
    success: dict[str, Any] = {"success": False}  # noqa: RUF012
    x = slice(None)
    ends_at = 10**9
    reward_of = float

    def __init__(self):
        self.model = SimpleNamespace(opt=SimpleNamespace(timestep=0.01))
        self.data = SimpleNamespace(
            time=0.0,
            qpos=np.zeros(1),
            qvel=np.zeros(1),
            warning=SimpleNamespace(number=np.zeros(8, np.int32)),
        )
        self.between = None
        self.random = np.random.default_rng()
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.steps = 0
        self.data.qpos[:], self.data.qvel[:] = self.random.uniform(size=1), 0
        return self.observe(), dict(self.success)

    def step(self, action):
        self.steps += 1
        for count in range(self.made_steps):
            if count and self.between is not None:
                action = self.between()
            self.push(action)
        end = self.steps >= self.ends_at
        return self.observe(), self.reward_of(self.data.qpos[0]), end, False, dict(self.success)

    def push(self, action):
        self.data.time += 0.01
        self.data.qvel += 0.01 * action.astype(float)
        self.data.qpos += 0.01 * self.data.qvel

    def observe(self):
        both = np.concatenate([self.data.qpos, self.data.qvel])
        return {"x": both[self.x], "y": self.data.qpos.astype(np.float32)}

    def close(self):
        pass


def task_of(kind: type[Toy]) -> Task:
    return Task(
        kind.name,
        "toys",
        "",
        100,
        lambda: kind.spec,
        partial(kind),
        physics_steps=kind.declared_steps,
        has_success=kind.has_success,
    )


@pytest.fixture
def install(monkeypatch):
    """Make tasks of classes of toys be the only ones."""

    def put(*kinds: type[Toy]) -> None:
        known = {kind.name: task_of(kind) for kind in kinds}
        monkeypatch.setattr(registry, "tasks", lambda: known)

    return put


def test_a_good_task_passes(install):
    install(Toy)
    check_task("toy")


class Drifting(Toy):
    drift = 0

    def reset(self, **words):
        type(self).drift += 1
        return super().reset(**words)

    def push(self, action):
        super().push(action + self.drift)


class Unending(Toy):
    def step(self, action):
        *seen, info = super().step(action)
        return seen[0], seen[1], np.array([False, False]), False, info


class OtherNames(Toy):
    def observe(self):
        return {"z": np.zeros(2), **{k: v for k, v in super().observe().items() if k != "x"}}


class Complex(Toy):
    def observe(self):
        return super().observe() | {"y": np.array([1 + 1j])}


class Deaf(Toy):
    """Asks for the command between physics steps once too often."""

    def step(self, action):
        if self.between is not None:
            self.between()
        return super().step(action)


class Swerving(Toy):
    """Physics that depends on whether it is stepped one by one."""

    def push(self, action):
        super().push(action if self.between is None else action * 1.000001)


class Nan(Toy):
    def reward_of(self, x):
        return np.nan if self.steps == 3 else 0.0


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (type("T", (Toy,), {"name": "other"}), "the spec is of toy"),
        (Drifting, "went another way from the same seed"),
        (type("T", (Toy,), {"x": slice(1)}), r"x has shape \(1,\), expected \(2,\)"),
        (OtherNames, "x is not observed, only z, y"),
        (Complex, "y is complex128, expected float32"),
        (Unending, r"terminated is array\(\[False, False\]\)"),
        (Nan, "became unstable in step 3"),
        (type("T", (Toy,), {"has_success": False}), "success is reported, the task says it is not"),
        (type("T", (Toy,), {"success": {}}), "success is not reported, the task says it is known"),
        (type("T", (Toy,), {"declared_steps": 3}), "3 physics steps of 0.01 s are 0.03 s"),
        (type("T", (Toy,), {"made_steps": 5}), "a control step advanced physics by 0.05 s"),
        (Deaf, "120 calls between physics steps, expected 90"),
        (Swerving, "a held command acted otherwise at step 1"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_planted_faults_are_found(install, kind, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Unstable states are dumped below the working directory.
    install(kind)
    with pytest.raises((AssertionError, Exception), match=why):
        check_task(kind.name)
    assert verdict_of(kind.name, 30)


def test_ends_are_told_apart():
    class Plant:
        spec = SPEC
        limit, ends, both = 4, 99, False

        def reset(self, seed):
            self.step = 0

        def command(self, action, tick):
            self.step += 1

        def observe(self):
            terminated = self.step >= self.ends
            cut = self.step >= self.limit and (self.both or not terminated)
            return SimpleNamespace(terminated=terminated, truncated=cut, step=self.step)

    check.check_ends(Plant(), 4)
    check.check_ends(type("P", (Plant,), {"ends": 2})(), 4)
    with pytest.raises(AssertionError, match="truncated is False at step 4 of an episode of 4"):
        check.check_ends(type("P", (Plant,), {"limit": 5})(), 4)
    with pytest.raises(AssertionError, match="truncated is True at step 3"):
        check.check_ends(type("P", (Plant,), {"limit": 3})(), 4)
    with pytest.raises(AssertionError, match="both"):
        check.check_ends(type("P", (Plant,), {"ends": 4, "both": True})(), 4)


def test_limits_that_cross_are_found():
    spec = msgspec.structs.replace(SPEC, action=ArraySpec("a", (1,), low=(1.0,), high=(-1.0,)))
    with pytest.raises(AssertionError, match="a has lower limits above the upper ones"):
        check.check_spec(task_of(type("T", (Toy,), {"spec": spec})))


def test_any_exception_is_a_verdict(install):
    class Broken(Toy):
        def __init__(self):
            raise RuntimeError("no licence\nfor this")

    install(Broken)
    assert verdict_of("toy", 5) == "RuntimeError: no licence"


def child(body: str, monkeypatch) -> None:
    """Let the checking process do something else instead of checking."""
    code = (
        "import os, signal, sys, time\nfrom sim import check_runner\n"
        f"def verdict_of(name, steps):\n{body}\n"
        "check_runner.verdict_of = verdict_of\nsys.exit(check_runner.main())"
    )

    class Stub(check_runner.Linked):
        def __init__(self, module, job, name):
            with monkeypatch.context() as patch:
                patch.setattr("sim.linked.Child", stub_child)
                super().__init__(module, job, name)

    from controller.process import Child

    def stub_child(args, name, descriptors):
        return Child([sys.executable, "-c", code, *args[3:]], name, descriptors=descriptors)

    monkeypatch.setattr(check_runner, "Linked", Stub)


def run(names, **options) -> dict[str, Verdict]:
    options = {"processes": 2, "limit_s": 20.0, "steps": 3} | options
    return {verdict.task: verdict for verdict in check_tasks(names, **options)}


def test_a_crash_or_a_hang_fails_one_task_only(monkeypatch):
    body = (
        "    if name == 'crash': os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if name == 'hang': time.sleep(60)\n"
        "    return 'wrong' if name == 'bad' else ''"
    )
    child(body, monkeypatch)
    monkeypatch.setattr(check_runner, "START_S", 1.0)
    names = ["crash", "a", "hang", "b", "bad", "c"]
    seen = run(names, limit_s=0.5)
    assert set(seen) == set(names)
    assert [name for name in names if seen[name].ok] == ["a", "b", "c"]
    assert seen["bad"].why == "wrong"
    assert "killed by SIGSEGV" in seen["crash"].why
    assert seen["hang"].why == "not done within 0.5 s"


def test_no_process_is_left_when_the_caller_stops_early(monkeypatch):
    child("    if name == 'hang': time.sleep(60)\n    return str(os.getpid())", monkeypatch)
    verdicts = check_tasks(["hang", "a", "b"], processes=2, limit_s=60.0, steps=3)
    pid = int(next(verdicts).why)
    verdicts.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_command_reports_and_fails_where_a_task_does(capsys, monkeypatch):
    assert main(["sim", "check", "pointmaze-umaze", "maze2d-umaze-v1", "--json"]) == 0
    out = capsys.readouterr()
    rows = msgspec.json.decode(out.out)
    assert rows == [
        {"task": "pointmaze-umaze", "ok": True, "why": ""},
        {"task": "maze2d-umaze", "ok": True, "why": ""},
    ]
    assert out.err.count("ok ") == 2
    child("    return f'{name} is odd'", monkeypatch)
    assert main(["sim", "check", "pointmaze-umaze", "--json"]) == 1
    (row,) = msgspec.json.decode(capsys.readouterr().out)
    assert row == {"task": "pointmaze-umaze", "ok": False, "why": "pointmaze-umaze is odd"}
    assert main(["sim", "check", "pointmase"]) == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_task_keeps_its_promises():
    seen = run(list(registry.tasks()), steps=30, limit_s=300.0)
    assert {name: v.why for name, v in seen.items() if not v.ok} == {}
