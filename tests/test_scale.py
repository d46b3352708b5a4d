"""The scale plan's arithmetic and its simulation: they can't promise what the measured costs forbid."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.results import Record
from benchmarks.scale import LIMITS, Costs, Needs, bottlenecks, first_met, needs, power_of_two
from benchmarks.scale_page import refresh
from benchmarks.scale_simulation import Setup, simulate
from tests.properties import thorough

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
COSTS = Costs(
    worker=0.015, server=0.025, history=2_400, events=12, updates=6, store=1_500, temporal=5_500, thread_history=7_000,
    thread_store=2_000, thread_temporal=25_000, start_worker=0.03, start_server=0.06, wake_worker=0.03,
    wake_server=0.04,
)  # fmt: skip
moments = st.floats(0.001, 0.1)
costs = st.builds(
    lambda worker, server, updates: replace(COSTS, worker=worker, server=server, updates=updates),
    moments, moments, st.floats(4, 10),
)  # fmt: skip


def amounts(need: Needs) -> list[float]:
    """All that is needed."""
    return [float(value) for value in vars(need).values()]


@given(costs, st.floats(0, 1e7), st.floats(0, 1e5), st.floats(1, 10))
def test_more_never_needs_less(costs: Costs, threads: float, rate: float, more: float) -> None:
    """With more threads, or more steps, each need stays or grows; and what is needed can do the work."""
    need = needs(costs, threads, rate)
    for greater in (needs(costs, threads * more, rate), needs(costs, threads, rate * more)):
        assert all(after >= before for before, after in zip(amounts(need), amounts(greater), strict=True))
    assert need.workers >= rate * costs.worker
    assert need.server_cores >= rate * costs.server


@given(costs, st.lists(st.floats(0.1, 1e6), min_size=1, unique=True).map(sorted))
def test_each_limit_is_met_once(costs: Costs, rates: list[float]) -> None:
    """In its order, at the first rate that reaches it, and not at all where no rate does."""
    met = [limit for limits in first_met(costs, rates).values() for limit in limits]
    assert met == [limit for full, limit in bottlenecks(costs) if full <= rates[-1]]
    assert {limit.what for _, limit in bottlenecks(costs)} == {limit.what for limit in LIMITS}


@pytest.mark.parametrize(("needed", "given"), [(0, 1), (1, 1), (1.5, 2), (2, 2), (3, 4), (2_400, 4_096)])
def test_shards_are_powers_of_two(needed: float, given: int) -> None:
    """The next one."""
    assert power_of_two(needed) == given


@settings(thorough, max_examples=20)
@given(costs, st.integers(1, 30), st.integers(1, 4), st.integers(1, 4))
def test_a_simulation_stays_within_what_there_is(costs: Costs, agents: int, workers: int, cores: int) -> None:
    """No more steps than cores, worker processes and agents can make; and with enough agents all there is is used."""
    found = simulate(
        costs, Setup(agents=agents, workers=workers, cores=cores), seconds=150 * (costs.worker + costs.server)
    )
    alone = 1 / (costs.worker + costs.server)
    assert found.rate <= 1.25 * min(agents * alone, cores * alone, workers / costs.worker)
    assert 0 < found.median <= found.slow


def test_a_simulation_finds_the_shards_that_are_too_few() -> None:
    """One shard makes as many updates as the database writes one after the other, however many cores there are; with
    many shards the same agents are held up by nothing."""
    wide = Setup(agents=40, workers=40, cores=40, server_cores=40, update_seconds=0.02)
    few = simulate(COSTS, replace(wide, shards=1), seconds=40)
    many = simulate(COSTS, replace(wide, shards=1_000), seconds=40)
    assert few.rate == pytest.approx(1 / (6 * 0.02), rel=0.1)
    assert many.rate == pytest.approx(40 / (0.015 + 0.025 + 6 * 0.02), rel=0.1)


def test_the_page_has_a_place_for_all_that_is_measured(tmp_path: Path) -> None:
    """Every mark is filled, from the record alone; what is around the marks stays as it is, and twice is once."""
    validation = [{"agents": 5, "threads": 100, "simulated": 44.0, "measured": 40.0, "left": 1.9}]
    record = Record(
        name="scale", title="", about="", command="", at="2026-11-21T00:00:00", seconds=1, quick=False,
        machine={"cores": "2", "processor": "a processor"}, versions={},
        samples={"costs": vars(COSTS), "validation": validation},
    )  # fmt: skip
    once, twice = tmp_path / "once.md", tmp_path / "twice.md"
    refresh(record, PAGE, once)
    refresh(record, once, twice)
    text = once.read_text(encoding="utf-8")
    marks = re.findall(r"<!-- measured: (\w+) -->\n", PAGE.read_text(encoding="utf-8"))
    assert re.findall(r"<!-- measured: (\w+) -->\n\n\|", text) == marks
    assert sorted(marks) == ["bottlenecks", "costs", "needs", "shards", "validation", "waiting"]
    assert twice.read_text(encoding="utf-8") == text
