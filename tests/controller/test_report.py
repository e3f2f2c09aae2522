from __future__ import annotations

import base64
import builtins
import io
import re
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest
from rich.console import Console

from controller.errors import ControllerError
from controller.plots import MissingExtra, Track, maze_paths_png, tracks_of
from controller.report import Extras, Picture, print_table, write_html
from controller.stats import summarise
from controller.types import Reason, Rung
from tests.controller.records import header, tick, written

PNG = b"\x89PNG\r\n\x1a\n"
GIF = b"GIF89a" + bytes(20)
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Text, table rows, picture sources and links of a page; asserts that tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.rows, self.images, self.links = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        values = dict(attrs)
        if tag == "img":
            self.images.append(values["src"])
        self.links += [values[name] for name in ("href", "src") if name in values]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


@pytest.fixture
def log(tmp_path):
    records = [tick(n, total_ns=1_000_000 + 1000 * n) for n in range(40)]
    records += [
        tick(40, rung=Rung.TAIL, reasons=int(Reason.LATE), total_ns=7_654_321),
        tick(41, version="v2<b>", terminated=True, success=True, episode_return=12.5),
        tick(42, version="v2<b>", episode=1, step=0),
    ]
    return written(tmp_path / "log.mcap", records)


def page(path, log, extras=None):
    write_html(path, summarise(log, (0.0, 50.0)), log, extras)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_has_the_figures(tmp_path, log):
    _, parsed = page(tmp_path / "report.html", log)
    words = " ".join(parsed.words)
    assert ["tail", "1", "2.33%"] in parsed.rows
    (total,) = [row for row in parsed.rows if row[:1] == ["total"]]
    assert total[1:] == ["1,021", "7,654", "7,654", "7,654"]
    for figure in ("12.50", "25.0", "100%", "100.00"):
        assert figure in words
    assert ["v2<b>", "41", "0.41", "2"] in parsed.rows
    assert "late 1" in words


def test_the_page_needs_nothing_but_itself(tmp_path, log):
    text, parsed = page(tmp_path / "report.html", log, Extras([Picture("Maze", "", PNG)]))
    assert len(parsed.images) == 6
    assert all(link.startswith("data:image/") for link in parsed.links)
    assert "<script" not in text
    assert not re.search(r"https?://", text)


def test_every_picture_is_one(tmp_path, log):
    _, parsed = page(tmp_path / "report.html", log)
    for source in parsed.images:
        assert base64.b64decode(source.partition(",")[2]).startswith(PNG)


def test_pictures_and_figures_from_elsewhere(tmp_path, log):
    extras = Extras(
        pictures=[
            Picture("Animation", "The run.", GIF),
            Picture("Maze", missing="no GL & no EGL"),
        ],
        finetune={"updates": 300, "swap_ms": 1.23456, "score_after": None, "version_after": "v2"},
    )
    text, parsed = page(tmp_path / "report.html", log, extras)
    assert f"data:image/gif;base64,{base64.b64encode(GIF).decode()}" in parsed.images
    assert "No picture: no GL & no EGL" in parsed.words
    assert "no GL &amp; no EGL" in text
    for row in (["updates", "300"], ["swap ms", "1.235"], ["score after", "-"]):
        assert row in parsed.rows


def test_without_matplotlib_the_page_says_what_to_install(tmp_path, log, monkeypatch):
    imported = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return imported(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    _, parsed = page(tmp_path / "report.html", log)
    assert parsed.images == []
    assert sum("onebeat[report]" in words for words in parsed.words) == 5
    with pytest.raises(MissingExtra, match=r"onebeat\[report\]") as caught:
        maze_paths_png(np.zeros((2, 2), bool), 1.0, [], [])
    assert isinstance(caught.value, ControllerError)


def test_a_page_of_an_empty_log(tmp_path):
    log = written(tmp_path / "log.mcap", [])
    _, parsed = page(tmp_path / "report.html", log)
    assert "No episode was completed." in parsed.words


def test_the_log_is_read_without_matplotlib():
    import subprocess
    import sys

    code = (
        "import sys, controller.report, controller.log_reader; print('matplotlib' in sys.modules)"
    )
    words = [sys.executable, "-c", code]
    assert subprocess.run(words, capture_output=True, timeout=60, check=True).stdout == b"False\n"


def test_tracks_are_cut_by_episode_and_version(tmp_path):
    records = [
        tick(0),
        tick(1, version="", rung=Rung.HOLD),
        tick(2, version="v2"),
        tick(3, version="v2", episode=1),
    ]
    tracks = tracks_of(written(tmp_path / "log.mcap", records), "position")
    assert [(len(track.xy), track.version) for track in tracks] == [(2, "v1"), (1, "v2"), (1, "v2")]
    np.testing.assert_array_equal(tracks[1].xy[0], records[2].observation.arrays[0])


def test_the_maze_is_drawn_where_the_robot_drives(tmp_path):
    """Cell (0, 0), a wall, is top left: x < 0, y > 0."""
    walls = np.array([[True, False], [False, False]])
    path = np.array([[-0.5, -0.5], [0.5, -0.5]])
    picture = _pixels(maze_paths_png(walls, 1.0, [Track(path, "v1")], [[0.5, 0.5]]))
    wall_rows, wall_columns = np.nonzero(np.isclose(picture, 0.72, atol=0.01).all(axis=2))
    rows, columns = np.nonzero(picture[:, :, 2] - picture[:, :, 0] > 0.15)
    assert len(rows) > 100
    assert np.median(wall_rows) < np.median(rows)
    assert columns.min() < wall_columns.max() < columns.max()


def _pixels(png):
    from matplotlib.image import imread

    return imread(io.BytesIO(png))[:, :, :3]


def terminal_text(report):
    console = Console(width=120, file=io.StringIO(), color_system=None)
    print_table(report, console)
    return console.file.getvalue()


def test_the_terminal_shows_the_same_figures(log):
    report = msgspec.structs.replace(summarise(log, (0.0, 50.0)), mode="realtime")
    text = terminal_text(report)
    for figure in ("100.00 Hz", "12.50", "25.0", "100%", "7,654", "v1 → v2<b>", "late 1"):
        assert figure in text


def test_late_physics_and_faults_are_told(tmp_path):
    about = header(mode="realtime", plant={"substeps": 4, "faults": {"noise": 0.1}})
    records = [tick(n, late_ns=1_500_000 * (n > 1), late_steps=max(0, n - 1)) for n in range(30)]
    log = written(tmp_path / "log.mcap", records, about)
    text = " ".join(terminal_text(summarise(log)).split())
    assert "real-time factor 1, 28 physics steps late (worst 1.5 ms)" in text
    assert "faults: noise 0.1" in text
    assert "the first 10; the others are in the log" in text
    _, shown = page(tmp_path / "report.html", log)
    assert ["2", "0", "2", "1", "1.50"] in shown.rows
    assert ["commands can act", "4 times per control step"] in shown.rows
    assert ["faults", "noise 0.1"] in shown.rows


def test_virtual_time_has_no_stages_to_show(log):
    text = terminal_text(summarise(log, (0.0, 50.0)))
    assert "Stages" not in text
    assert "12.50" in text
