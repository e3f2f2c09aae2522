from controller.delay import DelayEstimate


def after(delays, **options):
    estimate = DelayEstimate(**options)
    for ticks in delays:
        estimate.add(ticks)
    return estimate.ticks


def test_before_any_answer_and_for_instant_ones_it_is_one_tick():
    assert after([]) == 1
    assert after([0, 0, 0, 0]) == 1


def test_a_slow_warm_up_does_not_count():
    assert after([90]) == 90  # nothing better is known
    assert after([90, 3]) == 3
    assert after([90, 40, 3, 2]) == 3


def test_it_is_a_high_quantile_of_the_window():
    delays = list(range(1, 21))
    assert after(delays, window=20, warm_up=0, quantile=0.95) == 19
    assert after(delays, window=20, warm_up=0, quantile=1.0) == 20
    assert after(delays, window=20, warm_up=0, quantile=0.5) == 10
    assert after([7], warm_up=0) == 7


def test_an_outlier_is_forgotten_with_the_window():
    steady = [2] * 10
    assert after([*steady, 50], window=8, warm_up=0) == 50
    assert after([*steady, 50, *[2] * 7], window=8, warm_up=0) == 50
    assert after([*steady, 50, *[2] * 8], window=8, warm_up=0) == 2


def test_one_outlier_among_many_is_not_followed():
    assert after([2] * 31 + [50], window=32, warm_up=0) == 2
