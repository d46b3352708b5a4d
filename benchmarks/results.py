"""What a run leaves: one record an experiment, in results.json."""

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from benchmarks.experiment import Curve, Finding

_FILE = "results.json"


@dataclass(frozen=True, kw_only=True)
class Record:
    """An experiment that was run. ``error``: why it gave nothing; ``seconds``: how long it took.

    ``machine`` and ``versions`` are those of this run: experiments may be run one by one.
    """

    name: str
    title: str
    about: str
    command: str
    at: str  # ISO 8601, UTC
    seconds: float
    quick: bool
    machine: dict[str, str]
    versions: dict[str, str]
    findings: list[Finding] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)
    error: str = ""


_RECORDS = TypeAdapter(dict[str, Record])


def load(folder: Path) -> dict[str, Record]:
    """The records of earlier runs, by experiment."""
    file = folder / _FILE
    return _RECORDS.validate_json(file.read_bytes()) if file.exists() else {}


def save(folder: Path, records: dict[str, Record]) -> None:
    """Write them, all or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f"{_FILE}.new"
    half.write_bytes(_RECORDS.dump_json(records, indent=1))
    half.replace(folder / _FILE)


def machine() -> dict[str, str]:
    """This machine, as far as it matters."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": str(os.cpu_count()), "processor": _processor(), "memory": f"{memory:.0f} GB",
        "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(),
    }  # fmt: skip


def _processor() -> str:
    """Its name where the system tells it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
