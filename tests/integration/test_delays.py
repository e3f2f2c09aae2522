"""``onebeat delays``, side by side and one after the other."""

import json

import pytest


@pytest.fixture
def study(store, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(
        "arms:\n"
        f'  - {{name: "per tick", bundle: "{store}"}}\n'
        f'  - {{name: "blocking", bundle: "{store}", blocking: true}}\n'
        "delays_ms: [0, 100]\n"
        "episodes: 1\n"
    )
    return path


def test_two_processes_find_what_one_finds(onebeat, study, tmp_path):
    found = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        done = onebeat("delays", study, f"processes={processes}", f"out={out}", "--json")
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout)["rows"])
        assert {path.name for path in out.iterdir()} == {"delays.json", "delays.csv", "delays.png"}
    assert found[0] == found[1]
    cells = [(row["arm"], row["delay_ms"]) for row in found[0]]
    assert cells == [("per tick", 0), ("per tick", 100), ("blocking", 0), ("blocking", 100)]
    assert found[0][0]["rungs"]["fresh"] == pytest.approx(1.0, abs=0.02)
    assert found[0][1]["rungs"] == {"hold": 1.0}, "an answer after its tick is of no use"


def test_a_policy_of_another_robot_is_refused_before_anything_is_played(onebeat, tmp_path):
    done = onebeat("delays", "task=walker2d", f"out={tmp_path}")
    assert done.returncode != 0
    assert "walker2d" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
