"""docs/time-travel.md tells the truth: its commands, typed one after the other, print what it shows."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from perdure.app import App, load_app
from perdure.starters.client import Client
from perdure.testing import Rule, Script, call, say
from tests.cli import Cli
from tests.conftest import MakeWorld
from tests.test_docs import ROOT, blocks
from tests.warm import warm

PAGE = ROOT / "docs" / "time-travel.md"
script = Script(
    rules=[
        Rule(on_error="rejected by", replies=[say("Then not.")]),
        Rule(when="What now", replies=[say("Give me another card.")]),
        Rule(
            when="laptop",
            replies=[
                call("price_of", sku="laptop"), call("charge_card", card="42", amount=1250),
                say("Your laptop is on its way: 1,250 on card 42."),
            ],
        ),
        Rule(
            when="mouse",
            replies=[
                call("price_of", sku="mouse"), call("charge_card", card="42", amount=19),
                say("A mouse too: 19 on card 42."),
            ],
        ),
    ],
    fallback=say("Good day."),
)  # fmt: skip
_END = "-- that was it --"
_CHANGES = [  # from one time to the next: ids and their ends, keys, times, what tokens and bytes come to
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"…[0-9a-f]{8}\b", "…END"),
    (r"\b(ch-)?[0-9a-f]{32}\b", "KEY"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+\+00:00)?", "TIME"),
    (r"(?<= )\d+(?= +TIME)", "BYTES"),
    (r"(?<=messages \+1) +\d+ (?=.* BYTES)", " TOKENS "),
    (r" +", " "),
]


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    """The README's agent."""
    (tmp_path / "my_orders.py").write_text(blocks(ROOT / "README.md", "python")[0], "utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "my_orders", raising=False)
    return load_app("my_orders:app")


def constant(text: str) -> list[str]:
    """What is the same each time."""
    for pattern, name in _CHANGES:
        text = re.sub(pattern, name, text)
    return [line.strip() for line in text.splitlines()]


async def typed(commands: list[str], environment: dict[str, str], folder: Path) -> list[str]:
    """What each command of one session at a shell prints: its output, and what went wrong."""
    lines = [f"{{ {command}; }} 2> said; grep '^perdure: ' said; echo '{_END}'" for command in commands]
    path = f"{warm().program(folder).parent}:{environment['PATH']}"
    shell = await asyncio.create_subprocess_exec(
        "bash", "-c", "\n".join(lines), env={**environment, "PATH": path}, cwd=folder, stdout=PIPE, stderr=STDOUT
    )
    out, _ = await shell.communicate()
    return out.decode().split(f"{_END}\n")[:-1]


async def test_its_commands_print_what_it_shows(make_world: MakeWorld, orders: App, tmp_path: Path) -> None:
    """Every command of the page in its order, but for what differs from one time to the next."""
    story = "".join(blocks(PAGE, "console"))
    commands = re.findall(r"^\$ (.*)$", story, re.MULTILINE)
    shown = re.split(r"^\$ .*\n", story, flags=re.MULTILINE)[1:]
    assert len(commands) == len(shown) > 15
    async with make_world(orders, script) as world:
        world.threads += ["order-1", "order-1b", "plan"]
        printed = await typed(commands, Cli(world).environment, tmp_path)
        for command, says, said in zip(commands, shown, printed, strict=True):
            assert constant(said) == constant(says), f"$ {command}\n{said}"


async def test_its_python_runs(make_world: MakeWorld, orders: App) -> None:
    """The function of the page does what it says, on a thread as the page has it."""
    (code,) = blocks(PAGE, "python")
    names: dict[str, object] = {"Client": Client}
    exec(code.replace("order-1", "order-2"), names)
    function = names["try_another_card"]
    assert callable(function)
    async with make_world(orders, script) as world:
        world.threads.append("order-2")
        _, first = await world.client.start("orders", "A mouse, please", thread="order-2")
        await world.ended("order-2", first.message_id)
        second = await world.client.send("order-2", "hello")
        await world.ended("order-2", second.message_id)
        assert "/notes" in await function(world.client)
        assert (await world.client.state("order-2"))["notes"][-1] == "after 1 charges"
        world.threads += [row.thread_id for row in await world.store.forks("order-2")]
