"""What the torch engine does beyond agreeing with the others."""

from hypothesis import given
from hypothesis import strategies as st

from policies.engine_torch import padded


@given(st.integers(1, 100_000))
def test_padded_rows_are_few_more_than_there_are(rows):
    assert rows <= padded(rows) <= max(rows, 1.25 * rows)
    assert padded(padded(rows)) == padded(rows)


def test_few_sizes_serve_all():
    sizes = {padded(rows) for rows in range(1, 4097)}
    assert len(sizes) == 44
    assert {1, 2, 3, 4, 5, 8, 64, 4096} <= sizes
