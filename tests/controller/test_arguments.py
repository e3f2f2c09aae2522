from pathlib import Path

import pytest

from controller.arguments import nearest, parse
from controller.command_line import Verb, overrides_of
from controller.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        (["rate_hz=50"], ("rate_hz=50",)),
        (["--rate-hz", "50"], ("rate_hz=50",)),
        (["--rate-hz=50"], ("rate_hz=50",)),
        (["--policy.local-replica", "true"], ("policy.local_replica=true",)),
        (["--out", "a-b=c"], ("out=a-b=c",)),
        (["a=b=c", "--x", "-1"], ("a=b=c", "x=-1")),
    ],
)
def test_flags_and_overrides_are_one_thing(words, overrides):
    assert parse(words).overrides == overrides


def test_words_are_sorted_by_kind():
    got = parse(["runs/log.mcap", "configs/run/demo.yaml", "seed=3", "--json", "second"])
    assert got.subjects == ("runs/log.mcap", "second")
    assert got.file == Path("configs/run/demo.yaml")
    assert got.overrides == ("seed=3",)
    assert got.json
    assert not got.help


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_in_any_place(word):
    assert parse(["seed=3", word]).help


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rate-hz"], "--rate-hz: expected a value"),
        (["--veiw"], "--veiw: expected a value, as in --veiw VALUE; did you mean --view?"),
        (["--rate-hz", "--json"], "--rate-hz: expected a value"),
        (["-x"], "-x: unknown switch"),
        (["a.yaml", "b.yml"], "expected one YAML file, got 2: a.yaml, b.yml"),
    ],
)
def test_faults_are_one_line(words, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse(words)
    assert "\n" not in str(caught.value)


def test_nearest_names_the_likely_word_and_all_valid_ones():
    assert nearest("rnu", ["run", "eval"]) == "did you mean run? valid: run, eval"
    assert nearest("zzz", ["run", "eval"]) == "valid: run, eval"
    many = [f"task-{number}" for number in range(10, 40)]
    assert nearest("tsk-17", many) == "did you mean task-17?"
    assert nearest("zzzzzz-39", many).startswith("nearest of 30: task-39, ")


VERB = Verb("", "", "", "parent", rest="logs")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["hopper"], ["parent=hopper"]),
        (["hopper", "--logs", "a"], ["parent=hopper", "logs=a"]),
        (["hopper", "--logs", "a", "b", "c"], ["parent=hopper", 'logs=["a", "b", "c"]']),
        (["hopper", "--logs", "a", "--logs", "b"], ["parent=hopper", 'logs=["a", "b"]']),
        (["hopper", "logs=[a, b]", "c"], ["parent=hopper", 'logs=["a", "b", "c"]']),
        (["hopper", "--logs", "a", "--offline", "d", "b"], None),
        (["parent=hopper", "--logs", "a", "b"], ["parent=hopper", 'logs=["a", "b"]']),
        (["--logs", "a"], ["logs=a"]),
        (["--logs=a,1", "hopper", "2"], ["parent=hopper", 'logs=["a,1", "2"]']),
    ],
)
def test_what_a_shell_makes_of_a_pattern_is_one_list(words, expected):
    expected = expected or ["parent=hopper", "offline=d", 'logs=["a", "b"]']
    assert overrides_of(VERB, parse(words)) == expected


def test_plain_words_without_their_flag_are_refused():
    with pytest.raises(ConfigError, match="expected one parent, got a b; logs come after --logs"):
        overrides_of(VERB, parse(["a", "b"]))
