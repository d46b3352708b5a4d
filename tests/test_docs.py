"""What the documents say is true: their code runs, their commands and files exist."""

import re
import sys
from pathlib import Path

import pytest
import typer.main

from perdure.app import load_app
from perdure.starters.cli import app as cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")]
)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_readmes_agent_is_an_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger who saves the README's agent has a module that loads, with the tools it shows."""
    code, graph = blocks(ROOT / "README.md", "python")
    (tmp_path / "my_orders.py").write_text(code, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    app = load_app("my_orders:app")
    assert set(app.tools) == {"price_of", "charge_card", "refund_card"}
    assert [tool.name for tool in app.graph("orders").tools] == ["price_of", "charge_card"]
    (tmp_path / "my_articles.py").write_text(f"{graph}\nfrom perdure import App\napp = App(agents=[g])\n", "utf-8")
    assert list(load_app("my_articles:app").graph("publish").nodes) == ["writer/model", "review"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    """Every `perdure COMMAND` that a page names is a command of the CLI."""
    known = set(typer.main.get_group(cli).commands)
    named = set(re.findall(r"(?:^|`|run )perdure ([a-z]+)", page.read_text("utf-8"), re.MULTILINE))
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture of a page is a file of the project."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
