"""Histograms against exact ranks, the library's own counting, and sums by hand."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from controller.histogram import LONGEST_NS, Histogram

MS = 1_000_000
DURATIONS = arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 10 * LONGEST_NS // 9))


@settings(deadline=None)
@given(DURATIONS)
def test_many_at_once_count_as_one_by_one(durations):
    at_once, one_by_one = Histogram(durations), Histogram()
    for value in durations.tolist():
        one_by_one.record(value)
    assert at_once.quantiles() == one_by_one.quantiles()
    assert list(at_once._hdr.counts) == list(one_by_one._hdr.counts)


@settings(deadline=None)
@given(DURATIONS.map(lambda values: values.clip(max=LONGEST_NS)))
def test_figures_are_the_exact_ranks_to_three_digits(durations):
    exact = np.percentile(durations, (50, 99, 99.9, 100), method="higher") / 1e3
    found = Histogram(durations).quantiles()
    figures = np.array([found.p50, found.p99, found.p99_9])
    # Three digits of the histogram, and the last digit that is shown.
    assert (np.abs(figures - exact[:3]) <= 1e-3 * exact[:3] + 0.06).all()
    assert (found.max, found.samples) == (exact[3], len(durations))


def test_absent_durations_are_left_out_and_nothing_gives_no_figures():
    assert Histogram(np.array([-1, -1])).quantiles() is None
    assert Histogram(np.array([-1, 5 * MS])).quantiles().samples == 1
    assert len(Histogram()) == 0


def test_sums_of_histograms_are_histograms_of_all():
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 10**9, size) for size in (5, 300, 0)]
    whole = Histogram()
    whole.add(map(Histogram, parts))
    assert whole.quantiles() == Histogram(np.concatenate(parts)).quantiles()


def test_text_that_the_tools_read_comes_back():
    durations = np.random.default_rng(1).lognormal(12, 2, 1000).astype(np.int64)
    kept = Histogram(durations)
    text = kept.encoded()
    # V2 compressed, in base64: the cookie 0x1c849314 begins every such text.
    assert text.startswith("HISTFAA")
    back = Histogram.decoded(text)
    assert list(back._hdr.counts) == list(kept._hdr.counts)
    assert back.quantiles().p99 == kept.quantiles().p99
