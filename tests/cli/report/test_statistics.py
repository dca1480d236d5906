from __future__ import annotations

import random

import pytest

from pycaffe.cli._report.statistics import ErrorGroups, Latencies, Sample, Throughput


def test_throughput_counts_every_image_however_long_the_job() -> None:
    throughput = Throughput()
    for tick in range(40_000):
        throughput.add(tick / 100)
    assert sum(throughput.counts) == 40_000
    assert throughput.span == 4
    assert throughput.counts == [400] * 100


def test_throughput_has_gaps() -> None:
    throughput = Throughput()
    throughput.add(0.1)
    throughput.add(1.1)
    assert throughput.counts == [1, 0, 0, 0, 1]


def test_latencies_lie_in_bins_of_a_tenth_of_a_decade() -> None:
    latencies = Latencies()
    assert (latencies.bins(), latencies.quantile(0.5)) == ([], 0)
    for seconds in [0.0105] * 90 + [0.05] * 9 + [1.05]:
        latencies.add(seconds)
    bins = latencies.bins()
    assert [count for _, _, count in bins if count] == [90, 9, 1]
    assert bins[0] == (pytest.approx(0.01), pytest.approx(0.01 * 10**0.1), 90)
    assert all(bins[i][1] == bins[i + 1][0] for i in range(len(bins) - 1))
    assert latencies.quantile(0.5) == pytest.approx(0.0126, abs=1e-4)
    assert latencies.quantile(0.99) == pytest.approx(0.0501, abs=1e-4)
    assert latencies.quantile(1) == pytest.approx(1.26, abs=1e-2)
    latencies.add(0)
    assert latencies.bins()[0][0] == pytest.approx(1e-6)


def test_errors_are_grouped_whatever_file_and_number_they_name() -> None:
    errors = ErrorGroups()
    for index in range(20):
        errors.add(f"{index}.png", ValueError(f"Could not decode '{index}.png': {index} bytes"))
    errors.add("a", KeyError("b"))
    (first, group), (second, _) = errors
    assert (first, second) == ("ValueError: Could not decode …: N bytes", "KeyError: 'b'")
    assert (group.number, len(group.examples)) == (20, 5)
    assert group.examples[1] == ("1.png", "Could not decode '1.png': 1 bytes")


def test_many_kinds_of_errors_take_no_more_room() -> None:
    errors = ErrorGroups()
    for index in range(1000):
        errors.add("x", ValueError("never twice " + "x" * index))
    groups = dict(errors)
    assert len(groups) == ErrorGroups.KINDS + 1
    assert groups["ValueError"].number == 1000 - ErrorGroups.KINDS


def test_a_sample_is_fair() -> None:
    """500 samples of 20 of 200: each element is in 50 of them, give or take."""
    times = [0] * 200
    for seed in range(500):
        sample: Sample[int] = Sample(20)
        sample._random = random.Random(seed)
        for element in range(200):
            sample.add(element)
        assert len(set(sample.chosen)) == 20
        for element in sample.chosen:
            times[element] += 1
    assert sum(times[:100]) == pytest.approx(5000, abs=200)
    assert 20 < min(times) < max(times) < 85
    assert sample.count == 200
