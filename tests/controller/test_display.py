import json

from controller.display import put_json, put_rows, run_bar, say


def test_json_is_one_value_and_what_is_not_finite_is_null(capsys):
    put_json({"a": 1, "b": [float("nan"), float("inf"), 2.5]})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": 1, "b": [None, None, 2.5]}
    assert err == ""


def test_facts_are_shown_as_they_are_brackets_too(capsys):
    facts = {"learned_from": "log [00c5ea] [bold]", "parent": None, "ok": True, "share": 0.25}
    say(facts, as_json=False)
    out, _ = capsys.readouterr()
    assert "log [00c5ea] [bold]" in out
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["parent", "none"],
        ["ok", "yes"],
        ["share", "0.25"],
    ]


def test_nested_facts_fit_a_line(capsys):
    say({"return": {"min": 1.0, "max": 2.0}, "versions": [], "rows": 200_000}, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == [
        "return    min 1  max 2",
        "versions  none",
        "rows      200000",
    ]


def test_each_of_several_groups_has_a_line_and_what_is_empty_is_left_out(capsys):
    steps = [{"name": "hash", "ms": 2.0, "detail": ""}, {"name": "spec", "ms": 0.5, "detail": "no"}]
    say({"steps": steps}, as_json=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["steps", "name", "hash", "ms", "2"],
        ["name", "spec", "ms", "0.5", "detail", "no"],
    ]


def test_of_a_run_that_never_began_no_bar_stays(capsys):
    with run_bar(5.0) as show:
        show(0.0, "tick 0")
    assert capsys.readouterr().err == ""
    with run_bar(5.0) as show:
        show(0.0, "tick 0")
        show(2.5, "tick 250")
    assert capsys.readouterr().err.count("tick 250") == 1


def test_rows_are_a_table_or_json(capsys):
    rows = [{"task": "a", "hz": 12.5, "data": ["x", "y"]}, {"task": "b", "hz": None, "data": []}]
    put_rows(rows, as_json=False)
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table == [["task", "hz", "data"], ["a", "12.5", "x", "y"], ["b"]]
    put_rows(rows, as_json=True)
    assert json.loads(capsys.readouterr().out) == rows
