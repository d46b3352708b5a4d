"""Schema versions: what older code stored becomes what the code has now, as data, and only once.

Long: one claim a way in which a schema changes.
"""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import Ephemeral, Message, Sensitive, State, append, merge, upcast
from perdure.canonical import canonical
from perdure.checkpoint import Ref
from perdure.checkpointer import Change, Checkpointer, Position
from perdure.delta import Delta, Values, apply, fold
from perdure.errors import DefinitionError, InvalidInput, SchemaTooNew, SchemaTooOld, UpcastFailed
from perdure.security.keyring import Keyring, new_key
from perdure.state import channels
from perdure.states.schema import Opened, open_position
from perdure.states.versions import upcasters
from perdure.stores.memory import MemoryStore
from tests.properties import texts, thorough, values, words

keys = Keyring.parse(new_key())


class First(State):
    """As it was in the beginning."""

    name: str = ""
    price: str = "0"
    lines: Annotated[list[str], append] = []
    facts: Annotated[dict[str, Any], merge] = {}
    scrap: Any = None


def split(values: dict[str, Any]) -> dict[str, Any]:
    """From version 1 to 2."""
    if "name" in values:
        values["given"], _, values["family"] = values.pop("name").partition(" ")
    if "price" in values:
        values["price"] = float(values["price"])
    return values


class Second(State):
    """The name in two parts, the price a number, and sealed lines."""

    version: ClassVar[int] = 2

    given: str = ""
    family: Annotated[str, Sensitive] = ""
    price: float = 0.0
    lines: Annotated[list[str], append, Sensitive] = []
    facts: Annotated[dict[str, Any], merge] = {}
    scrap: Any = None

    _split = upcast(1)(split)


class Third(State):
    """Lines are objects, facts are sealed, and the scrap is gone."""

    version: ClassVar[int] = 3

    given: str = ""
    family: Annotated[str, Sensitive] = ""
    price: float = 0.0
    lines: Annotated[list[dict[str, str]], append, Sensitive] = []
    facts: Annotated[dict[str, Any], merge, Sensitive] = {}
    greeting: str = ""

    _split = upcast(1)(split)

    @upcast(2)
    @staticmethod
    def _objects(values: dict[str, Any]) -> dict[str, Any]:
        values.pop("scrap", None)
        if "lines" in values:
            values["lines"] = [{"text": line} for line in values["lines"]]
        if "given" in values:
            values["greeting"] = f"Dear {values['given']}"
        return values


def at(stored: Values, version: int, step: int = 0) -> Position:
    """A position as a checkpointer would give it."""
    return Position(
        thread_id="t", ref=Ref(id=f"c{step}", step=step, digest=f"digest {step}"), parent_id=None,
        schema_version=version, values=json.loads(canonical(stored)),
    )  # fmt: skip


def opened(state: type[State], stored: Values, version: int) -> Opened:
    return open_position(state, at(stored, version), keys)


# ── the law ──────────────────────────────────────────────────────────────────────────────────────────────────────

said = st.lists(st.builds(lambda text: {"role": "user", "content": text}, texts), max_size=2)
prices = st.integers(0, 999).map(str)
objects = st.dictionaries(words, values, max_size=3)
first_updates = st.fixed_dictionaries(
    {},
    optional={
        "name": texts, "price": prices, "lines": st.lists(texts, max_size=2), "facts": objects, "scrap": values,
        "messages": said,
    },
)  # fmt: skip
third_updates = st.fixed_dictionaries(
    {},
    optional={
        "given": texts, "family": texts, "price": st.integers(0, 99).map(float), "facts": objects, "messages": said,
        "lines": st.lists(st.dictionaries(words, texts, max_size=2), max_size=2),
    },
)  # fmt: skip


def written(state: type[State], history: list[dict[str, Any]]) -> tuple[Values, list[Delta]]:
    """What a thread of this class has stored after these steps."""
    stored: Values = {}
    deltas: list[Delta] = []
    for number, update in enumerate(history):
        position = at(stored, state.version, number) if number else None
        deltas.append(open_position(state, position, keys).merge({"node": update}, step=number))
        stored = apply(stored, deltas[-1])
    return stored, deltas


@thorough
@given(st.lists(first_updates, min_size=1, max_size=4), third_updates)
def test_upcasting_commutes_with_loading(history: list[dict[str, Any]], update: dict[str, Any]) -> None:
    """For any history: upcasting what is loaded is loading what a checkpoint wrote of the upcast.

    In one stride or by way of the version in between; alone or together with a step's update.
    """
    stored, deltas = written(First, history)
    before = canonical(stored)
    now = opened(Third, stored, 1)
    upcast_delta = json.loads(canonical(now.merge({}, step=9)))
    loaded = fold({}, [*deltas, upcast_delta])
    then = opened(Third, loaded, 3)
    assert canonical(then.values) == canonical(now.values)
    assert then.merge({}, step=10) == {}
    assert canonical(stored) == before

    halfway = apply(stored, opened(Second, stored, 1).merge({}, step=9))
    assert canonical(opened(Third, halfway, 2).values) == canonical(now.values)

    at_once, after = now.after({"node": update}, step=10)
    in_two_steps = then.after({"node": update}, step=10)[1]
    assert canonical(after.values) == canonical(in_two_steps.values)
    assert canonical(opened(Third, apply(stored, at_once), 3).values) == canonical(after.values)
    assert after.merge({}, step=11) == {}


async def test_a_thread_goes_on_under_newer_code() -> None:
    """Parked under version 1, taken up under version 3: a cold load reads the upcast, which is data by then."""
    store = MemoryStore()
    checkpointer = Checkpointer(store)
    history: list[Any] = [(First, {"name": "Ada Lovelace", "lines": ["a"]}), (First, {"price": "3"})]
    head: Position | None = None
    for number, (state, update) in enumerate([*history, (Third, {"lines": [{"text": "b"}]})]):
        now = open_position(state, head, keys)
        change = Change(
            thread_id="t", checkpoint_id=f"c{number}", source="step" if head else "input", turn=1,
            schema_version=now.schema_version, delta=now.merge({"node": update}, step=number),
        )  # fmt: skip
        head = await checkpointer.commit(head, change, agent="desk")
    cold = await Checkpointer(store).load("t", "c2")
    row = await store.thread("t")
    assert row is not None
    assert (cold.schema_version, row.schema_version) == (3, 3)
    assert open_position(Third, cold, keys).state() == Third(
        given="Ada", family="Lovelace", price=3.0, greeting="Dear Ada", lines=[{"text": "a"}, {"text": "b"}]
    )
    assert "Lovelace" not in str(cold.values)
    old = await Checkpointer(store).load("t", "c1")  # from here a fork or a rewind would start
    assert old.schema_version == 1
    assert open_position(Third, old, keys).values["given"] == "Ada"


def test_only_what_changed_is_written() -> None:
    """The upcast as data: changed channels are set, vanished ones unset; the rest stays as it was stored."""
    stored = {"name": "Ada Lovelace", "scrap": 1, "price": 1.0, "messages": [{"id": "1", "role": "user"}]}
    delta = opened(Third, stored, 1).merge({"node": {"messages": [Message(role="user", content="x")]}}, step=4)
    assert {name: operation["op"] for name, operation in delta.items()} == {
        "name": "unset", "scrap": "unset", "given": "set", "family": "set", "greeting": "set", "messages": "messages",
    }  # fmt: skip
    assert delta["messages"]["put"] == [{"id": "4.0", "role": "user", "content": "x"}]


def test_a_new_thread_begins_with_the_present_version() -> None:
    """No upcaster sees a state that this code began."""
    begun = open_position(Third, None, keys)
    assert (begun.schema_version, begun.values, begun.merge({}, step=0)) == (3, {}, {})
    assert begun.state() == Third()


def test_upcasters_get_copies() -> None:
    """What an upcaster does to its values in place happens to nobody else, though states share their items."""

    class Hasty(State):
        version: ClassVar[int] = 2
        facts: dict[str, Any] = {}

        @upcast(1)
        @staticmethod
        def _spoil(values: dict[str, Any]) -> dict[str, Any]:
            values["facts"]["list"].append(2)
            return values

    position = at({"facts": {"list": [1]}}, 1)
    before = deepcopy(position.values)
    for _ in range(2):
        assert open_position(Hasty, position, None).values == {"facts": {"list": [1, 2]}}
    assert position.values == before


def test_messages_that_an_upcaster_makes_get_ids() -> None:
    """The same ones each time, so that two attempts of one commit agree."""

    class Talkative(State):
        version: ClassVar[int] = 2

        @upcast(1)
        @staticmethod
        def _greet(values: dict[str, Any]) -> dict[str, Any]:
            return {"messages": [{"role": "system", "content": "hello"}, *values.get("messages", [])]}

    stored = {"messages": [{"id": "1.0", "role": "user"}]}
    ids = [[m["id"] for m in opened(Talkative, stored, 1).values["messages"]] for _ in range(2)]
    assert ids == [["v2.0", "1.0"]] * 2


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Fussy(State):
    """Knows versions 2 to 4."""

    version: ClassVar[int] = 4
    oldest: ClassVar[int] = 2
    count: int = 0

    @upcast(2)
    @staticmethod
    def _second(values: dict[str, Any]) -> Any:
        match values.get("case"):
            case "raises":
                raise KeyError("colour")
            case "list":
                return [values]
            case "set":
                return {"count": {1}}
            case "stranger":
                return {"nowhere": 1}
            case "misfit":
                return {"count": "many"}
        return {}

    @upcast(3)
    @staticmethod
    def _third(values: dict[str, Any]) -> dict[str, Any]:
        return values


@pytest.mark.parametrize(
    ("case", "parts"),
    [
        ("raises", ["Fussy._second, from version 2 to 3, raised KeyError: 'colour'"]),
        ("list", ["Fussy._second", "returned this list, not values by channel"]),
        ("set", ["Fussy._second", "returned what is no JSON", "set"]),
        ("stranger", ["after the upcaster Fussy._third there is a channel 'nowhere', which Fussy doesn't have"]),
        ("misfit", ["after the upcaster Fussy._third: Channel Fussy.count takes int, not this str", "valid integer"]),
    ],
)
def test_a_wrong_upcaster_is_named(case: str, parts: list[str]) -> None:
    """So are the checkpoint and the reason."""
    with pytest.raises(UpcastFailed) as failed:
        opened(Fussy, {"case": case}, 2)
    said = str(failed.value)
    assert [part for part in ["Checkpoint c0 of thread t", *parts] if part not in said] == [], said


def test_a_newer_state_is_refused() -> None:
    """The error names the checkpoint, both versions and what to do."""
    with pytest.raises(SchemaTooNew, match=r"Checkpoint c0 of thread t .* version 5 of Fussy; .* version 4\. Deploy"):
        opened(Fussy, {}, 5)


def test_an_older_state_than_the_upcasters_reach_is_refused() -> None:
    """The error names the checkpoint, its version and the oldest that is known."""
    with pytest.raises(SchemaTooOld, match=r"Checkpoint c0 of thread t .* version 1 of Fussy; .* begin at 2\. Run"):
        opened(Fussy, {}, 1)
    assert opened(Fussy, {"case": ""}, 2).values == {}


# ── definitions ──────────────────────────────────────────────────────────────────────────────────────────────────


def same(values: dict[str, Any]) -> dict[str, Any]:
    return values


def state_with(version: Any, *froms: int, bases: tuple[type[State], ...] = (State,), **more: Any) -> type[State]:
    """A state class ``Odd`` of a version, with upcasters from these."""
    body = {f"_from_{number}_{place}": upcast(number)(same) for place, number in enumerate(froms)}
    kinds = dict.fromkeys(("version", "oldest"), ClassVar[int])
    return type("Odd", bases, {"__annotations__": kinds, "__module__": __name__, "version": version, **more, **body})


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (state_with(2), "Odd has version 2 and no upcaster from 1 to 2"),
        (state_with(4, 1, 3), "no upcaster from 2 to 3"),
        (state_with(4, 1, 2), "no upcaster from 3 to 4"),
        (state_with(2, 1, 1), "two upcasters from version 1: same and same"),
        (state_with(2, 1, 2), "Odd._from_2_1 leads from version 2 to 3; the versions are 1 to 2"),
        (state_with(1, 1), "Odd._from_1_0 leads from version 1 to 2; the versions are 1 to 1"),
        (state_with(3, 1, 2, oldest=2), "Odd._from_1_0 leads from version 1 to 2; the versions are 2 to 3"),
        (state_with(2, oldest=3), "Odd.oldest is 3, and its version is 2"),
        (state_with(0), "Odd.version must be a number from 1"),
        (state_with("2", 1), "Odd.version must be a number from 1"),
        (state_with(True), "Odd.version must be a number from 1"),
        (state_with(2, 1, oldest=0), "Odd.oldest must be a number from 1"),
        (state_with(2, bases=(Third,)), "Odd.version is 2, and that of its base Third is 3"),
        (state_with(4, bases=(Third,)), "no upcaster from 3 to 4"),
        (state_with(4, 2, 3, bases=(Third,)), "two upcasters from version 2: .*Third._objects and same"),
    ],
)
def test_a_broken_chain_is_found_when_the_app_is_loaded(state: type[State], why: str) -> None:
    """An agent whose state lacks an upcaster, or has one too many, can't be defined."""
    from perdure import Agent

    with pytest.raises(DefinitionError, match=why):
        Agent(name="desk", model="m", state=state)


def test_the_version_is_no_channel() -> None:
    """Without ClassVar it would be one; pydantic warns, and the definition is refused."""
    with pytest.warns(UserWarning, match="shadows an attribute"):

        class Versioned(State):
            version: int = 2  # type: ignore[misc]

    with pytest.raises(DefinitionError, match=r"Versioned\.version must be a number.*ClassVar"):
        channels(Versioned)


def test_a_subclass_counts_on_from_its_base() -> None:
    """It has the upcasters of its base, may replace one by its name, and may reach less far back."""

    class Fourth(Third):
        version = 4

        @upcast(2)
        @staticmethod
        def _objects(values: dict[str, Any]) -> dict[str, Any]:
            return {"greeting": "replaced"}

        @staticmethod
        @upcast(3)
        def _shout(values: dict[str, Any]) -> dict[str, Any]:
            return {"greeting": values["greeting"] + "!"}

    class Recent(Fourth):
        oldest = 3

    assert [step.version for step in upcasters(Third)] == [1, 2]
    assert [step.version for step in upcasters(Fourth)] == [1, 2, 3]
    assert opened(Fourth, {"given": "Ada"}, 2).values == {"greeting": "replaced!"}
    assert [step.version for step in upcasters(Recent)] == [3]
    with pytest.raises(SchemaTooOld):
        opened(Recent, {}, 2)


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0])
def test_an_upcaster_starts_from_a_version(version: Any) -> None:
    """Anything else is refused where it is written."""
    with pytest.raises(DefinitionError, match="versions are numbers from 1"):
        upcast(version)


def test_an_upcaster_is_a_plain_function() -> None:
    """A state is opened in one go; nothing can be awaited there."""

    async def later(values: dict[str, Any]) -> dict[str, Any]:
        return values

    for function in (later, 3):
        with pytest.raises(DefinitionError, match="takes a plain function"):
            upcast(1)(function)  # type: ignore[arg-type]


# ── Ephemeral ────────────────────────────────────────────────────────────────────────────────────────────────────


class Passing(State):
    """With a channel that stays where it is written."""

    kept: str = ""
    draft: Annotated[str, Ephemeral] = "nothing yet"


def test_what_is_ephemeral_is_not_recorded() -> None:
    """It is checked like everything that a node writes, and then dropped; everybody reads the default."""
    now = open_position(Passing, None, None)
    record = now.recorded({"kept": "a", "draft": "b"})
    assert record == {"kept": "a"}
    delta, after = now.after({"node": record}, step=0)
    assert delta == {"kept": {"op": "set", "value": "a"}}
    assert after.state() == Passing(kept="a", draft="nothing yet")
    with pytest.raises(InvalidInput, match=r"Passing\.draft takes str"):
        now.recorded({"draft": 1})


def test_what_is_ephemeral_can_not_be_given() -> None:
    """An input or an update that names it is refused: it would be lost without a word."""
    now = open_position(Passing, None, None)
    assert now.given({"The input": {"kept": "a"}}) == {"The input": {"kept": "a"}}
    for refuse in (now.given, lambda updates: now.merge(updates, step=0)):
        with pytest.raises(InvalidInput, match=r"The input writes to Passing\.draft, which is Ephemeral"):
            refuse({"The input": {"kept": "a", "draft": "b"}})


def test_what_becomes_ephemeral_goes() -> None:
    """What was stored while the channel was kept is not read any more, and the next delta takes it away."""
    now = opened(Passing, {"kept": "a", "draft": "old"}, 1)
    assert now.state() == Passing(kept="a")
    delta, after = now.after({}, step=1)
    assert delta == {"draft": {"op": "unset"}}
    assert after.merge({}, step=2) == {}


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_about_state_tells_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    """Every state in docs/state.md can be defined, and its examples run; the page's prints are as it says."""
    page = Path(__file__).resolve().parent.parent / "docs" / "state.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        scope: dict[str, Any] = {"__name__": __name__}
        exec(compile(block, str(page), "exec"), scope)
        defined = [v for v in scope.values() if isinstance(v, type) and issubclass(v, State) and v is not State]
        assert all(channels(state) for state in defined)
        said = "".join(re.findall(r"^print\(.*\)\s+# (.*\n)", block, re.MULTILINE))
        assert capsys.readouterr().out == said
