"""Contracts: each activity is what the workflow takes it for, and what crosses Temporal arrives whole and lean."""

import json
import types
import typing
from datetime import UTC
from pathlib import Path
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from temporalio import activity
from temporalio.testing import WorkflowEnvironment

from perdure import Agent, App, contracts, tool
from perdure.activities.effects import EffectActivities
from perdure.activities.tools import ToolActivities
from perdure.checkpoint import Ref
from perdure.contracts import (
    SHORT,
    CallModel,
    CallTool,
    Commit,
    RunNode,
    Stub,
    TakeAnswer,
    Wire,
    lean,
    tool_stub,
    undo_stub,
)  # fmt: skip
from perdure.settings import Settings
from perdure.stores import open_store
from perdure.wire import data_converter
from perdure.workers.worker import build_worker
from tests.properties import floats, texts, thorough, values

STUBS = [stub for stub in vars(contracts).values() if isinstance(stub, Stub)]
WIRES = [kind for kind in vars(contracts).values() if isinstance(kind, type) and issubclass(kind, Wire)]


@tool
def look() -> str:
    """Look."""
    return ""


async def test_each_stub_is_one_activity(environment: WorkflowEnvironment, tmp_path: Path) -> None:
    """Under each name the worker serves exactly one activity, with the stub's own types; and no activity is left over.

    Tools and compensations are served by one that takes any name, and tells them apart by their prefix.
    """
    app = App(agents=[Agent(name="clerk", model="m", tools=[look])])
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    served = build_worker(environment.client, app=app, store=store, settings=Settings()).config()["activities"]
    known = [activity._Definition.must_from_callable(function) for function in served]
    named = {each.name: each for each in known if each.name is not None}
    assert sorted(named) == sorted(stub.name for stub in STUBS)
    assert [(named[stub.name].arg_types, named[stub.name].ret_type) for stub in STUBS] == [
        ([stub.takes], stub.gives) for stub in STUBS
    ]
    (dynamic,) = [each for each in known if each.name is None]
    assert len(known) == len(STUBS) + 1
    behind: list[tuple[Stub[Any, Any], Any]] = [
        (tool_stub("look"), ToolActivities.call), (undo_stub("look"), EffectActivities.undo)
    ]  # fmt: skip
    for stub, function in behind:
        hints = typing.get_type_hints(function)
        assert (hints["task"], hints["return"]) == (stub.takes, stub.gives)
        assert stub.gives in typing.get_args(dynamic.ret_type)
        assert not any(stub.name.startswith(name) for name in named)


# ── the journey ──────────────────────────────────────────────────────────────────────────────────────────────────


def typed(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return typed(parts[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return st.deferred(lambda: built(annotation))
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(typed, parts))
    if origin is Literal:
        return st.sampled_from(parts)
    if origin is tuple:
        return st.lists(typed(parts[0]), max_size=2).map(tuple)
    if origin is list:
        return st.lists(typed(parts[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(texts, typed(parts[1]), max_size=2)
    plain = {Any: values, str: texts, float: floats, int: st.integers(), bool: st.booleans(), type(None): st.none()}
    return plain[annotation] if annotation in plain else st.datetimes(timezones=st.just(UTC))


def built(kind: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Instances of a model; optional fields come and go."""
    fields = {name: typed(field.annotation) for name, field in kind.model_fields.items()}
    needed = {name for name, field in kind.model_fields.items() if field.is_required()}
    required = {name: made for name, made in fields.items() if name in needed}
    optional = {name: made for name, made in fields.items() if name not in needed}
    made = st.fixed_dictionaries(required, optional=optional).map(lambda given: _fits(kind, given))
    return made.filter(lambda instance: instance is not None)


def _fits(kind: type[BaseModel], given: dict[str, Any]) -> BaseModel | None:
    try:
        return kind.model_validate(given)
    except ValidationError:  # outside the bounds of a field
        return None


@thorough
@given(st.sampled_from(WIRES).flatmap(built))
async def test_a_lean_payload_arrives_whole(value: BaseModel) -> None:
    """For every type and any value: what equals its default is not in the payload, and is there again on arrival."""
    kind = type(value)
    said = {name for name, field in kind.model_fields.items() if field.is_required() or _differs(value, name)}
    (payload,) = await data_converter.encode([lean(value)])
    assert json.loads(payload.data).keys() == said
    (arrived,) = await data_converter.decode([payload], [kind])
    assert _shortened(arrived) == _shortened(value)


def _shortened(value: BaseModel) -> Any:
    """What is left of it: of digests that are only compared or looked up the beginning is enough."""
    if isinstance(head := getattr(value, "head", None), Ref) and isinstance(value, Commit):
        return value.model_copy(update={"head": head.model_copy(update={"digest": head.digest[:SHORT]})})
    if isinstance(commit := getattr(value, "commit", None), Commit):
        value = value.model_copy(update={"commit": _shortened(commit)})
    if isinstance(value, CallModel | CallTool | RunNode | TakeAnswer):
        value = value.model_copy(update={"spec": value.spec[:SHORT]})
    return value


def _differs(value: BaseModel, name: str) -> bool:
    return bool(getattr(value, name) != type(value).model_fields[name].default)


def test_old_and_new_understand_each_other() -> None:
    """An older worker serves what a newer one has written: what it doesn't know it leaves aside. Nobody changes it."""
    for kind in WIRES:
        assert (kind.model_config.get("extra"), kind.model_config.get("frozen")) == ("ignore", True), kind
    for stub in STUBS:  # one typed object each, so that a field may be added without breaking a history
        assert issubclass(stub.takes, Wire)
