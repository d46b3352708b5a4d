"""The wheel: one package at the top, the linked folders as real files in it, and a command that starts."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("activities", "examples", "starters", "workers", "workflows")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout, without isolation: the build reaches for nothing that is not locked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    (built,) = folder.glob("perdure-*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def sources(folder: str, *patterns: str) -> set[str]:
    """The paths, below the root, of a folder's own files that match."""
    found = (path for pattern in patterns for path in (ROOT / folder).rglob(pattern))
    return {path.relative_to(ROOT).as_posix() for path in found if path.is_file()}


def test_nothing_else_at_the_top(names: set[str]) -> None:
    """No top-level `workflows` or `tests`: other distributions own such names in people's site-packages."""
    tops = {name.split("/")[0] for name in names}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"perdure"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_linked_folders_are_in_it_as_files(names: set[str], folder: str) -> None:
    """Every module of the root folder is found below `perdure`, where the imports look for it."""
    expected = {f"perdure/{path}" for path in sources(folder, "*.py")}

    assert f"perdure/{folder}/__init__.py" in expected
    assert expected <= names


def test_data_files_are_in_it(names: set[str]) -> None:
    """The SQL and the marker that makes the types visible are no modules, and easily left behind."""
    queries = sources("perdure", "*.sql")

    assert queries
    assert queries | {"perdure/py.typed"} <= names


def test_nothing_is_in_it_twice_or_compiled(names: set[str]) -> None:
    """What tools leave in the folders stays in the checkout."""
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".db"))]


def test_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    """Installed where only the dependencies are, away from the checkout, the command starts."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True, cwd=tmp_path)
    see_dependencies(environment)

    where = run(tmp_path, str(python), "-c", "import perdure.workflows as w; print(w.__path__[0])")
    shown = run(tmp_path, str(environment / "bin" / "perdure"), "--help")

    assert Path(where.strip()).is_relative_to(environment)
    assert "worker" in shown


def see_dependencies(environment: Path) -> None:
    """A path file adds our site-packages, but path files in there, as of an editable install, stay unread."""
    (packages,) = (environment / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")


def run(folder: Path, *command: str) -> str:
    """Isolated from the variables by which this process finds the checkout."""
    finished = subprocess.run(
        command, cwd=folder, env={"PATH": "/usr/bin:/bin"}, check=True, capture_output=True, text=True
    )
    return finished.stdout
