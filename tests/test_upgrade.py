"""`db upgrade`: a store's states are led to the version of the code, in bulk, and nothing else changes."""

from typing import Annotated, Any, ClassVar

import pytest

from perdure import Agent, App, Sensitive, State, append, upcast
from perdure.canonical import Json
from perdure.care.upgrade import Upgraded, upgrade
from perdure.care.verify import verify
from perdure.checkpoint import Frontier
from perdure.checkpointer import Checkpointer
from perdure.delta import Delta
from perdure.errors import AgentNotFound, KeyMissing, StoreUnreachable
from perdure.lease import Lease
from perdure.security.keyring import Keyring, new_key
from perdure.states.schema import open_position
from perdure.stores import Store
from perdure.stores.memory import MemoryStore
from tests.retelling import to
from tests.threads import History


class Order(State):
    """The state as the code has it now; it began as ``{"name": "Ada Byron", "note": "…"}``."""

    version: ClassVar[int] = 3
    first: str = ""
    last: str = ""
    notes: Annotated[list[str], append] = []

    @upcast(1)
    @staticmethod
    def _split(values: dict[str, Json]) -> dict[str, Json]:
        first, _, last = values.pop("name", "").partition(" ")
        return {**values, "first": first, "last": last}

    @upcast(2)
    @staticmethod
    def _list(values: dict[str, Json]) -> dict[str, Json]:
        note = values.pop("note", "")
        if note == "broken":
            raise ValueError("nobody can read that")
        return {**values, "notes": note if note == "unfit" else [note]}


class Patient(State):
    """A state with something sensitive in it."""

    version: ClassVar[int] = 2
    name: Annotated[str, Sensitive] = ""

    @upcast(1)
    @staticmethod
    def _shout(values: dict[str, Json]) -> dict[str, Json]:
        return {**values, "name": values.get("name", "").upper()}


ORDERS = Agent(name="orders", model="m", instructions="…", state=Order)
APP = App(agents=[ORDERS, Agent(name="ward", model="m", instructions="…", state=Patient)])


async def thread(store: Store, name: str, *, version: int = 1, note: str = "hello", **more: Any) -> History:
    """A thread of the agent, as code of that version left it."""
    history = History(store, name)
    named: dict[str, str] = {"name": "Ada Byron"} if version == 1 else {"first": "Ada", "last": "Byron"}
    delta: Delta = {channel: {"op": "set", "value": value} for channel, value in named.items()}
    await history.commit(delta, schema_version=version, agent="orders")
    change: Delta = {
        "note": {"op": "set", "value": note},
        "messages": {"op": "messages", "put": [{"id": "m", "role": "user"}]},
    }
    await history.commit(change, schema_version=version, **more)
    return history


async def loaded(store: Store, thread_id: str) -> dict[str, Any]:
    """The stored state at the head, as it is without any code."""
    row = await store.thread(thread_id)
    assert row is not None
    return (await Checkpointer(store).load(thread_id, row.head_id)).values


@pytest.fixture
def store() -> Store:
    """A store in memory."""
    return MemoryStore()


async def test_a_store_is_upgraded(any_store: Store) -> None:
    """Each thread at rest gets one checkpoint with the upcast as data; then it is up to date."""
    for name, version in (("a", 1), ("b", 2), ("c", 1)):
        await thread(any_store, name, version=version, turn=4)
    before = await any_store.thread("a")
    done = await upgrade(any_store, APP)
    assert (done.upgraded, done.current, done.left, done.failed, done.dry_run) == (3, 0, (), (), False)
    assert await loaded(any_store, "a") == {
        "first": "Ada", "last": "Byron", "notes": ["hello"], "messages": [{"id": "m", "role": "user"}],
    }  # fmt: skip
    row = await any_store.thread("a")
    assert row is not None
    assert before is not None
    head = await any_store.checkpoint("a", row.head_id)
    assert head is not None
    assert (row.schema_version, row.turn, row.branch) == (3, 4, 0)
    assert (head.source, head.nodes, head.turn, head.schema_version, head.next) == (
        "update", ("upgrade",), 4, 3, Frontier(),
    )  # fmt: skip
    assert (head.parent_id, head.facts) == (before.head_id, {"from_version": 1})
    assert head.delta.keys() == {"name", "first", "last", "note", "notes"}
    assert (await verify(any_store)).problem is None
    assert await upgrade(any_store, APP) == Upgraded(store=any_store.url, current=3)


async def test_what_is_before_keeps_its_version(store: Store) -> None:
    """An earlier checkpoint still opens by its upcasters, to the same state as its upgrade."""
    history = await thread(store, "a")
    await upgrade(store, APP)
    assert history.head is not None
    opened = open_position(Order, await Checkpointer(store).load("a", history.head.ref.id), None)
    row = await store.thread("a")
    assert row is not None
    after = open_position(Order, await Checkpointer(store).load("a", row.head_id), None)
    assert opened.values == after.values
    assert (await store.checkpoint("a", history.head.ref.id)).schema_version == 1  # type: ignore[union-attr]


async def test_a_dry_run(any_store: Store) -> None:
    """It runs the upcasters and validates, says what would happen, and writes nothing."""
    await thread(any_store, "a")
    await thread(any_store, "b", note="broken")
    await thread(any_store, "c", note="unfit")
    before = [await any_store.thread(name) for name in "abc"]
    done = await upgrade(any_store, APP, dry_run=True)
    assert (done.upgraded, [left.thread_id for left in done.failed], done.dry_run) == (1, ["b", "c"], True)
    assert [await any_store.thread(name) for name in "abc"] == before
    real = await upgrade(any_store, APP)
    assert real == done.model_copy(update={"dry_run": False})
    assert (await upgrade(any_store, APP)).current == 1


async def test_what_can_not_be_upcast(store: Store) -> None:
    """An upcaster that raises, a result that doesn't fit, and a version from the future are told; the rest goes on."""
    await thread(store, "a", note="broken")
    await thread(store, "b", note="unfit")
    await thread(store, "c", version=4)
    await thread(store, "d")
    done = await upgrade(store, APP)
    assert (done.upgraded, [left.thread_id for left in done.failed]) == (1, ["a", "b", "c"])
    raised, unfit, new = (left.why for left in done.failed)
    assert "_list" in raised
    assert "nobody can read that" in raised
    assert "notes" in unfit
    assert "version 4" in new
    assert [left.version for left in done.failed] == [1, 1, 4]


async def test_the_middle_of_a_turn_is_left_alone(store: Store) -> None:
    """Its next step upcasts it; and one whose upcast would fail is told all the same."""
    await thread(store, "a", next=to("model"))
    await thread(store, "b", next=to("model"), note="broken")
    done = await upgrade(store, APP)
    assert (done.upgraded, [left.thread_id for left in done.left]) == (0, ["a"])
    assert "model" in done.left[0].why
    assert [left.thread_id for left in done.failed] == ["b"]


async def test_a_lease_is_respected(store: Store) -> None:
    """Whoever has the exclusive right to write keeps it."""
    await thread(store, "a")
    lease = Lease(holder="ann", token="t", until="2999-01-01T00:00:00.000+00:00")
    await store.set_lease("a", lease.model_dump_json())
    done = await upgrade(store, APP)
    assert [left.why for left in done.left] == ["ann holds its lease until 2999-01-01T00:00:00.000+00:00."]
    await store.set_lease("a", lease.model_copy(update={"until": "2020-01-01T00:00:00.000+00:00"}).model_dump_json())
    assert (await upgrade(store, APP)).upgraded == 1


async def test_a_thread_that_goes_on_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is committed first wins; nothing of it is lost."""
    history, original = await thread(store, "a"), store.commit

    async def meanwhile(step: Any) -> bool:
        monkeypatch.setattr(store, "commit", original)
        await history.commit({"note": {"op": "set", "value": "newer"}})
        return await original(step)

    monkeypatch.setattr(store, "commit", meanwhile)
    done = await upgrade(store, APP)
    assert ([left.thread_id for left in done.left], done.upgraded) == (["a"], 0)
    assert (await loaded(store, "a"))["note"] == "newer"


async def test_it_can_be_taken_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done before the store went away is done; the next run does the rest, and progress is told."""
    for name in "abcde":
        await thread(store, name)
    told: list[tuple[int, int]] = []
    original = store.commit

    async def fails(step: Any) -> bool:
        if step.checkpoint.thread_id == "c":
            raise StoreUnreachable("gone")
        return await original(step)

    monkeypatch.setattr(store, "commit", fails)
    with pytest.raises(StoreUnreachable):
        await upgrade(store, APP, progress=lambda done, total: told.append((done, total)))
    monkeypatch.setattr(store, "commit", original)
    done = await upgrade(store, APP, progress=lambda done, total: told.append((done, total)))
    assert (done.current, done.upgraded) == (2, 3)
    assert told == [(1, 5), (2, 5), (1, 3), (2, 3), (3, 3)]


async def test_one_agent(store: Store) -> None:
    """Of the threads of other agents, those of other apps are counted."""
    await thread(store, "a")
    other = History(store, "b")
    await other.commit({"name": {"op": "set", "value": "x"}}, agent="ward")
    stranger = History(store, "c")
    await stranger.commit({"name": {"op": "set", "value": "x"}}, agent="elsewhere")
    done = await upgrade(store, APP, agent="orders")
    assert (done.upgraded, done.others) == (1, {"elsewhere": 1})
    row = await store.thread("b")
    assert row is not None
    assert row.schema_version == 1
    with pytest.raises(AgentNotFound):
        await upgrade(store, APP, agent="nobody")


async def test_what_is_sensitive_stays_sealed(store: Store) -> None:
    """An upgrade needs the keys, and seals what it writes."""
    keyring = Keyring.parse(new_key())
    ward = History(store, "a")
    sealed = open_position(Patient, None, keyring).merge({"x": {"name": "ada"}}, step=0)
    await ward.commit(sealed, agent="ward")
    without = await upgrade(store, APP)
    assert without.upgraded == 0
    assert len(without.failed) == 1
    assert "key" in without.failed[0].why
    assert (await upgrade(store, APP, keyring=keyring)).upgraded == 1
    values = await loaded(store, "a")
    assert "$sealed" in values["name"]
    row = await store.thread("a")
    assert row is not None
    head = await Checkpointer(store).load("a", row.head_id)
    assert open_position(Patient, head, keyring).values["name"] == "ADA"
    with pytest.raises(KeyMissing):
        open_position(Patient, head, None)
