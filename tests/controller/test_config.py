"""Settings: what is accepted, and that every refusal is one line that names its cause."""

import math
import string
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.config import describe, load, to_yaml
from controller.errors import ConfigError
from controller.spelling import distance, nearest
from controller.yaml_source import dump, parse, read_mapping

CONFIGS = Path(__file__).parents[2] / "configs"
Rate = Annotated[float, msgspec.Meta(gt=0, le=1000)]


class Loop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The loop.

    Attributes:
        rate_hz: control rate.
        spin: wait busily.
        slew_per_s: largest change of a command,
            per second.
    """

    rate_hz: Rate = 100.0
    spin: bool = False
    slew_per_s: Annotated[float, msgspec.Meta(gt=0)] | None = None


class Net(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network.

    Attributes:
        width: width.
    """

    width: Annotated[int, msgspec.Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings.

    Attributes:
        task: name (text): with a colon.
        engine: where to compute.
        hidden: widths of the layers.
        limits: lower and upper.
        updates: number of updates.
        loop: the loop.
        extra: further networks.

    More text: that is no attribute.
    """

    task: str = "maze"
    engine: Literal["numpy", "torch"] = "numpy"
    hidden: tuple[Annotated[int, msgspec.Meta(ge=1)], ...] = (64, 64)
    limits: tuple[float, float] | None = None
    updates: Annotated[int, msgspec.Meta(ge=1)] = 10
    loop: Loop = Loop(spin=True)
    extra: dict[str, Net] = {}

    def __post_init__(self):
        if self.limits and self.limits[0] > self.limits[1]:
            raise ValueError("limits are the wrong way round")


class Needy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings without defaults."""

    out: str
    net: Net


def write(folder, text, name="demo.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def refusal(path, overrides=(), kind=Settings):
    with pytest.raises(ConfigError) as caught:
        load(kind, path, overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_defaults_without_a_file():
    assert load(Settings, None) == Settings()


def test_file_then_overrides_in_order(tmp_path):
    path = write(tmp_path, "task: kitchen\nupdates: 5\nloop: {rate_hz: 50}\n")
    settings = load(Settings, path, ["updates=6", "loop.slew_per_s=1e-3", "updates=7"])
    assert settings == Settings(
        task="kitchen", updates=7, loop=Loop(rate_hz=50.0, spin=True, slew_per_s=0.001)
    )


def test_plain_words_are_those_of_yaml_1_2(tmp_path):
    text = "[off, yes, 2024-01-01, 12:30, 1e-3, -.5, 1_000, 0x10, .inf, ~, true, 1., +1, '1']"
    values = ["off", "yes", "2024-01-01", "12:30", 0.001, -0.5, 1000, 16, math.inf, None, True]
    assert read_mapping(write(tmp_path, f"a: {text}")) == {"a": [*values, 1.0, 1, "1"]}


PLAIN = st.text("0123456789eE+-._xobinfNaTruFls~<: ") | st.none() | st.booleans() | st.integers()


@given(st.lists(PLAIN | st.floats(allow_nan=False)))
def test_what_is_dumped_is_what_is_parsed(values):
    assert parse(dump({"a": values}), "") == {"a": values}
    assert [type(v) for v in parse(dump(values), "")] == [type(v) for v in values]


def test_group_given_in_part_keeps_the_parents_default():
    assert load(Settings, None, ["loop.rate_hz=5"]).loop == Loop(rate_hz=5.0, spin=True)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("updates=1_000", {"updates": 1000}),
        ("updates=010", {"updates": 10}),
        ("task=kitchen", {"task": "kitchen"}),
        ("task=7", {"task": "7"}),
        ("task=on", {"task": "on"}),
        ("task=2024-01-01", {"task": "2024-01-01"}),
        ("task='7'", {"task": "7"}),
        ("task=a=b", {"task": "a=b"}),
        ("task=*any", {"task": "*any"}),
        ("task=tcp://127.0.0.1:5555", {"task": "tcp://127.0.0.1:5555"}),
        ("hidden=[1, 2]", {"hidden": (1, 2)}),
        ("limits=[-1, 1e-3]", {"limits": (-1.0, 0.001)}),
        ("limits=", {"limits": None}),
        ("extra={a: {width: 3}}", {"extra": {"a": Net(3)}}),
        ("extra.a.width=3", {"extra": {"a": Net(3)}}),
    ],
)
def test_override_values(word, expected):
    assert load(Settings, None, [word]) == msgspec.structs.replace(Settings(), **expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "loop:\n  rate_hzz: 5\n",
            "loop.rate_hzz: unknown key; did you mean rate_hz? (valid: rate_hz, spin, slew_per_s)",
        ),
        ("rate_hz: 5\n", "rate_hz: unknown key; did you mean loop.rate_hz? (valid: task, engine,"),
        ("spln: on\n", "spln: unknown key; did you mean loop.spin? (valid: task, engine,"),
        ("loop.spin: on\n", "loop.spin: unknown key; did you mean a group, loop: {spin: ...}?"),
        ("qqqqqq: 5\n", "qqqqqq: unknown key (valid: task, "),
        ("5: 5\n", "5: expected a name as the key, got 5"),
        ("updates: many\n", "updates: expected a whole number >= 1, got 'many'"),
        ("updates: 0\n", "updates: expected a whole number >= 1, got 0"),
        ("updates: 2.5\n", "updates: expected a whole number >= 1, got 2.5"),
        ("loop: {rate_hz: -5}\n", "loop.rate_hz: expected a number > 0 and <= 1000, got -5"),
        ("loop: {rate_hz: .nan}\n", "loop.rate_hz: expected a number > 0 and <= 1000, got nan"),
        ("loop: {slew_per_s: .inf}\n", "expected a number > 0 or null, got inf, which is not"),
        ("loop: {spin: 'on'}\n", "loop.spin: expected true or false, got 'on'"),
        ("loop:\n", "loop: expected a group of keys (rate_hz, spin, slew_per_s), got null"),
        ("loop: 5\n", "loop: expected a group of keys (rate_hz, spin, slew_per_s), got 5"),
        ("task: 7\n", "task: expected text, got 7"),
        ("updates: 1:30\n", "updates: expected a whole number >= 1, got '1:30'"),
        ("loop: {spin: on}\n", "loop.spin: expected true or false, got 'on'"),
        ("engine: numpi\n", "expected one of numpy, torch, got 'numpi'; did you mean numpy?"),
        ("hidden: [64, 0]\n", "hidden[1]: expected a whole number >= 1, got 0"),
        ("hidden: 64\n", "hidden: expected a list of: a whole number >= 1, got 64"),
        ("limits: [1]\n", "limits: expected [a number, a number] or null, got [1]"),
        ("limits: [1, x]\n", "limits[1]: expected a number, got 'x'"),
        ("limits: [1, 0]\n", "limits are the wrong way round"),
        ("extra: {a: {widht: 1}}\n", "extra.a.widht: unknown key; did you mean width? (valid:"),
        ("extra: {a: {}}\n", "extra.a.width: missing, expected a whole number >= 1"),
        ("updates: 1\nupdates: 2\n", "2: not valid YAML: key 'updates' is given twice, first in l"),
        ("{updates: 1, updates: 2}\n", "key 'updates' is given twice"),
        ("loop:\n  spin: on\n  spin: on\n", "demo.yaml:3: not valid YAML: key 'spin' is given"),
        ("task: [1\nupdates: 3\n", "demo.yaml:2: not valid YAML: "),
        ("task: !!python/object:os.system x\n", "demo.yaml:1: not valid YAML: could not determine"),
        ("task: !!timestamp 2024-99-99\n", "not valid YAML: "),
        ("a: 1\n---\nb: 1\n", "not valid YAML: but found another document"),
        ("[" * 5000, "not valid YAML: "),
        ("", "the file is empty, expected a mapping of key: value"),
        ("# nothing\n", "the file is empty"),
        ("- 1\n", "expected a mapping of key: value, got [1]"),
        ("just text\n", "expected a mapping of key: value, got 'just text'"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = write(tmp_path, text)
    got = refusal(path)
    assert message in got
    assert got.startswith(str(path))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "loop.rate_hz=-5",
            "override loop.rate_hz=-5: expected a number > 0 and <= 1000, got -5",
        ),
        (
            "loop.rate_hzz=5",
            "override loop.rate_hzz=5: unknown key; did you mean rate_hz? "
            "(valid: rate_hz, spin, slew_per_s)",
        ),
        ("lop.rate_hz=5", "override lop.rate_hz=5: lop: unknown key; did you mean loop? (valid:"),
        ("rate_hz=5", "override rate_hz=5: unknown key; did you mean loop.rate_hz? (valid:"),
        ("updates.x=1", "updates: expected a whole number >= 1, got {'x': 1}"),
        ("loop={spin: 3}", "override loop={spin: 3}: loop.spin: expected true or false, got 3"),
        ("engine=2", "override engine=2: expected one of numpy, torch, got 2"),
        ("task=", "override task=: expected text, got null"),
        ("task", "override 'task': expected key=value, as in task=..."),
        ("=3", "expected key=value"),
        ("loop..spin=on", "expected key=value"),
        ("up\ndates=1", "unknown key; did you mean updates?"),
    ],
)
def test_bad_overrides(word, message):
    assert message in refusal(None, [word])


def test_required_keys(tmp_path):
    assert refusal(None, kind=Needy) == "settings: out: missing, expected text"
    path = write(tmp_path, "out: x\nnet: {}\n")
    message = "net.width: missing, expected a whole number >= 1"
    assert refusal(path, kind=Needy) == f"{path}: {message}"
    assert load(Needy, path, ["net.width=3"]) == Needy("x", Net(3))


def test_missing_file_names_the_nearest(tmp_path):
    write(tmp_path, "a: 1", "demo.yaml")
    write(tmp_path, "a: 1", "other.yaml")
    (tmp_path / "notes.txt").write_text("")
    message = refusal(tmp_path / "dmo.yaml")
    assert f"no such file; did you mean {tmp_path / 'demo.yaml'}?" in message
    assert message.endswith(f"(in {tmp_path}: demo.yaml, other.yaml)")
    (tmp_path / "train").mkdir()
    near = tmp_path / "train" / "demo.yaml"
    assert refusal(tmp_path / "trian" / "demo.yaml").endswith(f"; did you mean {near}?")
    assert "no such folder" in refusal(tmp_path / "x" / "y" / "demo.yaml")
    assert "no such folder" in refusal(tmp_path / "demo.yaml" / "demo.yaml")


def test_directory_and_unreadable_bytes(tmp_path):
    write(tmp_path, "a: 1")
    assert "is a directory, expected a YAML file (in" in refusal(tmp_path)
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"task: \xff\xfe")
    assert "not UTF-8 text" in refusal(path)
    path.write_bytes(b"task: \x00")
    assert "not valid YAML" in refusal(path)


def test_merge_keys_and_aliases_are_fine(tmp_path):
    path = write(tmp_path, "extra:\n  a: &a {width: 1}\n  b: {<<: *a, width: 2}\n")
    assert load(Settings, path).extra == {"a": Net(1), "b": Net(2)}


def test_describe_opens_groups_and_reads_docstrings():
    rows = {row.key: row for row in describe(Settings)}
    expected_keys = "task engine hidden limits updates loop.rate_hz loop.spin loop.slew_per_s extra"
    assert list(rows) == expected_keys.split()
    assert rows["task"] == ("task", "text", "maze", "name (text): with a colon.")
    assert rows["loop.spin"] == ("loop.spin", "true or false", "true", "wait busily.")
    assert rows["loop.slew_per_s"].doc == "largest change of a command, per second."
    assert rows["hidden"].default == "[64, 64]"
    assert rows["extra"].doc == "further networks."
    assert [row.default for row in describe(Needy)] == ["required", "required"]


@given(
    st.builds(
        Settings,
        task=st.text(),
        engine=st.sampled_from(["numpy", "torch"]),
        hidden=st.lists(st.integers(1, 10**6)).map(tuple),
        limits=st.none() | st.just((-1e-7, 1e300)),
        loop=st.builds(
            Loop,
            rate_hz=st.floats(0, 1000, exclude_min=True),
            spin=st.booleans(),
            slew_per_s=st.none()
            | st.floats(0, exclude_min=True, allow_infinity=False, allow_nan=False),
        ),
        extra=st.dictionaries(st.text(min_size=1), st.builds(Net, st.integers(1, 9)), max_size=3),
    )
)
def test_yaml_round_trip(tmp_path_factory, settings):
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(to_yaml(settings), encoding="utf-8", newline="")
    assert load(Settings, path) == settings


KEYS = [row.key for row in describe(Settings)]


@st.composite
def typos(draw):
    """One letter of one key replaced, left out, added, or swapped with its neighbour."""
    key = draw(st.sampled_from(KEYS))
    group, _, name = key.rpartition(".")
    at = draw(st.integers(0, len(name) - 1))
    letter = draw(st.sampled_from(string.ascii_lowercase + "_"))
    wrong = draw(
        st.sampled_from(
            [
                name[:at] + letter + name[at + 1 :],
                name[:at] + name[at + 1 :],
                name[:at] + letter + name[at:],
                name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
            ]
        )
    )
    return group, name, wrong


@given(typos())
def test_every_single_letter_typo_of_every_key_is_named(tmp_path_factory, typo):
    group, name, wrong = typo
    siblings = [key for key in KEYS if key.rpartition(".")[0] == group] + ["loop"]
    if wrong in siblings or f"{group}.{wrong}".lstrip(".") in KEYS:
        return
    key = f"{group}.{wrong}".lstrip(".")
    message = refusal(None, [f"{key}=1"])
    assert f"unknown key; did you mean {name}? (valid: " in message
    path = tmp_path_factory.getbasetemp() / "typo.yaml"
    path.write_text(f"{group}: {{'{wrong}': 1}}" if group else f"'{wrong}': 1")
    assert f"{path}: {key}: unknown key; did you mean {name}? (valid: " in refusal(path)


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_distance_is_a_symmetric_bounded_count(a, b):
    assert distance(a, b) == distance(b, a) <= max(len(a), len(b))
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, b) >= abs(len(a) - len(b))


def test_distance_by_hand():
    assert distance("kitten", "sitting") == 3
    assert distance("rate", "arte") == 1
    assert distance("ca", "abc") == 3
    assert nearest("rete", ["rate", "seed"]) == "rate"
    assert nearest("zzzz", ["rate", "seed"]) is None
    assert nearest("x", []) is None


def test_import_is_light():
    code = (
        "import sys, controller.config\n"
        "heavy = {'numpy', 'rich', 'tyro', 'zmq', 'mcap', 'torch'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda p: p.name)
def test_shipped_files_are_strict_yaml(path):
    assert read_mapping(path)


def test_brackets_that_are_no_yaml_are_told_from_a_wrong_type():
    message = refusal(None, ["hidden=[a[0], {b: 1]"])
    assert "not valid YAML" in message
    assert 'quotes, as in "array[0]"' in message
