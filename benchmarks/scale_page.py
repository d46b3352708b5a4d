"""The measured parts of docs/scale.md, between their marks; what is around them is written by hand."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.results import Record
from benchmarks.scale import ASSUMED, Costs, at_least_one, bottlenecks, first_met, needs
from benchmarks.scale_simulation import Setup, simulate

_THREADS = (1e2, 1e3, 1e4, 1e5, 1e6)
_RATES = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)
_SHARDS = (256, 512, 1_024, 4_096)
_FULL = 10_000.0  # steps a second
_AGENTS = 1_000  # at work at once, by which that many steps a second are made
_PART = 16  # what is simulated is a sixteenth of everything: agents meet in shards as often as in the whole
_SECONDS = 5.0  # of simulated time


def refresh(record: Record, page: Path, to: Path) -> None:
    """The page with what a run has measured."""
    costs = Costs(**record.samples["costs"])
    parts = {
        "costs": _costs(costs, record),
        "validation": _validation(record.samples["validation"]),
        "needs": _needs(costs),
        "bottlenecks": _bottlenecks(costs),
        "waiting": _waiting(costs),
        "shards": _shards(costs),
    }
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = _with_part(text, name, part)
    to.write_text(text, encoding="utf-8")


def _with_part(text: str, name: str, part: str) -> str:
    """The text with this part between its marks."""
    between = rf"(<!-- measured: {name} -->\n).*?(<!-- end -->)"
    return re.sub(between, lambda found: f"{found[1]}\n{part}\n{found[2]}", text, flags=re.DOTALL)


def _costs(costs: Costs, record: Record) -> str:
    machine = record.machine
    rows = [
        ("CPU of the worker", *_ms(costs.worker, costs.start_worker, costs.wake_worker)),
        ("CPU of the server", *_ms(costs.server, costs.start_server, costs.wake_server)),
        ("Temporal's database", _bytes(costs.temporal), _bytes(costs.thread_temporal), ""),
        ("of that, history", _bytes(costs.history), _bytes(costs.thread_history), ""),
        ("checkpoint store", _bytes(costs.store), _bytes(costs.thread_store), ""),
        ("updates of the workflow by Temporal", f"{costs.updates:.1f}", "", ""),
        ("commits in the checkpoint store", f"{costs.commits:g}", "", ""),
    ]
    where = f"{machine['cores']} cores, {machine['processor']}, {record.at[:10]}"
    table = _table(("", "a step", "a thread that begins to wait", "a thread woken and finished"), rows)
    return f"{table}\nOn {where}{' (a quick run)' if record.quick else ''}; databases are SQLite.\n"


def _validation(runs: Any) -> str:
    rows = [
        (f"{run['agents']}", f"{run['threads']:,}", f"{run['simulated']:.1f}", f"{run['measured']:.1f}",
         f"{run['simulated'] / run['measured']:.2f}", f"{run['left']:.2f}")
        for run in runs
    ]  # fmt: skip
    heads = (
        "agents at work", "threads waiting", "steps/s simulated", "steps/s measured", "ratio",
        "cores that other processes left",
    )  # fmt: skip
    return _table(heads, rows)


def _needs(costs: Costs) -> str:
    rows = []
    for threads, rate in zip(_THREADS, _RATES, strict=True):
        need = needs(costs, threads, rate)
        rows.append(
            (f"{threads:,.0f}", f"{rate:,.0f}", f"{need.workers}", f"{need.server_cores}", f"{need.shards:,}",
             f"{need.temporal_writes:,.0f}", f"{need.store_writes:,.0f}", _bytes(need.waiting_bytes),
             _bytes(need.daily_history), _bytes(need.daily_store))
        )  # fmt: skip
    heads = (
        "threads waiting", "steps/s", "worker processes", "server cores", "history shards", "Temporal's transactions/s",
        "store's commits/s", "Temporal, those that wait", "Temporal, a day of steps", "store, a day of steps",
    )  # fmt: skip
    return _table(heads, rows)


def _bottlenecks(costs: Costs) -> str:
    full = {limit.what: rate for rate, limit in bottlenecks(costs)}
    rows = []
    for rate, met in first_met(costs, _RATES).items():
        rows += [
            (f"{rate:,.0f}" if number == 0 else "", limit.what, f"{full[limit.what]:,.0f}", limit.then)
            for number, limit in enumerate(met)
        ] or [(f"{rate:,.0f}", "nothing", "", "")]
    return _table(("up to steps/s", "what is used up", "at steps/s", "and then"), rows)


def _waiting(costs: Costs) -> str:
    rows = []
    for threads in _THREADS:
        wake = threads * (costs.wake_worker + costs.wake_server)
        rows.append(
            (f"{threads:,.0f}", _bytes(threads * costs.thread_temporal), _bytes(threads * costs.thread_store),
             f"{threads / 4_096:,.1f}", f"{wake / 3600:,.2f}")
        )  # fmt: skip
    heads = (
        "threads waiting", "Temporal's database", "checkpoint store", "executions a shard of 4,096",
        "core hours to wake and finish all",
    )  # fmt: skip
    return _table(heads, rows)


def _shards(costs: Costs) -> str:
    need, rows = needs(costs, 1e6, _FULL), []
    workers, cores = at_least_one(need.workers / _PART), at_least_one(need.server_cores / _PART)
    for shards in _SHARDS:
        setup = Setup(
            agents=_AGENTS // _PART, workers=workers, cores=workers, server_cores=cores, shards=shards // _PART,
            update_seconds=ASSUMED.update_seconds,
        )  # fmt: skip
        found = simulate(costs, setup, seconds=_SECONDS)
        rows.append(
            (f"{shards:,}", f"{found.rate * _PART:,.0f}", f"{found.median * 1e3:.0f}", f"{found.slow * 1e3:.0f}")
        )
    return _table(("history shards", "steps/s", "median of a step, ms", "99 % within, ms"), rows)


def _ms(*seconds: float) -> list[str]:
    return [f"{one * 1e3:.1f} ms" for one in seconds]


def _bytes(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1_000:
            return f"{size:.3g} {unit}"
        size /= 1_000
    return f"{size:.3g} TB"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = tuple(heads)
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
