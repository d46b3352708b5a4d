"""docs/security.md tells the truth: its Python runs, its commands print what it shows, its words are the code's."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from perdure.audit import NOTIFIED
from perdure.examples.webhook.receiver import line
from perdure.security.webhook import DELIVERY, EVENT, SIGNATURE
from tests.programs import plain_environment
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "security.md"
TEXT = PAGE.read_text("utf-8")


def test_its_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Each block by itself, and what it prints is what the page says."""
    for block in blocks(PAGE, "python"):
        exec(compile(block, str(PAGE), "exec"), {"__name__": __name__})
        assert capsys.readouterr().out == "".join(re.findall(r"^print\(.*\)  # (.*\n)", block, re.MULTILINE))


async def test_its_commands_print_what_it_shows(tmp_path: Path) -> None:
    """Typed one after the other in one shell; only fingerprints differ, and which of them are the same doesn't."""
    story = "".join(blocks(PAGE, "console"))
    commands = re.findall(r"^\$ (.*)$", story, re.MULTILINE)
    environment = plain_environment({"PERDURE_HOME": str(tmp_path)})
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    typed = "\n".join(f"echo '$ {command}'; {command} 2> said || cat said" for command in commands)
    shell = await asyncio.create_subprocess_exec("bash", "-c", typed, env=environment, cwd=tmp_path, stdout=PIPE)
    out, _ = await shell.communicate()
    assert len(commands) > 5
    assert by_number(out.decode()) == by_number(story)


def by_number(text: str) -> list[str]:
    """The lines, with fingerprints numbered as they first come; keys of one name are in no order."""
    prints = list(dict.fromkeys(re.findall(r"SHA256:\S+", text)))
    last = re.findall(r"SHA256:\S+", text)[-1]
    for name in prints:
        text = text.replace(name, "the later key" if name == last else "the first key")
    return sorted_pairs(text.splitlines())


def sorted_pairs(lines: list[str]) -> list[str]:
    """Lines, those that follow one another with keys of one name in order."""
    for at in range(len(lines) - 1):
        if all(each.startswith("ann  ") for each in lines[at : at + 2]):
            lines[at : at + 2] = sorted(lines[at : at + 2])
    return lines


def test_its_events_and_headers_are_the_codes() -> None:
    """All that is told, and nothing else; and the example has a sentence for each."""
    told = set(re.findall(r"`((?:request|effect)\.\w+)`", TEXT)) - {"request.void"}
    assert told == NOTIFIED
    assert all(f"\n{name}: " in TEXT for name in (SIGNATURE, EVENT, DELIVERY))
    body: dict[str, Any] = {"summary": "pay(…)", "request": "a1", "outcome": "expired"}
    for event in NOTIFIED:
        said = line({"event": event, "delivery": "d", "thread": "t1", "at": "now", "body": body})
        assert said.startswith(f"now {event} t1 pay(…)")
