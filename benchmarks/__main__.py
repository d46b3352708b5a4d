"""The command: ``python3 dev.py run bench [--only NAME]... [--quick] [--list] [--out FOLDER]``."""

import argparse
import asyncio
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.experiment import Experiment, Outcome
from benchmarks.experiments import MODULES
from benchmarks.plot import draw
from benchmarks.process import ROOT
from benchmarks.report import COMMAND, markdown
from benchmarks.results import Record, load, machine, save
from benchmarks.scale_page import refresh

_RESULTS = ROOT / "benchmarks" / "results"


def main(argv: Sequence[str]) -> int:
    """Run experiments and write the report; 1 where one of them gave nothing, 2 for a wrong command line."""
    known = experiments()
    parser = argparse.ArgumentParser(prog=COMMAND, description="Perdure beside its peers, on the same work in one run.")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", choices=known, help="this experiment")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and fewer steps: does it work at all?")
    parser.add_argument("--list", action="store_true", help="tell which experiments there are")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="results, page and plot go there")
    given = parser.parse_args(argv)
    if given.list:
        for name, experiment in known.items():
            sys.stdout.write(f"{name:12} {experiment.title}\n")
        return 0
    out = given.out or (_RESULTS / "quick" if given.quick else _RESULTS)
    page = given.out or (out if given.quick else ROOT / "docs")
    chosen = [known[name] for name in given.only or known]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: servers and folders are cleared away
    try:
        return asyncio.run(run(chosen, out, page, quick=given.quick))
    except KeyboardInterrupt:
        _say("stopped")
        return 130


def experiments() -> dict[str, Experiment]:
    """All experiments by name, in the order of the report."""
    modules = (importlib.import_module(f"benchmarks.experiments.{name}") for name in MODULES)
    return {one.name: one for module in modules for one in module.EXPERIMENTS}


async def run(chosen: Sequence[Experiment], out: Path, page: Path, *, quick: bool) -> int:
    """Run them one after the other, and write what there is after each: a run that is stopped leaves a report.

    Quick ones run side by side, as many as there are cores: their times are not judged.
    """
    records, turns = load(out), asyncio.Semaphore((os.cpu_count() or 1) if quick else 1)

    async def take_turn(experiment: Experiment) -> Record:
        async with turns:
            _say(f"{experiment.name}: {experiment.title} …")
            records[experiment.name] = record = await measure(experiment, quick=quick)
        _say(f"{experiment.name}: {record.seconds:.0f} s{_verdict(record)}")
        save(out, records)
        publish(records, page)
        return record

    ran = await asyncio.gather(*(take_turn(experiment) for experiment in chosen))
    return int(any(record.error for record in ran))


async def measure(experiment: Experiment, *, quick: bool) -> Record:
    """Run one experiment; whatever goes wrong is told in its record."""
    outcome, error, begun = Outcome(), "", time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="perdure-bench-", ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder), quick=quick)
        try:
            async with bench:
                outcome = await experiment.run(bench)
        except Exception as failed:
            traceback.print_exc()
            error = f"{type(failed).__name__}: {failed}"
    return Record(
        name=experiment.name, title=experiment.title, about=experiment.about,
        command=f"{COMMAND} --only {experiment.name}{' --quick' if quick else ''}",
        at=datetime.now(UTC).isoformat(timespec="seconds"), seconds=time.perf_counter() - begun, quick=quick,
        machine=machine(), versions=bench.versions, findings=outcome.findings, curves=outcome.curves,
        samples=outcome.samples, error=error,
    )  # fmt: skip


def publish(records: dict[str, Record], folder: Path) -> None:
    """Write the page and the plot."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = {name: records[name] for name in experiments() if name in records}
    plot = "benchmarks.svg" if draw(ordered, folder / "benchmarks.svg") else ""
    (folder / "benchmarks.md").write_text(markdown(ordered, plot=plot), encoding="utf-8")
    if "scale" in ordered and not ordered["scale"].error:
        refresh(ordered["scale"], ROOT / "docs" / "scale.md", folder / "scale.md")


def _verdict(record: Record) -> str:
    if record.error:
        return f"; {record.error}"
    judged = [finding.met for finding in record.findings if finding.limit is not None]
    return f"; {judged.count(True)} of {len(judged)} targets met" if judged and not record.quick else ""


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
