"""The demo: it tells its story, leaves nothing behind, and its verdict is wrong where the shop's books are."""

import asyncio
import io
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from starlette.requests import Request

from perdure.effects import Effect, undo_key
from perdure.errors import InvalidInput
from perdure.examples.orders import processes, verdict
from perdure.examples.orders.demo import Options, run
from perdure.examples.orders.ledger import Answer, Entry, Item, Kind, Wish
from perdure.examples.orders.shop import Shop
from perdure.examples.orders.verdict import Check
from perdure.testing import ModelServer, Script, say
from tests.programs import perdure
from tests.world import eventually

_LONG = 120.0  # seconds; the demo takes ten, on a machine that does nothing else


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_demo_tells_its_story(tmp_path: Path) -> None:
    """Offline whatever the environment names; it pauses, kills, goes on, takes back, and its verdict is right."""
    astray = {"OPENAI_API_KEY": "secret", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "TEMPORAL_ADDRESS": "nowhere:1"}
    async with (
        asyncio.timeout(_LONG),
        nothing_left(tmp_path) as environment,
        perdure("demo", "--fast", folder=tmp_path, environment=environment | astray) as demo,
    ):
        assert await demo.process.wait() == 0, demo.out
    story = [
        "perdure approve order-1 a1 --as finance --address 127.0.0.1:",
        "/namespaces/default/workflows/order-1",
        "approval a1: approved by finance",
        "SIGKILL",
        'order-1 | charge_card(card="tok_visa_1", amount=2500.0): done',
        "No courier goes to 1 Palace Road, Atlantis.",
        "order-2 | undone: charge_card",
        "order-2 | undone: reserve_stock",
        "calls     7",
        "saved     2",
        "charge 2500 (tok_visa_1): done once, though asked for again",
        "The books are right",
    ]
    assert in_order(demo.out, story) == story
    assert "WRONG" not in demo.out
    assert demo.err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """In the middle of the story, between two workers."""
    async with (
        nothing_left(tmp_path) as environment,
        perdure("demo", "--fast", folder=tmp_path, environment=environment) as demo,
    ):
        await demo.says("SIGKILL")
        assert await demo.ends(number) == 128 + number
    assert "Stopped; nothing is left running." in demo.out
    assert "Traceback" not in demo.out + demo.err


async def test_a_full_folder_is_refused(tmp_path: Path) -> None:
    """The demo never mixes its files with anybody's."""
    (tmp_path / "precious").touch()
    with pytest.raises(InvalidInput, match="is not empty"):
        await run(Options(home=tmp_path), console())
    assert names(tmp_path) == ["precious"]


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────────


class ForgetfulShop(Shop):
    """A shop that doesn't know a key again: each request is one more effect."""

    asked = 0

    def _grant(self, request: Request, wish: Wish) -> Answer:
        self.asked += 1
        return self.ledger.grant(wish, f"{request.headers['idempotency-key']}-{self.asked}")


async def test_a_double_charge_makes_the_verdict_wrong(tmp_path: Path) -> None:
    """The same story in a shop that charges twice: the exit code is 1, and the verdict names the charge."""
    out = console()
    assert await run(Options(home=tmp_path / "home", pause=0), out, open_shop=ForgetfulShop) == 1
    said = written(out)
    assert "charge 2500 (tok_visa_1): done once, though asked for again: done 2 times" in said
    assert "The books are WRONG." in said


async def test_a_worker_that_cannot_begin_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and with what the worker said last."""
    monkeypatch.setattr(processes, "APP", "perdure.examples.orders.desk:nothing")
    out = console()
    assert await run(Options(home=tmp_path / "home", pause=0), out) == 1
    assert "ended by itself with exit code 2" in written(out)
    assert "nothing" in written(out)


async def test_a_real_model_may_tell_another_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --real-model only the books are judged: a model that talks about the weather harms nobody."""
    async with ModelServer(Script(fallback=say("Lovely weather."))) as model:
        monkeypatch.setenv("OPENAI_BASE_URL", model.base_url)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        out = console()
        assert await run(Options(home=tmp_path / "home", pause=0, real_model=True), out) == 0
        assert len(model.log) == 2
    assert "Lovely weather." in written(out)


async def test_a_real_model_has_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address or a key nothing is guessed."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InvalidInput, match="No real model"):
        await run(Options(home=tmp_path / "home", real_model=True), console())


# ── the verdict ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_right_books_are_right() -> None:
    """The books that the story leaves."""
    assert wrong(verdict.check_story(books(), shelves())) == []
    assert wrong(verdict.check_books(books())) == []


def test_a_charge_done_twice_is_wrong() -> None:
    """Under another key, as of a caller who retries blindly."""
    again = books()[1].model_copy(update={"id": "charge-8", "key": "other"})
    found = wrong(verdict.check_story([*books(), again], shelves()))
    assert found == [
        "charge 2500 (tok_visa_1): done once, though asked for again: done 2 times",
        "the card has paid 2500.00 in the end: 5000.00",
    ]


def test_a_charge_never_asked_for_again_is_wrong() -> None:
    """Then the worker was not killed in its middle, and the demo has shown nothing."""
    once = [entry.model_copy(update={"attempts": 1}) for entry in books()]
    assert wrong(verdict.check_story(once, shelves())) == [
        "charge 2500 (tok_visa_1): done once, though asked for again: it was asked for once"
    ]


def test_a_missing_refund_is_wrong() -> None:
    """The second order's money was not given back."""
    kept = [entry for entry in books() if entry.kind != "refund"]
    kept[4] = kept[4].model_copy(update={"status": "done"})
    assert wrong(verdict.check_story(kept, shelves())) == [
        "charge 89 (tok_visa_1): done once, undone once: it is done",
        "refund 89 (tok_visa_1): done once: done 0 times",
        "the card has paid 2500.00 in the end: 2589.00",
    ]


def test_an_effect_nobody_ordered_is_wrong() -> None:
    """Whatever else is in the books has to be explained."""
    strange = books()[0].model_copy(update={"id": "reservation-8", "key": "other", "subject": "gold bar"})
    assert wrong(verdict.check_story([*books(), strange], shelves())) == [
        "no other effect is in the books: reservation-8"
    ]


def test_an_effect_without_a_key_and_one_undone_twice_are_wrong() -> None:
    """In any story."""
    entries = books()
    entries[2] = entries[2].model_copy(update={"key": None})
    entries.append(entries[5].model_copy(update={"id": "refund-8", "key": "other"}))
    assert wrong(verdict.check_books(entries)) == [
        "every effect has its own key: booking-3 has none",
        "nothing was undone twice: charge-5",
    ]


def test_stock_that_is_gone_is_wrong() -> None:
    """The monitor was reserved and released: it has to be on the shelf again."""
    found = wrong(verdict.check_story(books(), shelves(monitors=999)))
    assert found == ["998 laptops and 1000 monitors are on the shelves: monitor: 999"]


def test_compensation_in_the_order_of_doing_is_wrong() -> None:
    """The last effect has to be undone first."""
    right, effects = books(), own_ledger()
    swapped = [*right[:5], right[6], right[5]]
    assert verdict.check_order("order-2", right, effects[3:]).ok
    assert verdict.check_order("order-2", swapped, effects[3:]).found == "it was reservation-4, charge-5"


def test_ledgers_that_differ_are_wrong() -> None:
    """An effect that only one of both knows, or knows otherwise."""
    entries, effects = books(), own_ledger()
    assert verdict.check_agreement(entries, effects).ok
    assert verdict.check_agreement(entries, effects[1:]).found == "reservation-1 is unknown here"
    forgotten = [*effects[:4], effects[4].model_copy(update={"status": "done"})]
    assert verdict.check_agreement(entries, forgotten).found == "charge_card is done here and undone there"
    assert "is done here and nothing there" in verdict.check_agreement(entries[1:], effects).found


def test_an_answer_paid_for_twice_is_wrong() -> None:
    """Each logical call is one paid answer."""
    assert verdict.check_model({"a": 1, "b": 1}, 2).ok
    assert verdict.check_model({"a": 2, "b": 1}, 2).found == "3 answers were paid for, 1 of them again"


# ── helpers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def books() -> list[Entry]:
    """What the story leaves in the shop."""
    return [
        entry("reservation-1", "reserve", "laptop", 2, "k0"),
        entry("charge-2", "charge", "tok_visa_1", 2500, "k1", attempts=2),
        entry("booking-3", "book", "12 Harbour Street", 1, "k2"),
        entry("reservation-4", "reserve", "monitor", 1, "k3", undone=True),
        entry("charge-5", "charge", "tok_visa_1", 89, "k4", undone=True),
        entry("refund-6", "refund", "tok_visa_1", 89, undo_key("k4"), undoes="charge-5"),
        entry("release-7", "release", "monitor", 1, undo_key("k3"), undoes="reservation-4"),
    ]


def entry(
    name: str, kind: Kind, subject: str, amount: float, key: str, *, attempts: int = 1, undone: bool = False,
    undoes: str | None = None,
) -> Entry:  # fmt: skip
    """One entry of the books."""
    return Entry(
        id=name, kind=kind, key=key, subject=subject, amount=amount, attempts=attempts, undoes=undoes,
        status="undone" if undone else "done", at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def shelves(*, monitors: int = 1000) -> list[Item]:
    """What the story leaves on the shelves."""
    return [Item(sku="laptop", price=1250, available=998), Item(sku="monitor", price=89, available=monitors)]


def own_ledger() -> list[Effect]:
    """Perdure's own ledger of the story: three effects of the first order, two of the second."""
    tools = ["reserve_stock", "charge_card", "book_courier", "reserve_stock", "charge_card"]
    return [
        Effect(
            key=f"k{at}", tool=tool, effect="compensable", turn=1, step=at, index=0,
            status="done" if at < 3 else "undone",
        )
        for at, tool in enumerate(tools)
    ]  # fmt: skip


def wrong(checks: Iterable[Check]) -> list[str]:
    """The claims that are wrong, with what was found."""
    return [f"{check.claim}: {check.found}" for check in checks if not check.ok]


def in_order(text: str, parts: Sequence[str]) -> list[str]:
    """The parts that are in the text, each behind the one before."""
    found, at = [], 0
    for part in parts:
        where = text.find(part, at)
        if where >= 0:
            found.append(part)
            at = where + len(part)
    return found


def console() -> Console:
    """A console that keeps what it is told."""
    return Console(file=io.StringIO(), width=200)


def written(console: Console) -> str:
    """What a console was told."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@asynccontextmanager
async def nothing_left(folder: Path) -> AsyncIterator[dict[str, str]]:
    """An environment, with a folder for temporary files; at the end no process with it is left, and no such file."""
    temporary, mark = folder / "temporary", f"DEMO_TEST={uuid.uuid4().hex}"
    temporary.mkdir()
    name, _, value = mark.partition("=")
    yield {"TMPDIR": str(temporary), name: value}

    async def look() -> list[str]:
        return processes_with(mark)

    await eventually(look, lambda left: left == [])
    assert names(temporary) == []


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return [path.name for path in folder.iterdir()]


def processes_with(mark: str) -> list[str]:
    """The processes in whose environment the mark is."""
    if not Path("/proc/self/environ").exists():
        shown = subprocess.run(["ps", "axeww", "-o", "command"], capture_output=True, text=True, check=True)
        return [line for line in shown.stdout.splitlines() if mark in line]
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if mark.encode() in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile, or is somebody else's
        return b""
