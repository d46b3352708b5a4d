"""What is sensitive: sealed wherever it is kept, opened for the agent's own code, shown to nobody else.

Long: one claim a place where a secret could be seen.
"""

import io
import json
import logging
from collections.abc import Callable
from typing import Annotated, Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, field_validator

from perdure import (
    Agent,
    App,
    Ephemeral,
    Message,
    Overwrite,
    Remove,
    Sensitive,
    State,
    ToolContext,
    add,
    append,
    merge,
    messages,
    overwrite,
    tool,
    union,
)
from perdure.canonical import canonical
from perdure.checkpoint import Ref
from perdure.checkpointer import Position
from perdure.delta import Delta, Values, apply, fold, growth, latest_message
from perdure.errors import DefinitionError, InvalidInput, KeyMissing, UpcastFailed
from perdure.logging import configure_logging
from perdure.security.keyring import Keyring, new_key
from perdure.security.sealing import SEALED, redact, unseal
from perdure.settings import Settings
from perdure.state import channels, materialise, needs_keys, reduce_updates, upcast
from perdure.states.schema import Opened, open_position
from perdure.stores.base import Receipt
from perdure.testing import Rule, Script, call, say, together
from perdure.view import StateView
from tests.conftest import MakeWorld
from tests.properties import thorough, values
from tests.test_state import Desk, Step, steps

keys = Keyring.parse(new_key())


def sealing(state: type[State]) -> type[State]:
    """The same state with every channel Sensitive."""
    hints = {
        name: Annotated[field.annotation, channels(state)[name].reducer, Sensitive]
        for name, field in state.model_fields.items()
    }
    body = {name: field.get_default() for name, field in state.model_fields.items()}
    return type(f"Sealed{state.__name__}", (State,), {"__annotations__": hints, "__module__": __name__, **body})


Vault = sealing(Desk)


def at(stored: Values, step: int = 0) -> Position:
    """A position as a checkpointer would give it."""
    return Position(
        thread_id="t", ref=Ref(id=f"c{step}", step=step, digest=f"digest {step}"), parent_id=None,
        values=json.loads(canonical(stored)),
    )  # fmt: skip


def opened(state: type[State], stored: Values, step: int = 0, keyring: Keyring | None = keys) -> Opened:
    return open_position(state, at(stored, step), keyring)


def as_recorded(now: Opened, step: Step) -> dict[str, Any]:
    """The updates of a step after they have been in the records of their calls."""
    return {f"node {i}": json.loads(canonical(now.recorded(each))) for i, each in enumerate(step)}


# ── the laws ─────────────────────────────────────────────────────────────────────────────────────────────────────


@thorough
@given(steps)
def test_sealing_changes_nothing_but_what_can_be_read(history: list[Step]) -> None:
    """For any history: opening what is stored of a sealed state is the state that nobody sealed.

    On the way: two attempts agree, folding is applying, the growth stays exact, and redacting needs no keys and
    commutes with applying.
    """
    plain: Values = {}
    stored: Values = {}
    shown: Values = {}
    deltas: list[Delta] = []
    for number, step in enumerate(history):
        now = opened(Vault, stored, number)
        assert canonical(now.values) == canonical(plain)
        updates = as_recorded(now, step)
        delta = json.loads(canonical(now.merge(updates, step=number)))
        assert opened(Vault, stored, number).merge(updates, step=number) == delta
        raw = {f"node {i}": each for i, each in enumerate(step)}
        plain = apply(plain, reduce_updates(Desk, plain, raw, step=number))
        before, stored = stored, apply(stored, delta)
        shown = apply(shown, redact(delta))
        assert canonical(unseal(stored, keys)) == canonical(plain)
        assert growth(before, delta, stored) == len(canonical(stored)) - len(canonical(before))
        assert canonical(shown) == canonical(redact(stored))
        assert in_the_clear(stored) == []
        deltas.append(delta)
    assert canonical(fold({}, deltas)) == canonical(stored)


def in_the_clear(stored: Values) -> list[Any]:
    """Values in a state of sealed channels that anybody could read."""
    left: list[Any] = []
    for name, value in stored.items():
        if name == "messages":
            left += [m for m in value if m.keys() - {"id", "role", "tool_call_id"} != {SEALED}]
        elif isinstance(value, list):
            left += [item for item in value if not isinstance(item, dict) or item.keys() != {SEALED}]
        else:
            left += leaves(value)
    return left


def leaves(value: Any) -> list[Any]:
    if not isinstance(value, dict):
        return [value]
    if SEALED in value:
        return [value] if value.keys() != {SEALED} else []
    return [leaf for item in value.values() for leaf in leaves(item)]


def declared(name: str, items: Any, facts: Any) -> type[State]:
    """A state whose two channels are declared in one of many ways."""
    body: dict[str, Any] = {"items": [], "facts": {}}
    hints = {"items": Annotated[list[Any], *items], "facts": Annotated[dict[str, Any], *facts]}
    return type(name, (State,), {"__annotations__": hints, "__module__": __name__, **body})


def joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {**old, **new}


DECLARED = [
    declared(f"{one}{other}{len(sealed)}", [one, *sealed], [other, *sealed])
    for one in (overwrite, append, union, add)
    for other in (overwrite, merge, joined)
    for sealed in ([], [Sensitive])
]
trees: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 1) | st.lists(st.integers(0, 1), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("ab"), inner, max_size=2), max_leaves=4,
)  # fmt: skip
changing = st.tuples(
    st.sampled_from(DECLARED),
    st.fixed_dictionaries(
        {},
        optional={
            "items": st.lists(values, max_size=2),
            "facts": st.dictionaries(st.sampled_from("ab"), trees, max_size=2),
        },
    ),
)


@thorough
@given(st.lists(changing, min_size=2, max_size=6))
def test_a_channel_may_be_declared_otherwise_at_every_step(history: list[tuple[type[State], dict[str, Any]]]) -> None:
    """Sensitive or not, by one reducer or another, without a new version: the state is what its updates made of it."""
    plain: Values = {}
    stored: Values = {}
    for number, (state, update) in enumerate(history):
        now = opened(state, stored, number)
        assert canonical(now.values) == canonical(plain)
        plain = apply(plain, reduce_updates(state, plain, {"node": update}, step=number))
        stored = apply(stored, now.merge({"node": now.recorded(update)}, step=number))
        assert canonical(unseal(stored, keys)) == canonical(plain)
        assert not needs_keys(state) or in_the_clear(stored) == []


# ── what stands where ────────────────────────────────────────────────────────────────────────────────────────────


class Patient(State):
    """Sensitive channels of every shape."""

    name: Annotated[str, Sensitive] = ""
    notes: Annotated[list[str], append, Sensitive] = []
    facts: Annotated[dict[str, Any], merge, Sensitive] = {}
    log: Annotated[list[Message], messages, Sensitive] = []
    ward: str = ""


WRITTEN: dict[str, Any] = {
    "name": "hush-1", "notes": ["hush-2", "hush-3"], "facts": {"blood": {"type": "hush-4"}, "none": {}}, "ward": "B",
    "log": [
        Message(role="tool", content="hush-5", tool_call_id="a", note="hush-6"),
        Message(role="assistant", tool_calls=({"id": "c", "name": "look", "arguments": "hush-7"},), id="m"),  # type: ignore[arg-type]
    ],
}  # fmt: skip


def without_tokens(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "…" if key == SEALED else without_tokens(item) for key, item in value.items()}
    return [without_tokens(item) for item in value] if isinstance(value, list) else value


def test_structure_stays_in_the_clear() -> None:
    """As much as an operation needs to find its place, and no more."""
    delta = opened(Patient, {}).merge({"node": WRITTEN}, step=3)
    sealed = {SEALED: "…"}
    assert without_tokens(delta) == {
        "name": {"op": "set", "value": sealed},
        "notes": {"op": "append", "items": [sealed, sealed]},
        "facts": {"op": "merge", "value": {"blood": {"type": sealed}, "none": {}}},
        "ward": {"op": "set", "value": "B"},
        "log": {
            "op": "messages",
            "put": [
                {"id": "3.0", "role": "tool", "tool_call_id": "a", **sealed},
                {"id": "m", "role": "assistant", **sealed},
            ],
        },
    }  # fmt: skip
    assert delta["name"]["value"][SEALED].startswith(f"{keys.current}:")


def test_equal_values_look_different() -> None:
    """In one step, in two steps, in two threads: nobody learns from the store that two secrets are the same."""
    one = opened(Patient, {}, 1).merge({"node": {"name": "x", "notes": ["x", "x"]}}, step=1)
    other = opened(Patient, {}, 2).merge({"node": {"name": "x"}}, step=2)
    new = [open_position(Patient, None, keys).merge({"node": {"name": "x"}}, step=0) for _ in range(2)]
    delta: list[Any] = [one["name"]["value"], *one["notes"]["items"], other["name"]["value"]]
    tokens = [found[SEALED] for found in [*delta, *(first["name"]["value"] for first in new)]]
    assert len(set(tokens)) == 6


def test_a_record_is_sealed_until_it_is_merged() -> None:
    """What a call leaves for the commit of its step: sealed too, removals and replacements included."""
    now = opened(Patient, {"log": [{"id": "m", "role": "user"}]})
    record = now.recorded({**WRITTEN, "log": [Remove(remove="m"), *WRITTEN["log"]], "notes": Overwrite(["hush-2"])})
    assert "hush" not in json.dumps(record)
    assert record["log"][0] == {"remove": "m"}
    assert (record["log"][1]["role"], record["log"][1]["tool_call_id"]) == ("tool", "a")
    after = now.after({"node": json.loads(canonical(record))}, step=1)[1]
    assert [m.content for m in after.state().log] == ["hush-5", ""]  # type: ignore[attr-defined]
    assert after.values["notes"] == ["hush-2"]
    (answer,) = now.recorded({"log": [Message(role="assistant", content="hush")]})["log"]
    assert unseal({"answer": answer}, keys) == {"answer": {"role": "assistant", "content": "hush"}}


def test_the_latest_message_of_a_delta_opens_by_itself() -> None:
    """The result cache finds a model's answer in the checkpoint that committed it."""
    delta = opened(Patient, {}).merge({"node": WRITTEN}, step=3)
    assert unseal(latest_message(delta, "log"), keys)["tool_calls"][0]["arguments"] == "hush-7"


def test_a_channel_that_becomes_sensitive_is_sealed_with_the_next_step() -> None:
    """Whatever the step is about; and one that is no longer sensitive is still read."""
    stored: Values = {"name": "hush", "notes": ["hush"], "ward": "B"}
    delta = opened(Patient, stored).merge({"node": {"ward": "C"}}, step=1)
    assert sorted(delta) == ["name", "notes", "ward"]
    stored = apply(stored, delta)
    assert "hush" not in json.dumps(stored)
    assert opened(Patient, stored).merge({}, step=2) == {}

    class Open(State):
        name: str = ""
        notes: Annotated[list[str], append] = []
        ward: str = ""

    now = opened(Open, stored)
    assert now.values == {"name": "hush", "notes": ["hush"], "ward": "C"}
    assert now.merge({"node": {"notes": ["more"]}}, step=2) == {"notes": {"op": "append", "items": ["more"]}}


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_keys_rotate_by_their_ids() -> None:
    """A new key in front seals from now on; what older ones sealed is read as long as they are there."""
    old, new = new_key(), new_key()
    stored = apply({}, opened(Patient, {}, keyring=Keyring.parse(old)).merge({"node": {"notes": ["a"]}}, step=1))
    both = Keyring.parse(f"{new},{old}")
    stored = apply(stored, opened(Patient, stored, keyring=both).merge({"node": {"notes": ["b"]}}, step=2))
    names = [item[SEALED].partition(":")[0] for item in stored["notes"]]
    assert names == [old.partition(":")[0], new.partition(":")[0]]
    assert opened(Patient, stored, keyring=both).values == {"notes": ["a", "b"]}
    with pytest.raises(KeyMissing, match=rf"key '{names[0]}'.* PERDURE_KEYS doesn't have it"):
        opened(Patient, stored, keyring=Keyring.parse(new))
    with pytest.raises(KeyMissing, match=rf"key '{names[0]}'.* there are no keys\. Set PERDURE_KEYS"):
        opened(Patient, stored, keyring=None)


def test_a_state_with_sensitive_channels_needs_keys() -> None:
    """It says so before anything is written; a state without any does without."""
    assert needs_keys(Patient)
    assert not needs_keys(Desk)
    now = opened(Patient, {}, keyring=None)
    for seal in (now.recorded, lambda update: now.merge({"node": update}, step=1)):
        with pytest.raises(KeyMissing, match=r"no key to seal them with\. Set PERDURE_KEYS; `perdure db keys new`"):
            seal({"name": "x"})
    assert now.merge({"node": {"ward": "B"}}, step=1) == {"ward": {"op": "set", "value": "B"}}


# ── nobody else sees it ──────────────────────────────────────────────────────────────────────────────────────────


def test_redaction_needs_no_keys_and_leaves_nothing() -> None:
    """State, delta and record, as the CLI and the views show them."""
    now = opened(Patient, {})
    delta = now.merge({"node": WRITTEN}, step=3)
    assert redact(apply({}, delta)) == {
        "name": "[sensitive]",
        "notes": ["[sensitive]", "[sensitive]"],
        "facts": {"blood": {"type": "[sensitive]"}, "none": {}},
        "ward": "B",
        "log": [
            {"id": "3.0", "role": "tool", "tool_call_id": "a", "content": "[sensitive]"},
            {"id": "m", "role": "assistant", "content": "[sensitive]"},
        ],
    }
    for sealed in (delta, now.recorded(WRITTEN), {"deeper": [[delta]]}):
        assert SEALED not in json.dumps(redact(sealed))


def test_a_view_shows_the_redacted_state() -> None:
    """It follows deltas as they are stored, and channels that go."""
    view = StateView()
    delta = opened(Patient, {}).merge({"node": WRITTEN}, step=3)
    view.follow(delta)
    assert view.values == redact(apply({}, delta))
    view.follow({"name": {"op": "unset"}})
    assert "name" not in view.values


def chatty(old: Any, new: Any) -> Any:
    raise ValueError(f"can't merge {new}")


class Careless(State):
    """Code that quotes what it is given, on top of Sensitive channels."""

    pin: Annotated[int, Sensitive] = 0
    code: Annotated[str, Sensitive] = ""
    facts: Annotated[dict[str, int], merge, Sensitive] = {}
    score: Annotated[str, chatty, Sensitive] = ""
    anything: Annotated[Any, Sensitive] = None

    @field_validator("code")
    @classmethod
    def _quotes(cls, code: str) -> str:
        if code:
            raise ValueError(f"{code} is no code")
        return code


class Older(Careless):
    """One whose upcaster quotes too."""

    version = 2

    @upcast(1)
    @staticmethod
    def _quotes_too(values: dict[str, Any]) -> dict[str, Any]:
        raise KeyError(values["code"])


quiet = "".join(["hu", "sh"])  # a traceback quotes the lines of this file


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: opened(Careless, {}).merge({"node": {"pin": quiet}}, step=1),
        lambda: opened(Careless, {}).recorded({"facts": {quiet: quiet}}),
        lambda: opened(Careless, {}).recorded({"anything": quiet + "\ud800"}),
        lambda: opened(Careless, {}).merge({"node": {"score": quiet}}, step=1),
        lambda: materialise(Careless, {"pin": quiet}),
        lambda: materialise(Careless, {"code": quiet}),
        lambda: opened(Older, {"code": quiet}),
    ],
)
def test_errors_and_logs_quote_nothing_sensitive(attempt: Callable[[], Any]) -> None:
    """Neither the message, nor its causes, nor the traceback that a log prints, in either form."""
    with pytest.raises((InvalidInput, UpcastFailed)) as refused:
        attempt()
    handlers, stream = list(logging.getLogger().handlers), io.StringIO()
    try:
        for form in ("json", "text"):
            configure_logging(Settings(log=form), stream)
            structlog.get_logger("perdure").error("failed", exc_info=refused.value, state=Careless(pin=4711))
    finally:
        logging.getLogger().handlers[:] = handlers
        structlog.reset_defaults()
    logged = stream.getvalue()
    assert logged.count("Traceback") == 2
    assert "hush" not in f"{refused.value} {refused.value.__cause__} {logged}"
    assert "4711" not in logged


def test_what_is_not_sensitive_is_explained() -> None:
    """Discretion costs nobody else their reasons."""
    with pytest.raises(InvalidInput, match=r"doesn't fit Desk: total: Input should be a valid integer"):
        materialise(Desk, {"total": "many"})


# ── what only looks sealed ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", [Desk, Vault])
@pytest.mark.parametrize(
    "update",
    [
        {"notes": [{SEALED: "k:AAAA"}]},
        {"notes": Overwrite([{"deep": [{SEALED: 1}]}])},
        {"profile": {"a": {SEALED: "k:AAAA", "b": 1}}},
        {"tags": [[{SEALED: None}]]},
    ],
)
def test_what_only_looks_sealed_is_refused(state: type[State], update: dict[str, Any]) -> None:
    """From a person, a tool or a node: it could never be told from what is."""
    now = opened(state, {})
    for write in (now.recorded, lambda given: now.given({"The input": given})):
        with pytest.raises(InvalidInput, match="the key '\\$sealed' is Perdure's own"):
            write(update)


def test_what_is_really_sealed_can_not_be_given() -> None:
    """Who can read the store and write to a thread can't have a stranger's secret opened there."""
    stolen = opened(Patient, {}).merge({"node": {"name": "hush"}}, step=1)["name"]["value"]
    now = opened(Patient, {})
    for update in ({"name": stolen}, {"notes": [stolen]}, {"facts": {"a": stolen}}, {"ward": stolen}):
        with pytest.raises(InvalidInput):
            now.given({"The input": update})
        with pytest.raises(InvalidInput):
            now.recorded(update)
    with pytest.raises(InvalidInput, match=r"Patient\.ward"):
        now.merge({"node": {"ward": stolen}}, step=1)


def test_a_default_can_not_look_sealed() -> None:
    """Nor can what a reducer makes."""

    class Odd(State):
        field: dict[str, Any] = {SEALED: "x"}

    class Sly(State):
        field: Annotated[dict[str, Any], lambda old, new: {SEALED: "x"}] = {}

    with pytest.raises(DefinitionError, match=r"Odd\.field.*Perdure's own"):
        channels(Odd)
    with pytest.raises(InvalidInput, match=r"Sly\.field.*Perdure's own"):
        reduce_updates(Sly, {}, {"node": {"field": {}}}, step=0)


# ── a thread ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Ward(State):
    """What the tools of a thread know and nobody else does."""

    pin: Annotated[str, Sensitive] = ""
    notes: Annotated[list[str], append, Sensitive] = []
    draft: Annotated[str, Ephemeral] = "none"


@tool
async def admit(ctx: ToolContext) -> str:
    """Admit a patient."""
    ctx.update(pin=quiet * 2, notes=[f"{quiet} came"], draft=quiet)
    return "admitted"


@tool
async def weigh(ctx: ToolContext) -> str:
    """Weigh a patient."""
    ctx.update(notes=[f"{quiet} weighs 70"])
    return "weighed"


@tool
async def recall(ctx: ToolContext) -> str:
    """Tell whether the state is as it was written."""
    state = ctx.state
    assert isinstance(state, Ward)
    return f"{state.pin == quiet * 2} {sorted(state.notes) == [f'{quiet} came', f'{quiet} weighs 70']} {state.draft}"


app = App(agents=[Agent(name="ward", model="m", state=Ward, tools=[admit, weigh, recall])])
script = Script(rules=[Rule(when="go", replies=[together(call("admit"), call("weigh")), call("recall"), say("Done.")])])


async def test_a_thread_keeps_its_secrets(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tools read what they wrote; the store, the history, the queries and the client have nothing of it."""
    async with make_world(app, script, keys=SecretStr(new_key()), serve=False) as world:
        kept, put = list[Any](), world.store.put_receipt

        async def put_receipt(thread_id: str, receipt: Receipt, *, head: str = "") -> None:
            kept.append(receipt)  # the commit of its step removes it again
            await put(thread_id, receipt, head=head)

        monkeypatch.setattr(world.store, "put_receipt", put_receipt)
        async with world.worker():
            thread, accepted = await world.client.start("ward", "go", thread=world.thread())
            assert (await world.ended(thread, accepted.message_id)).answer == "Done."
            shown = [await world.client.state(thread), (await world.client.checkpoint(thread)).state]
            told = [*shown, *await world.client.history(thread), await world.client.status(thread)]
        kept += [[checkpoint async for checkpoint in world.store.walk(thread)], await world.store.snapshots(thread)]
        sent = b"".join(event.SerializeToString() for event in (await world.fetch(thread)).events)
    for state in shown:
        assert [m["content"] for m in state["messages"] if m["role"] == "tool"][2] == "True True none"
        assert (state["pin"], state["notes"]) == ("[sensitive]", ["[sensitive]"] * 2)
    assert repr(kept).count(SEALED) >= 6  # three in the records, three in the checkpoints
    assert b"admit" in sent
    for place in (repr(told), repr(kept), sent.decode("latin1")):
        assert quiet not in place
        assert "draft" not in place


async def test_a_worker_without_keys_does_not_start(make_world: MakeWorld) -> None:
    """Else each of its threads would fail, one after the other."""
    async with make_world(app, script, serve=False) as world:
        with pytest.raises(KeyMissing, match="ward: the state has Sensitive channels, and there are no keys"):
            world.worker()
