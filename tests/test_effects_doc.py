"""docs/effects.md tells the truth: its tools do what it says they do."""

from typing import Any

import pytest

from perdure import App
from perdure.testing import Reply, call, say
from tests.conftest import MakeWorld
from tests.crew import first_turn, told, turn
from tests.test_docs import ROOT, blocks


@pytest.fixture
def page() -> dict[str, Any]:
    """What the page defines."""
    (code,) = blocks(ROOT / "docs" / "effects.md", "python")
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(code, "docs/effects.md", "exec"), names)
    return names


def booked(card: str) -> list[Reply]:
    """A seat, a meal and a payment."""
    pay = call("pay", card=card, amount=7.0)
    return [call("book_seat", seat="1a"), call("order_meal", meal="soup"), pay, say("Booked.")]


async def test_its_example_is_taken_back_as_it_says(make_world: MakeWorld, page: dict[str, Any]) -> None:
    """The payment's answer is lost and found; a refused code takes back the booking of the turn before: first the
    payment, then the rest."""
    app, payments = page["app"], page["payments"]
    assert isinstance(app, App)
    said = told(book=booked("flaky"), ticket=[call("issue_ticket", code="void")])
    async with make_world(app, said) as world:
        thread, _ = await first_turn(world, "travel", "book")
        assert said.told()[-1] == ("tool", '{"paid":7.0}')
        ledger = {effect.tool: effect for effect in await world.client.effects(thread)}
        assert (ledger["pay"].status, ledger["pay"].attempts) == ("done", 3)
        assert {effect.saga for effect in ledger.values()} == {"booking"}
        result = await turn(world, thread, "ticket")
        assert result.residue.undone[0].startswith("pay(")
        assert len(result.residue.undone) == 3
        key = ledger["pay"].key
        assert payments == {key: {"paid": 7.0}, f"{key}-undo": {"paid": -7.0}}
        assert (await world.client.status(thread)).status == "failed"


async def test_its_tokens_are_good_for_one_ticket(make_world: MakeWorld, page: dict[str, Any]) -> None:
    """The second ticket with one code is refused, and the model reads why."""
    issue = [call("issue_ticket", code="c1"), say("Issued.")]
    said = told(first=issue, second=issue)
    async with make_world(page["app"], said) as world:
        thread, _ = await first_turn(world, "travel", "first")
        assert said.told()[-1] == ("tool", "ticket for c1")
        await turn(world, thread, "second")
        assert "needs a one-time token" in said.told()[-1][1]
