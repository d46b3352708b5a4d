"""Definitions: what a signature tells the model, and every mistake in a tool, an agent or an app, found at once.

Long: one claim a mistake.
"""

import functools
import inspect
import math
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, SecretStr

from perdure import Agent, App, Approval, Escalation, State, Tool, ToolContext, append, tool
from perdure.app import load_app
from perdure.contracts import Limits
from perdure.duration import seconds, spoken
from perdure.errors import AgentNotFound, DefinitionError, InvalidInput

anything: Any = "not what it should be"


class Handle:
    """Something that lives in one process."""


class Size(Enum):
    """An enum a tool takes."""

    SMALL = "s"
    LARGE = "l"


class Address(BaseModel):
    """A model a tool takes."""

    city: str
    zip: str | None = None


class Vault(BaseModel):
    """A model with a secret in it."""

    key: SecretStr


# ── what the model is told ───────────────────────────────────────────────────────────────────────────────────────


@tool
async def order(
    ctx: ToolContext, sku: str, address: Address, quantity: Annotated[int, Field(ge=1)] = 1, size: Size = Size.SMALL,
    gift: str | None = None, speed: Literal["slow", "fast"] = "slow", json: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Order something.

    It is sent the same day.

    Args:
        sku: what to order
        address: where it goes
        quantity: how many
    """
    return {"ctx": ctx.turn, "all": [sku, address, quantity, size, gift, speed, json]}


def test_a_signature_is_a_schema() -> None:
    """Types, defaults, enums, nested models and descriptions reach the model; the context doesn't."""
    function = order.schema()["function"]
    assert function["name"] == "order"
    assert function["description"] == "Order something.\n\nIt is sent the same day."
    parameters = function["parameters"]
    Draft202012Validator.check_schema(parameters)
    fields = parameters["properties"]
    assert list(fields) == ["sku", "address", "quantity", "size", "gift", "speed", "json"]
    assert parameters["required"] == ["sku", "address"]
    assert parameters["additionalProperties"] is False
    assert fields["sku"] == {"description": "what to order", "title": "Sku", "type": "string"}
    assert (fields["quantity"]["minimum"], fields["quantity"]["default"]) == (1, 1)
    assert fields["speed"]["enum"] == ["slow", "fast"]
    assert parameters["$defs"]["Size"]["enum"] == ["s", "l"]
    assert parameters["$defs"]["Address"]["required"] == ["city"]
    valid, invalid = Draft202012Validator(parameters), {"sku": "x", "address": {}}
    assert valid.is_valid({"sku": "x", "address": {"city": "Bern"}, "size": "l", "gift": None})
    assert not valid.is_valid(invalid)


def test_arguments_are_what_the_function_takes() -> None:
    """The model's text becomes the function's own types, defaults included; what doesn't fit is told to the model."""
    arguments = order.parse('{"sku": "x", "address": {"city": "Bern"}, "size": "l", "json": true}')
    bound = {name: getattr(arguments, name) for name in order.parameters}
    assert bound["address"] == Address(city="Bern")
    assert (bound["size"], bound["quantity"], bound["json"]) == (Size.LARGE, 1, True)
    for text, why in [
        ("{no json", "Invalid JSON"), ("[]", "an object"), ("{}", "sku: Field required"),
        ('{"sku": "x", "address": {"city": "B"}, "quantity": 0}', "quantity: "),
        ('{"sku": "x", "address": {"city": "B"}, "colour": 1}', "colour: Extra inputs"),
    ]:  # fmt: skip
        with pytest.raises(InvalidInput, match=f"Invalid arguments for order: (.|\n)*{why}(.|\n)*call again"):
            order.parse(text)


def test_a_digest_is_of_what_runs() -> None:
    """Spaces and order of the model's text don't matter to an approval; a value, a default's too, and the tool do."""

    def digest(text: str, of: Tool = order) -> str:
        return of.digest(of.parse(text))

    one = digest('{"sku": "x", "address": {"city": "Bern"}}')
    assert one == digest('{"address":{"city":"Bern", "zip":null}, "quantity": 1, "sku":"x"}')
    assert one != digest('{"sku": "y", "address": {"city": "Bern"}}')
    assert one != digest('{"sku": "x", "address": {"city": "Bern"}}', tool(name="other")(order.function))


def test_both_kinds_of_functions_are_tools() -> None:
    """A tool may be async or not, is still callable as itself, and may have no arguments and no description."""

    @tool
    def plain() -> int:
        return 1

    assert plain() == 1
    assert inspect.iscoroutinefunction(order.function)
    assert plain.schema()["function"]["parameters"] == {
        "additionalProperties": False, "properties": {}, "type": "object",
    }  # fmt: skip
    assert plain.parse("") == plain.parse("{}")


def test_a_result_must_be_json() -> None:
    """What a tool returns is written by its own type; what can't be is named with the tool."""

    @tool
    def whatever() -> Any: ...

    @tool
    def address() -> Address: ...  # type: ignore[empty-body]

    assert address.dump(Address(city="Bern")) == b'{"city":"Bern","zip":null}'
    assert whatever.dump((1, Size.SMALL)) == b'[1,"s"]'
    for of, wrong in [(whatever, object()), (address, {"city": 1}), (whatever, "\ud800")]:
        with pytest.raises(InvalidInput, match=f"{of.name} returned what can't be stored as JSON"):
            of.dump(wrong)


# ── mistakes in a tool ───────────────────────────────────────────────────────────────────────────────────────────


def takes_secret(key: SecretStr) -> None: ...
def takes_nested_secret(vaults: list[Vault]) -> None: ...
def returns_secret() -> dict[str, SecretStr]: ...  # type: ignore[empty-body]
def takes_handle(handle: Handle) -> None: ...
def returns_handle() -> Handle: ...  # type: ignore[empty-body]
def takes_function(call: Callable[[], int]) -> None: ...
def returns_function() -> Callable[[], int]: ...  # type: ignore[empty-body]
def takes_many(*args: int) -> None: ...
def takes_named(**kwargs: int) -> None: ...
def takes_positional(one: int, /) -> None: ...
def takes_untyped(one) -> None: ...  # type: ignore[no-untyped-def]
def takes_unknown(one: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def takes_two_contexts(a: ToolContext, b: ToolContext) -> None: ...
def takes_hidden(_one: int) -> None: ...
def takes_config(model_config: str) -> None: ...
def takes_method(model_dump: str) -> None: ...
def has_wrong_default(one: int = "x") -> None: ...  # type: ignore[assignment]
def has_no_default(one: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013
def has_odd_default(one: Any = Handle()) -> None: ...  # noqa: B008
def yields() -> Iterator[int]:
    yield 1


async def yields_later() -> AsyncIterator[int]:
    yield 1


def fine(one: int) -> None: ...  # fmt: skip


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (takes_secret, "'key' is a secret type"), (takes_nested_secret, "'vaults' is a secret type"),
        (returns_secret, "returns a secret type"), (takes_handle, "as JSON.*Handle"),
        (returns_handle, "as JSON.*Handle"), (takes_function, "as JSON"), (returns_function, "as JSON"),
        (takes_many, "'args' must be an ordinary named one"), (takes_named, "'kwargs' must be"),
        (takes_positional, "'one' must be"), (takes_untyped, "'one' has no type"), (takes_unknown, "Nowhere"),
        (takes_two_contexts, "'a' and 'b' both take the context"), (takes_hidden, "_one"),
        (takes_config, "'model_config' needs another name"), (takes_method, "model_dump"),
        (has_wrong_default, "'one' has the default 'x'"), (has_no_default, "'one' has the default None"),
        (has_odd_default, "'one' has the default <"), (yields, "it yields"), (yields_later, "it yields"),
    ],
)  # fmt: skip
def test_a_wrong_signature_names_its_function(function: Callable[..., Any], why: str) -> None:
    """The error says which function and which parameter, when it is declared and not when it is called."""
    with pytest.raises(DefinitionError, match=f"Tool {__name__}.{function.__name__}: .*{why}"):
        tool(function)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"effect": "irreversible", "attempts": 2}, "irreversible tool is never retried"),
        ({"effect": "compensable"}, "`compensate` goes with"),
        ({"effect": "idempotent", "compensate": "undo"}, "`compensate` goes with"),
        ({"compensate": "undo"}, "`compensate` goes with"),
        ({"attempts": 0}, "at least 1"),
        ({"timeout": "soon"}, "'soon' is no duration"),
        ({"deadline": 0}, "longer than nothing"),
        ({"approval": Approval(quorum=0)}, "quorum of 0"),
        ({"approval": Approval(escalations=[Escalation(approvers=[])])}, "names nobody"),
        ({"approval": Approval(separation=["friends"])}, "`separation` is a list of"),  # type: ignore[list-item]
        ({"approval": Approval(silence="escalate")}, "`silence` is"),  # type: ignore[arg-type]
        ({"approval": Approval(reminders=["soon"])}, "'soon' is no duration"),
        ({"reconcile": "look"}, "are for tools with an effect"),
        ({"saga": "thread"}, "are for tools with an effect"),
        ({"simulate": lambda colour: colour}, "its simulation wants colour"),
        ({"approval": Approval(approvers="finance")}, "`approvers` is a list"),
        ({"approval": Approval(expires="never")}, "'never' is no duration"),
        ({"name": "charge card"}, "'charge card' is no name"),
        ({"name": "x" * 65}, "is no name"),
    ],
)
def test_wrong_options_name_their_function(options: dict[str, Any], why: str) -> None:
    """Contradictions and impossible values are refused where they are written."""
    with pytest.raises(DefinitionError, match=f"Tool {__name__}.fine: .*{why}"):
        tool(**options)(fine)


@pytest.mark.parametrize("thing", [3, Handle, Handle(), functools.partial(fine, 1)])
def test_what_is_no_function_is_no_tool(thing: Any) -> None:
    """A class, an object, a partial: the error shows it."""
    with pytest.raises(DefinitionError, match="is no function and so no tool"):
        tool(thing)


def test_retries_follow_the_effect() -> None:
    """An irreversible tool has one attempt, others three, or as told."""
    assert tool(effect="irreversible")(fine).spec.attempts == 1
    assert tool(fine).spec.attempts == 3
    assert tool(attempts=7, timeout=timedelta(minutes=2))(fine).spec.timeout == 120


def test_a_condition_decides_on_the_arguments() -> None:
    """It sees the validated arguments; where it fails, a person is asked."""
    arguments = order.parse('{"sku": "x", "address": {"city": "Bern"}, "quantity": 3}')
    assert Approval(when=lambda args: args.quantity > 3).required(arguments) is None
    assert Approval(when=lambda args: args.quantity > 2, reason="many").required(arguments) == "many"
    assert Approval().required(arguments) == "every call of this tool needs approval"
    assert "AttributeError" in str(Approval(when=lambda args: args.colour).required(arguments))


# ── mistakes in an agent ─────────────────────────────────────────────────────────────────────────────────────────


class Secretive(State):
    """A state that can't be."""

    vault: list[Vault] = []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tools": [fine]}, "is no tool"), ({"state": dict}, "is no State"),
        ({"state": Secretive}, r"Secretive\.vault holds a secret"),
        ({"idle": "forever"}, "'forever' is no duration"), ({"model_timeout": "x"}, "'x' is no duration"),
        ({"model_deadline": -1}, "longer than nothing"), ({"context_tokens": 0}, "context_tokens: .*equal to 1"),
        ({"parameters": {"temperature": object()}}, "`parameters` is no JSON"),
        ({"parameters": {"stream": True, "model": "x"}}, "can't set model, stream"),
        ({"budget": 3}, "3 is no Budget"),
    ],
)  # fmt: skip
def test_a_wrong_agent_says_which(options: dict[str, Any], why: str) -> None:
    """The error names the agent and what is wrong."""
    with pytest.raises(DefinitionError, match=f"Agent clerk: .*{why}"):
        Agent(name="clerk", model="m", **options)


@pytest.mark.parametrize("name", ["", "two words", "-x", "x" * 65, "ä", "a/b"])
def test_a_wrong_agent_name_is_refused(name: str) -> None:
    """Names go into ids and search attributes; and there is no model without a name."""
    with pytest.raises(DefinitionError, match=r"Agent clerk: node model: model: .*at least 1 character"):
        Agent(name="clerk", model="")
    with pytest.raises(DefinitionError, match="is no agent name"):
        Agent(name=name, model="m")


# ── mistakes in an app ───────────────────────────────────────────────────────────────────────────────────────────


@tool(effect="compensable", compensate="undo")
def act(amount: int, to: str) -> str: ...  # type: ignore[empty-body]


def undo(receipt: str, to: str) -> None: ...
def undo_more(receipt: str, reason: str, colour: str, note: str = "") -> None: ...


def gated(*approvers: str) -> Tool:
    return tool(approval=Approval(approvers=approvers, quorum=2))(fine)


def late(name: str, after: str) -> Tool:
    return tool(name=name, effect="idempotent", undo_after=[after])(fine)


def agent(*tools: Tool, **options: Any) -> Agent:
    return Agent(name="clerk", model="m", tools=tools, **options)


def test_a_whole_app_is_fine() -> None:
    """A compensation may take the receipt and the call's own arguments, and what has a default."""
    app = App(agents=[agent(act)], tools=[tool(name="undo", effect="idempotent", hidden=True)(undo)])
    assert app.graph("clerk").tools == (act,)
    with pytest.raises(AgentNotFound, match=r"no agent 'nobody'.*Agents: clerk"):
        app.graph("nobody")
    groups = {"finance": ["ann", "bob"]}
    assert App(agents=[agent(gated("finance", "cid", "ann"))], groups=groups).policies["fine"].approvers == (
        "ann", "bob", "cid",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: App(agents=[agent(), agent()]), "Two agents are named 'clerk'"),
        (lambda: App(agents=[anything]), "is no agent"),
        (lambda: App(agents=[agent(tool(fine))], tools=[tool(name="fine")(undo)]),
         rf"Two tools are named 'fine': {__name__}\.undo and {__name__}\.fine"),
        (lambda: App(agents=[], tools=[anything]), "is no tool"),
        (lambda: App(agents=[agent(act, act)], tools=[tool(undo)]), "node model: it lists tool 'act' twice"),
        (lambda: App(agents=[agent(act)]), rf"Tool {__name__}\.act: its compensation 'undo' is unknown"),
        (lambda: App(agents=[agent(act)], tools=[tool(name="undo")(undo_more)]),
         rf"Tool {__name__}\.undo_more compensates act but needs colour, reason, .*receipt and amount, to"),
        (lambda: App(agents=[agent(act)], tools=[tool(effect="irreversible")(undo)]),
         rf"Tool {__name__}\.undo compensates act .*not irreversible"),
        (lambda: App(agents=[agent(gated("finance", "finance"))]), "quorum of 2 can't be reached by 1"),
        (lambda: App(agents=[agent(gated("finance"))], groups={"finance": ["ann"]}), "quorum of 2 can't be reached"),
        (lambda: App(agents=[agent(tool(effect="idempotent", reconcile="look")(fine))]), "its hook 'look' is unknown"),
        (lambda: App(agents=[agent(tool(effect="idempotent", reconcile="fine")(fine))]), "must only read"),
        (lambda: App(agents=[agent(late("one", "two"), late("two", "one"))]), "wait for one another: (one|two) and"),
        (lambda: App(agents=[agent(late("one", "gone"))]), "`undo_after` names 'gone', which is unknown"),
        (lambda: App(agents=[agent(instructions="\ud800")]), "Agent clerk: The value can't be written as JSON"),
        (lambda: App(agents=[agent(cache="everywhere")]), "Agent clerk: .*cache: .*'lineage', 'global' or 'off'"),
        (lambda: App(agents=[agent(on_busy="panic")]), "Agent clerk: on_busy: 'panic' is none of enqueue, reject"),
    ],
)  # fmt: skip
def test_a_wrong_app_says_where(build: Callable[[], App], why: str) -> None:
    """What only shows when everything is together is found when the app is made, with the places of both sides."""
    with pytest.raises(DefinitionError, match=why):
        build()


# ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────────

LATER = '''
from __future__ import annotations
from enum import Enum
from typing import Annotated, Optional
from pydantic import BaseModel
from perdure import Agent, App, State, ToolContext, append, tool

class Size(Enum):
    SMALL = "s"

class Item(BaseModel):
    sku: str
    inside: list[Item] = []

class Cart(State):
    items: Annotated[list[Item], append] = []

@tool
async def add(ctx: ToolContext, item: Item, size: Optional[Size] = None) -> Item:
    """Add an item.

    Args:
        item: what to add
    """
    return item

app = App(agents=[Agent(name="shop", model="m", state=Cart, tools=[add])])
other = "no app"
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with modules that come and go."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_annotations_may_be_read_later(folder: Path) -> None:
    """A module with ``from __future__ import annotations``, recursive models and all, is an app like any other."""
    (folder / "later.py").write_text(LATER)
    add = load_app("later").tools["add"]
    assert load_app("later:app").graphs.keys() == {"shop"}
    parameters = add.schema()["function"]["parameters"]
    assert parameters["required"] == ["item"]
    assert parameters["properties"]["item"]["description"] == "what to add"
    assert parameters["$defs"]["Size"]["enum"] == ["s"]
    nested = add.parse('{"item": {"sku": "a", "inside": [{"sku": "b"}]}, "size": "s"}')
    assert add.canonical_arguments(nested) == b'{"item":{"inside":[{"inside":[],"sku":"b"}],"sku":"a"},"size":"s"}'


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        (LATER, "later:other", "'later:other' is no App.*MODULE:ATTR"),
        (LATER, "later:missing", "'later:missing' is no App"),
        (LATER, "nowhere_at_all", "'nowhere_at_all' can't be imported: ModuleNotFoundError: No module named"),
        (LATER, "", "can't be imported: ValueError: Empty module name"),
        ("\n\nboom\n", "later", r"can't be imported: NameError: name 'boom' is not defined \(line 3 of .*later\.py\)"),
        ("def x(:\n", "later", r"can't be imported: SyntaxError: .*later\.py, line 1"),
        ("from perdure import tool\n@tool\ndef f(x): ...\n", "later", r"Tool later\.f: parameter 'x' has no type"),
    ],
)
def test_an_app_that_cannot_be_loaded_says_where(folder: Path, source: str, target: str, why: str) -> None:
    """The module, the line, or the definition that is wrong."""
    (folder / "later.py").write_text(source)
    with pytest.raises(DefinitionError, match=why):
        load_app(target)


# ── the definition as data ───────────────────────────────────────────────────────────────────────────────────────


class Notes(State):
    """A state with a channel."""

    notes: Annotated[list[str], append] = []


def test_a_definition_is_named_by_its_content() -> None:
    """Its digest follows prompt, tools and parameters; defining the same again is the same definition."""

    def digest(*tools: Tool, **options: Any) -> str:
        defined = agent(*tools, **options)
        app = App(agents=[defined])
        return app.graph("clerk").definition(app.tools, Limits()).spec.digest

    one = digest(tool(fine), state=Notes)
    assert one == digest(tool(fine), state=Notes)
    variants = [tool(timeout=1)(fine), tool(name="f")(fine), tool(hidden=True)(fine)]
    other = [digest(), *map(digest, variants)]
    other += [digest(tool(fine), instructions="x"), digest(tool(fine), parameters={"temperature": 0})]
    assert len({one, *other}) == len(other) + 1


# ── durations ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "value"),
    [("30s", 30), ("5m", 300), ("24h", 86_400), ("7 d", 604_800), ("1.5h", 5_400), ("250ms", 0.25), (0.5, 0.5),
     (3, 3), (timedelta(hours=1), 3600)],
)  # fmt: skip
def test_durations_are_written_as_people_do(text: Any, value: float) -> None:
    """With a unit, as seconds, or as a timedelta."""
    assert seconds(text) == value


@pytest.mark.parametrize(
    "wrong", ["", "30", "1h30m", "-5s", "0s", "s", "1000000d", 0, -1, math.nan, math.inf, timedelta(0), None, []]
)
def test_a_wrong_duration_is_refused(wrong: Any) -> None:
    """Nothing, less than nothing, and for ever are no durations."""
    with pytest.raises(DefinitionError, match="duration"):
        seconds(wrong)


def test_durations_are_spoken_in_two_units() -> None:
    """What a person reads."""
    assert [spoken(value) for value in (0.4, 90, 3600, 93_784)] == ["0s", "1m 30s", "1h", "1d 2h"]
