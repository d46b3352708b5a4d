"""docs/approvals.md tells the truth: its policy does what it says, and its words are the code's."""

import inspect
import re
from datetime import timedelta
from typing import Any, get_args

import pytest

from perdure import App, Approval
from perdure.audit import AuditKind
from perdure.errors import DecisionRefused
from perdure.testing import Rule, Script, call, say
from tests.conftest import MakeWorld
from tests.matrix import CELLS, reasons
from tests.test_docs import ROOT, blocks
from tests.world import World, eventually

PAGE = ROOT / "docs" / "approvals.md"
TEXT = PAGE.read_text("utf-8")
SCRIPT = Script(
    rules=[
        Rule(when="coffee", replies=[call("pay", to="cafe", amount=7), say("{pay}")]),
        Rule(when="rent", replies=[call("pay", to="landlord", amount=800), say("{pay}")]),
    ]
)


@pytest.fixture
def app() -> App:
    """What the page defines."""
    (code,) = blocks(PAGE, "python")
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(code, str(PAGE), "exec"), names)
    made = names["app"]
    assert isinstance(made, App)
    return made


async def rent(world: World) -> tuple[str, str]:
    """A thread that waits for the approval of the rent, asked for by ann; the ids of thread and message."""
    thread, accepted = await world.client.start("desk", "Pay the rent.", thread=world.thread(), sender="ann")
    await world.opened(thread)
    return thread, accepted.message_id


async def test_its_policy_does_what_the_page_says(make_world: MakeWorld, app: App) -> None:
    """A coffee is paid; the rent needs two of finance without ann, who asked; after a day one yes is enough, and the
    board is asked too; after three days without one it has expired."""
    hour = timedelta(hours=1)
    async with make_world(app, SCRIPT) as world:
        thread, message = await world.begin("desk", "Pay the coffee.")
        assert (await world.ended(thread, message)).answer == "paid 7 to cafe, approved by "

        two, message = await rent(world)
        request = await world.client.request(two)
        with pytest.raises(DecisionRefused, match="asked for this call"):
            await world.client.decide(two, "approve", request, approver="ann")
        for who in ("bob", "cid"):
            await world.client.decide(two, "approve", request, approver=who)
        assert (await world.ended(two, message)).answer == "paid 800 to landlord, approved by bob and cid"

        one, message = await rent(world)
        await world.client.decide(one, "approve", await world.client.request(one), approver="bob")
        await world.forward(one, 22 * hour)
        await eventually(lambda: world.store.audit(one), lambda rows: rows[-1].entry.kind == "request.reminded")
        await world.forward(one, 2 * hour)
        assert (await world.ended(one, message)).answer == "paid 800 to landlord, approved by bob"

        none, message = await rent(world)
        await world.forward(none, 24 * hour)
        risen = await eventually(lambda: world.client.request(none), lambda request: request.level == 1)
        assert risen.asked.approvers == ("ann", "bob", "cid", "dan", "eve")
        await world.forward(none, 48 * hour)
        await world.ended(none, message)
        assert [closed.outcome for closed in (await world.client.approvals(none)).closed] == ["expired"]


def rows(title: str) -> list[str]:
    """The words in the first cells of the table under this head."""
    (body,) = re.findall(rf"^\| {re.escape(title)} \|.*\n\| ---.*\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    return [word for line in body.splitlines() for word in re.findall(r"`([\w.]+)`", line.split("|")[1])]


def test_its_words_are_the_codes() -> None:
    """It names every parameter of a policy, every code of a refusal in the order in which they are told, and every kind
    of line."""
    assert set(rows("`Approval(…)`")) == set(inspect.signature(Approval).parameters)
    told = (DecisionRefused.__doc__ or "").partition("``code``:")[2]
    words = set(re.findall(r"\w+", told.replace("(of duties)", ""))) - {"and", "where", "decisions", "are", "signed"}
    assert set(rows("code")) == words
    assert [code for code in rows("code") if code in reasons(CELLS[0])] == list(reasons(CELLS[0]))
    assert set(rows("line")) == {kind for kind in get_args(AuditKind) if kind.startswith(("request.", "decision."))}
