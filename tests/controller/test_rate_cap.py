import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.rate_cap import BURST_S, MAX_METERS, RateCap

SECOND = 1_000_000_000
MS = 1_000_000
ME = b"me"


def test_a_burst_passes_and_then_the_rate():
    cap = RateCap(100.0, 1e9)
    assert sum(cap.admits(ME, 10, 0) for _ in range(100)) == 25  # a quarter of a second's
    assert not cap.admits(ME, 10, 9 * MS)  # 0.9 of a message has come back
    assert [cap.admits(ME, 10, at * MS) for at in (11, 12, 19, 20)] == [True, False, False, True]
    assert cap.dropped == cap.dropped_of(ME) == 75 + 3


def test_the_largest_message_passes_and_is_paid_for_afterwards():
    cap = RateCap(1e6, 1000.0)
    assert cap.admits(ME, 2000, 0)  # of 250 bytes, 1750 on credit
    assert not cap.admits(ME, 1, 1749 * MS)
    assert cap.admits(ME, 1, 1751 * MS)


def test_each_client_has_its_own():
    cap = RateCap(4.0, 1e6)
    assert cap.admits(ME, 1, 0)
    assert not cap.admits(ME, 1, 0)
    assert cap.admits(b"you", 1, 0)
    assert (cap.dropped, cap.dropped_of(ME), cap.dropped_of(b"you")) == (1, 1, 0)
    assert cap.dropped_of(b"nobody") == 0


def test_a_client_is_told_once_a_second():
    cap = RateCap(4.0, 1e6)
    cap.admits(ME, 1, 0)
    told = [cap.tells(ME, at * SECOND // 10) for at in range(25)]
    assert [number for number, one in enumerate(told) if one] == [0, 10, 20]


def test_strangers_do_not_fill_the_memory():
    cap = RateCap(4.0, 1e6)
    for number in range(10 * MAX_METERS):
        assert cap.admits(b"%d" % number, 1, 0)
    assert len(cap._meters) == MAX_METERS


gaps = st.lists(st.integers(0, SECOND), min_size=1, max_size=200)


@given(gaps, st.floats(1.0, 1e4), st.integers(1, 2000))
def test_never_more_than_a_burst_and_the_rate(between_ns, rate_hz, octets):
    """The bound of a token bucket: burst + rate × time, and one message that overdraws bytes."""
    bytes_s = 50_000.0
    cap = RateCap(rate_hz, bytes_s)
    now_ns, passed = 0, 0
    for gap_ns in between_ns:
        now_ns += gap_ns
        passed += cap.admits(ME, octets, now_ns)
    elapsed_s = now_ns / 1e9
    assert passed <= max(1.0, BURST_S * rate_hz) + rate_hz * elapsed_s + 1e-6
    assert passed * octets <= bytes_s * (BURST_S + elapsed_s) + octets
    assert passed + cap.dropped == len(between_ns)


@pytest.mark.parametrize("rate_hz", [1.0, 50.0, 1000.0])
def test_who_keeps_to_the_rate_loses_nothing(rate_hz):
    cap = RateCap(rate_hz, 1e9)
    assert all(cap.admits(ME, 100, round(n * SECOND / rate_hz)) for n in range(1000))


def test_rates_in_words():
    assert RateCap(4000.0, 2e8).words == "4000 messages or 200 MB per second"
