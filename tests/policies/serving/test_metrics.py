"""What a server counts, as figures, as Prometheus text, and as a page."""

import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.control import control
from controller.errors import ConfigError, PeerTimeout
from policies.serving.counts import BOUNDS_NS, HISTORY, NEWEST, Durations, PolicyCounts
from policies.serving.exposition import text_of
from policies.serving.metrics_page import MetricsPage
from tests.policies.serving.doubler import Doubler, connected, request, serving, swap
from tests.policies.serving.fleet import FakeBatchPolicy, Fleet, Robot, fresh_clock


def test_durations_are_counted_in_buckets_and_the_newest_give_quantiles():
    durations = Durations()
    assert durations.quantiles_us() == {}
    for ns in (0, 10_000, 10_001, 25_000, 999_999_999, 10**9, 10**9 + 1):
        durations.add(ns)
    assert durations.buckets[:2] == [2, 2]
    assert durations.buckets[-2:] == [2, 1]
    assert sum(durations.buckets) == 7
    assert durations.total_ns == 0 + 10_000 + 10_001 + 25_000 + 999_999_999 + 2 * 10**9 + 1
    for _ in range(NEWEST):
        durations.add(70_000)
    assert durations.quantiles_us() == {"p50": 70.0, "p99": 70.0}
    for us in range(1, 101):
        durations.add(1000 * us * 1000)
    assert durations.quantiles_us()["p50"] == 70.0
    assert durations.quantiles_us()["p99"] == pytest.approx(60_000, rel=0.02)


def test_bounds_rise():
    assert list(BOUNDS_NS) == sorted(set(BOUNDS_NS))
    assert (BOUNDS_NS[0], BOUNDS_NS[1], BOUNDS_NS[-1]) == (10_000, 25_000, 10**9)


def test_a_thousand_versions_are_not_all_remembered():
    counts = PolicyCounts()
    for number in range(1000):
        counts.enter_version(f"v{number}", number)
        counts.note(f"v{number}", "answered")
    assert len(counts.versions) == len(counts.outcomes()) == HISTORY
    assert counts.versions[-1] == ["v999", 999, 0]
    assert list(counts.outcomes(2)) == ["v998", "v999"]


def samples(text):
    """Return every sample by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_text_says_what_happened():
    clock = fresh_clock()
    robots = [Robot(), Robot(budget_ms=0.5), Robot(position=9.0, start_ms=5.0)]
    with Fleet(FakeBatchPolicy(clock, 2.0, crash=5.0), robots, clock) as fleet:
        fleet.run(1.0)
        service = fleet.server._services["default"]
        found = samples(text_of(fleet.server._metrics(service)))
    policy = ("policy", "default")
    assert found["onebeat_requests_total", (policy,)] == 150
    assert found["onebeat_rejects_total", (("code", "late"), policy)] == 50
    assert found["onebeat_rejects_total", (("code", "failed"), policy)] == 50
    version = ("version", "v1")
    assert found["onebeat_outcomes_total", (("code", "answered"), policy, version)] == 50
    assert found["onebeat_outcomes_total", (("code", "failed"), policy, version)] == 50
    assert found["onebeat_policy_info", (policy, version)] == 1
    assert found["onebeat_sessions", ()] == 3
    assert found["onebeat_up_seconds", ()] == pytest.approx(1.0, abs=0.05)
    # 50 computations of 2 ms, each at the upper end of its bucket or below.
    assert found["onebeat_infer_seconds_bucket", (("le", "0.001"), policy)] == 0
    assert found["onebeat_infer_seconds_bucket", (("le", "0.0025"), policy)] == 50
    assert found["onebeat_infer_seconds_bucket", (("le", "+Inf"), policy)] == 50
    assert found["onebeat_infer_seconds_sum", (policy,)] == pytest.approx(0.1)
    assert found["onebeat_batch_size_bucket", (("le", "1"), policy)] == 50
    assert found["onebeat_batch_size_count", (policy,)] == 50


def test_sizes_of_batches_in_the_text_are_cumulative():
    numbers = {"batches": [[1, 3], [3, 2], [64, 1], [100, 1]]}
    counts = PolicyCounts().numbers() | numbers | {"version": "v", "canary": None}
    metrics = {
        **dict.fromkeys(("up_ns", "sessions", "malformed", "dropped", "draining", "fairness"), 0),
        "bounds_ns": BOUNDS_NS,
        "policies": {"p": counts},
    }
    found = samples(text_of(metrics))
    buckets = [
        found["onebeat_batch_size_bucket", (("le", le), ("policy", "p"))]
        for le in ("1", "2", "4", "32", "64", "+Inf")
    ]
    assert buckets == [3, 3, 5, 5, 6, 7]
    assert found["onebeat_batch_size_sum", (("policy", "p"),)] == 3 + 6 + 64 + 100


def test_the_numbers_of_a_server_that_was_swapped_a_lot_fit_one_message(endpoint):
    policies = {name: Doubler(f"{name}-" + "x" * 190) for name in "abcd"}
    with serving(policies, endpoint) as server, connected(endpoint, "b") as client:
        for service in server._services.values():
            for number in range(HISTORY):
                service.counts.enter_version(f"{number:0200}", number)
                service.counts.note(f"{number:0200}", "answered")
        client.infer(request(0))
        metrics = control(endpoint, "metrics", timeout_s=20.0)
        assert metrics["policies"]["b"]["requests"] == 1
        assert len(metrics["policies"]["b"]["outcomes"]) == 20
        control(endpoint, "stats", timeout_s=20.0)


def test_a_trial_is_shown_while_it_runs(endpoint):
    with serving(Doubler(), endpoint):
        args = {"bundle": "v2", "share": "0.25"}
        control(endpoint, "canary", args, timeout_s=20.0)
        found = samples(text_of(control(endpoint, "metrics", timeout_s=20.0)))
        labels = ("policy", "default"), ("version", "v2")
        assert found["onebeat_canary_share", labels] == 0.25
        swapped = ("change", "canary"), ("policy", "default")
        assert found["onebeat_changes_total", swapped] == 1


def fetch(address, path="/metrics"):
    with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_the_page_shows_the_text_and_says_when_the_server_is_gone(endpoint):
    stop = threading.Event()
    page = MetricsPage("127.0.0.1:0", lambda: text_of(control(endpoint, "metrics", timeout_s=2.0)))
    thread = threading.Thread(target=page.run, args=(stop.is_set,))
    thread.start()
    try:
        with serving(Doubler(), endpoint):
            swap(endpoint, "v2")
            kind, text = fetch(page.address)
            assert kind.startswith("text/plain; version=0.0.4")
            assert 'onebeat_changes_total{change="swap",policy="default"} 1.0' in text
            with pytest.raises(urllib.error.HTTPError, match="404"):
                fetch(page.address, "/elsewhere")
        with pytest.raises(urllib.error.HTTPError, match="503") as error:
            fetch(page.address)
        assert "no server answered" in error.value.read().decode()
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def refuse():
    raise PeerTimeout("nobody is there")


@pytest.mark.parametrize(
    ("listen", "match"),
    [
        ("9464", "9464: expected HOST:PORT, as in 127.0.0.1:9464"),
        ("127.0.0.1:99999", "expected HOST:PORT"),
        ("192.0.2.1:9464", "192.0.2.1:9464: cannot be bound: "),
    ],
)
def test_addresses_that_do_not_work(listen, match):
    with pytest.raises(ConfigError, match=match):
        MetricsPage(listen, refuse)
