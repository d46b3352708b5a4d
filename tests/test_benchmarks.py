"""The benchmarks: what their statistics say, what a run leaves, and what becomes of a subject that fails."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import workload
from benchmarks.__main__ import main
from benchmarks.bench import Bench
from benchmarks.experiments import sizes, steps
from benchmarks.measure import Contest, Missing, Spread, compete, ratios
from benchmarks.process import SubjectFailed
from tests.programs import is_alive

_TIMES = st.floats(min_value=1e-6, max_value=1e6)
_SAMPLES = st.lists(_TIMES, min_size=1, max_size=30)
_PAIRS = st.lists(st.tuples(_TIMES, _TIMES, _TIMES), min_size=1, max_size=30)

# ── statistics ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(_SAMPLES, st.randoms())
def test_a_spread_lies_within_its_values_whatever_their_order(values: list[float], random: Any) -> None:
    """Quartiles around the median, none beyond what was measured; the order of rounds doesn't matter."""
    spread = Spread.of(values)
    assert min(values) <= spread.low * (1 + 1e-12)
    assert spread.low <= spread.median * (1 + 1e-12)
    assert spread.median <= spread.high * (1 + 1e-12)
    assert spread.high <= max(values) * (1 + 1e-12)
    random.shuffle(values)
    assert Spread.of(values) == spread


@given(_PAIRS)
def test_what_slows_a_whole_round_leaves_its_ratio_alone(rounds: list[tuple[float, float, float]]) -> None:
    """A machine that is slower for a while doesn't show in ratios: both of a round were slowed."""
    quiet = ratios([one for one, _, _ in rounds], [other for _, other, _ in rounds])
    drifting = ratios([one * drift for one, _, drift in rounds], [other * drift for _, other, drift in rounds])
    assert drifting == pytest.approx(quiet)


class Contender:
    """Fails at its turn of that number, from 0."""

    def __init__(self, name: str, order: list[str], fails_at: int | None) -> None:
        self._name, self._order, self._fails_at = name, order, fails_at

    async def __call__(self) -> dict[str, float]:
        self._order.append(self._name)
        turn = self._order.count(self._name) - 1
        if turn == self._fails_at:
            raise SubjectFailed(f"{self._name} is tired")
        return {"turn": turn}


@given(
    st.dictionaries(st.sampled_from("abcd"), st.none() | st.integers(0, 6), min_size=1),
    st.integers(1, 4), st.integers(0, 2),
)  # fmt: skip
def test_contenders_take_turns_and_who_fails_is_not_asked_again(
    plan: dict[str, int | None], rounds: int, warmups: int
) -> None:
    """Each is asked once a round, warm-ups don't count, each round turns the order round; one that fails says why, has
    no figures, and the others have all of theirs."""
    order: list[str] = []
    contenders: dict[str, Callable[[], Awaitable[dict[str, float]]]] = {
        name: Contender(name, order, fails_at) for name, fails_at in plan.items()
    }
    contest = asyncio.run(compete(contenders, rounds=rounds, warmups=warmups))
    total = rounds + warmups
    for name, fails_at in plan.items():
        if fails_at is not None and fails_at < total:
            assert order.count(name) == fails_at + 1
            assert contest.spread(name, "turn") == Missing(f"{name} is tired")
        else:
            assert contest.values(name, "turn") == list(range(warmups, total))
    if all(fails_at is None or fails_at >= total for fails_at in plan.values()):
        first, second = order[: len(plan)], order[len(plan) : 2 * len(plan)]
        assert sorted(first) == sorted(plan)
        assert second in ([], first[::-1])


def test_a_ratio_with_one_that_failed_is_missing_with_its_reason() -> None:
    """No figure is made up, and none is left out silently."""
    contest = Contest({"a": [{"seconds": 1.0}]}, {"b": "b ended: no such database"})
    assert contest.ratio("a", "b", "seconds") == Missing("b ended: no such database")
    assert contest.ratio("b", "a", "seconds") == Missing("b ended: no such database")


# ── a run ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_leaves_what_the_report_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line to the page, with Perdure and the workflow written by hand on a real server: every figure
    is there and finite; the same number of events a step, counted in the history, and little more bytes."""
    monkeypatch.setattr(steps, "_QUICK", {2: 2})
    monkeypatch.setattr(sizes, "_QUICK", (2, 6))

    assert main(["--quick", "--only", "steps", "--only", "history", "--out", str(tmp_path)]) == 0

    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"steps", "history"}
    for record in results.values():
        assert record["error"] == ""
        assert {"cores", "memory", "python", "system"} <= record["machine"].keys()
        assert {"perdure", "temporalio"} <= record["versions"].keys()
        assert record["findings"]
        assert all(math.isfinite(finding["measured"]["median"]) for finding in record["findings"])
    assert growth(results["history"], "handwritten", "history_events") == 12
    assert growth(results["history"], "perdure", "history_events") == 12
    ratio = growth(results["history"], "perdure", "history_bytes") / growth(
        results["history"], "handwritten", "history_bytes"
    )
    assert ratio < 1.2
    page = (tmp_path / "benchmarks.md").read_text()
    assert "`python3 dev.py run bench --only history --quick`" in page
    assert "| history bytes a step, Perdure against handwritten, 2 steps | ≤ 1.2 |" in page
    assert "quick run" in page


def growth(record: Any, subject: str, figure: str) -> float:
    """What each further step adds, exactly."""
    short, long = (record["samples"][f"{steps} steps"]["samples"][subject][0][figure] for steps in (2, 6))
    return float((long - short) / 4)


async def test_a_subject_that_dies_tells_why_and_the_rest_goes_on(tmp_path: Path) -> None:
    """One can't open its store, one dies before it is asked anything, one is killed between two rounds, one goes
    through; nothing of them is left running."""
    async with Bench(tmp_path / "bench", quick=True) as bench:
        server = await bench.tuned()
        homeless = bench.subject("perdure", server, store="nowhere://at-all", name="homeless")
        bench.subject("perdure", server, store="nowhere://at-all", name="never asked")
        mortal, hand = (bench.subject("handwritten", server, name=name) for name in ("mortal", "hand"))
        turns = 0

        async def mortally() -> dict[str, Any]:
            nonlocal turns
            turns += 1
            if turns == 2:
                mortal.kill()
            return await mortal.ask("loop", steps=1)

        loop = [partial(one.ask, "loop", steps=1) for one in (homeless, hand)]
        contest = await compete({"homeless": loop[0], "mortal": mortally, "hand": loop[1]}, rounds=2, warmups=0)
        pids = [server.pid, hand.pid]
    assert "names no store" in contest.failed["homeless"]
    assert contest.failed["mortal"].startswith("mortal ended with -9:")
    assert turns == 2
    assert len(contest.samples["hand"]) == 2
    assert not any(is_alive(pid) for pid in pids)


def test_the_workload_is_the_same_for_everybody() -> None:
    """Sizes as the page tells them, and the same in every process."""
    assert len(workload.result(7)) == 500
    assert len(workload.call_id(7) + workload.TOOL + workload.arguments(7)) in range(180, 211)
    assert json.loads(workload.arguments(7))["step"] == 7
    assert workload.result(7) != workload.result(8)
