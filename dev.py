#!/usr/bin/env python3
"""The one command of a checkout: makes the environment, then checks, tests, or runs what is in it.

    python3 dev.py demo [ARG]...      the demonstration
    python3 dev.py test [ARG]...      check, then pytest with the arguments
    python3 dev.py check              lint, format, types, layers
    python3 dev.py run NAME [ARG]...  any program of the environment: perdure, pytest, temporal
    python3 dev.py run bench [ARG]... the benchmarks, which bring what they compare with
    python3 dev.py lock               resolve both locks anew from pyproject.toml

Only the standard library, and only `venv`: a fresh Debian has neither make nor uv, and forbids a bare pip.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever meets this line has an older Python than the project targets
    sys.exit(f"Perdure needs Python 3.11 or newer; this is Python {sys.version.split()[0]}.")

import hashlib
import os
import shutil
import subprocess
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
LOCK = ROOT / "requirements.lock"
BENCH_LOCK = ROOT / "requirements-bench.lock"  # what the benchmarks need besides; never another version of anything
# Most tests wait: for a server, a process, a clock. A file's tests stay together, since many share what they set up;
# the files begin in the order of tests/conftest.py, the longest first.
SIDE_BY_SIDE = ("-n", str(min(2 * (os.cpu_count() or 1), 8)), "--dist", "loadfile", "--no-loadscope-reorder")
STAMP = VENV / "perdure-dev.stamp"
BENCH_STAMP = VENV / "perdure-bench.stamp"

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    # Two runs, so that each file has one module name: the package by its links, then what stands beside it.
    ("mypy", "-p", "perdure"),
    ("mypy", "tests", "benchmarks", "dev.py", "deploy/healthcheck.py"),
    ("lint-imports",),
)


def main(argv: list[str]) -> int:
    """Runs the command named first; the exit code is that of the program it ends in."""
    commands: dict[str, Callable[[list[str]], int]] = {
        "demo": demo,
        "test": test,
        "check": check,
        "run": run,
        "lock": lock,
    }
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(__doc__)
        return 0 if argv else 2
    command = commands.get(argv[0])
    if command is None:
        print(f"dev.py: no command {argv[0]!r}; there are {', '.join(commands)}.", file=sys.stderr)
        return 2
    return command(argv[1:])


def demo(args: list[str]) -> int:
    """Shows Perdure at work, offline."""
    return run(["perdure", "demo", *args])


def test(args: list[str]) -> int:
    """Checks first: they take seconds, and what they find would only blur a test's failure."""
    failed = check([])
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would compile the same modules anew
    return failed or run(["pytest", *SIDE_BY_SIDE, *args])


def check(args: list[str]) -> int:
    """Runs every check, even after one failed, and returns the first failure's code."""
    if args:
        print("dev.py: check takes no arguments.", file=sys.stderr)
        return 2
    ensure_environment()
    codes = [_check(command) for command in CHECKS]
    return next(filter(None, codes), 0)


def run(args: list[str]) -> int:
    """Becomes a program of the environment, so that signals and the exit code are its own."""
    if not args:
        print("dev.py: run what? For example: python3 dev.py run perdure --help", file=sys.stderr)
        return 2
    ensure_environment()
    if args[0] == "bench":
        ensure_bench()
        return _become([str(BIN / "python"), "-m", "benchmarks", *args[1:]])
    program = BIN / args[0]
    if "/" in args[0] or not os.access(program, os.X_OK):
        print(f"dev.py: no program {args[0]!r} in {BIN}.", file=sys.stderr)
        return 2
    return _become([str(program), *args[1:]])


def lock(args: list[str]) -> int:
    """Resolves every dependency, for every supported platform and Python, into requirements.lock; then, with that as
    its constraint, what the benchmarks need besides into requirements-bench.lock.

    `--upgrade` lets go of the versions that are locked now. The resolver lives in a throw-away environment:
    it is a tool of this one command, and asking for it must not need the lock.
    """
    if args not in ([], ["--upgrade"]):
        print("dev.py: lock takes no arguments, or --upgrade.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="perdure-lock-") as folder:
        tools = Path(folder) / "venv"
        _say("installing the resolver")
        _make_venv(tools)
        _pip(tools / "bin" / "python", "install", "uv")
        _say("resolving")
        failed = _resolve(tools, "dev", LOCK, *args)
        return failed or _resolve(tools, "bench", BENCH_LOCK, "--constraint", LOCK.name, *args)


def _resolve(tools: Path, extra: str, lock: Path, *args: str) -> int:
    """The exit code of the resolver, which writes a lock for the project with an extra."""
    return subprocess.run(
        [
            *(tools / "bin" / "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"),
            *("--no-header", "--no-annotate", "--no-config", "--extra", extra),
            *("--output-file", lock.name, *args, "pyproject.toml"),
        ],
        cwd=ROOT,
        env=_resolver_environment(tools / "bin" / "python"),
        stdout=subprocess.DEVNULL,
        check=False,
    ).returncode


def ensure_environment() -> None:
    """Makes `.venv`, or brings it up to date; does nothing where its stamp says that nothing has changed."""
    _ensure_venv()
    wanted = f"{ROOT}\n{_digest(LOCK)}\n"
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    python = BIN / "python"
    _say("installing the locked dependencies")
    _pip(python, "install", "--require-hashes", "-r", str(LOCK))
    _pip(python, "install", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    STAMP.write_text(wanted)


def ensure_bench() -> None:
    """Adds to `.venv` what the benchmarks compare with, or brings it up to date."""
    wanted = f"{_digest(LOCK, BENCH_LOCK)}\n"
    if BENCH_STAMP.is_file() and BENCH_STAMP.read_text() == wanted:
        return
    _say("installing what the benchmarks compare with")
    _pip(BIN / "python", "install", "--require-hashes", "-r", str(BENCH_LOCK))
    BENCH_STAMP.write_text(wanted)


def _ensure_venv() -> None:
    """A `.venv` that works here is kept, whoever made it; one that does not is replaced if it is ours."""
    if VENV.exists():
        if _works_here():
            return
        if not STAMP.is_file():
            sys.exit(f"dev.py: {VENV} does not work here and was not made by dev.py; move it away first.")
        _say("replacing .venv, which does not work here")
        shutil.rmtree(VENV)
    _say("making .venv")
    VENV.mkdir()
    STAMP.write_text(f"{ROOT}\n")  # ours from the start: an interrupted beginning may be replaced
    _make_venv(VENV)


def _works_here() -> bool:
    """False where the interpreter is gone or too old, or the checkout was moved: scripts name their place."""
    if STAMP.is_file() and STAMP.read_text().splitlines()[:1] != [str(ROOT)]:
        return False
    probe = [str(BIN / "python"), "-c", "import sys, pip; sys.exit(sys.version_info < (3, 11))"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _make_venv(folder: Path) -> None:
    try:
        venv.create(folder, with_pip=True, symlinks=True)
    except subprocess.CalledProcessError:
        shutil.rmtree(folder, ignore_errors=True)
        sys.exit("dev.py: this Python cannot make environments with pip; on Debian: apt install python3-venv")


def _digest(*locks: Path) -> str:
    """What the environment was made from."""
    parts = [file.read_bytes() for file in (*locks, ROOT / "pyproject.toml")]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _pip(python: Path, *args: str) -> None:
    """Where packages come from is the business of the machine's own pip configuration."""
    command = [str(python), "-m", "pip", "-qq", "--disable-pip-version-check", *args]
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(f"dev.py: pip failed ({code}); the environment is not complete.")


def _resolver_environment(python: Path) -> dict[str, str]:
    """The resolver reads none of pip's configuration, so a mirror that pip knows is handed on."""
    listing = subprocess.run(
        [str(python), "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    )
    index = os.environ.get("PIP_INDEX_URL") or listing.stdout.strip()
    return os.environ | ({"UV_DEFAULT_INDEX": index} if index else {})


def _check(command: tuple[str, ...]) -> int:
    _say(" ".join(command))
    return subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, env=_environment(), check=False).returncode


def _become(command: list[str]) -> NoReturn:
    sys.stdout.flush()
    os.execve(command[0], command, _environment())


def _environment() -> dict[str, str]:
    """As an activated environment has it: programs find one another."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)])
    return kept | {"VIRTUAL_ENV": str(VENV), "PATH": path}


def _say(text: str) -> None:
    """Progress goes to standard error: `run perdure -o json` owns standard output."""
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
