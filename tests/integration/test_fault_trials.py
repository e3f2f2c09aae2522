"""``onebeat faults`` on a real system."""

import json

import pytest

from controller.faults.trials import FAULTS

WORDS = ("task=pointmaze-umaze", "before_s=1", "after_s=15", "rate_hz=100", "stop_after_s=20")


def rows_of(done) -> dict:
    assert done.stdout.startswith("{"), done.stderr
    return {row["fault"]: row for row in json.loads(done.stdout)["rows"]}


def test_faults_are_injected_and_survived(onebeat, store, tmp_path):
    names = ("answers_garbage", "bundle_corrupt", "server_killed")
    done = onebeat(
        "faults", *names, f"bundle={store}", f"out={tmp_path}", *WORDS, "--json", timeout=110.0
    )
    rows = rows_of(done)
    assert list(rows) == list(names)
    for row in rows.values():
        assert row["recovery_s"] is not None, row
        assert row["records_lost"] <= 1, row
        assert row["ticks"] > 150, row
    assert rows["answers_garbage"]["rungs"].get("local", 0) > 20, "the replica stood in"
    assert rows["server_killed"]["rungs"].get("local", 0) > 5
    assert "sha256" in rows["bundle_corrupt"]["note"] or "refused" in rows["bundle_corrupt"]["note"]


def test_an_unknown_fault_is_named(onebeat):
    done = onebeat("faults", "server_kiled")
    assert done.returncode == 2
    assert "did you mean server_killed" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_fault(onebeat, tmp_path):
    done = onebeat("faults", f"out={tmp_path}", "--json", timeout=850.0)
    rows = rows_of(done)
    assert list(rows) == list(FAULTS)
    bad = {name: row["note"] for name, row in rows.items() if row["ok"] is False}
    late_only = {name for name, note in bad.items() if note.endswith("ticks late")}
    assert set(bad) == late_only, bad
