"""Tools: functions that the model may call, and what the engine must know to call them safely."""

import inspect
import re
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError

from perdure.approvals.declared import Approval
from perdure.canonical import Json, canonical
from perdure.context import ToolContext
from perdure.contracts import ToolSpec
from perdure.duration import Duration, seconds
from perdure.effects import EffectClass, arguments_digest
from perdure.errors import DefinitionError, InvalidInput
from perdure.onetime import one_time
from perdure.state import holds_secret

OnError = Literal["return", "rollback"]
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what OpenAI's protocol allows
_TIMEOUT = 60.0  # seconds
_BESIDE = 10.0  # seconds: a workflow task is kept open for it
MAX_OUTPUT = 16_384  # characters of a result that the model is shown; the rest is kept in the store


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool as the app knows it. Made by ``@tool``; still callable as the function it wraps."""

    name: str
    description: str
    function: Callable[..., Any]
    place: str
    arguments: type[BaseModel]
    parameters: tuple[str, ...]
    context_parameter: str | None
    returns: TypeAdapter[Any]
    spec: ToolSpec
    approval: Approval | None
    hidden: bool
    cache: float | None = None  # seconds for which a result answers the same call
    one_time: tuple[str, ...] = ()  # parameters that are tokens
    simulate: Callable[..., Any] | None = None  # answers in a dry run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def schema(self) -> dict[str, Json]:
        """The tool as the chat protocol announces it."""
        parameters = self.arguments.model_json_schema()
        parameters.pop("title", None)
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}

    def parse(self, arguments: str) -> BaseModel:
        """The model's text as validated arguments. Raises InvalidInput that the model can act on."""
        try:
            return self.arguments.model_validate_json(arguments or "{}")
        except ValidationError as error:
            reasons = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
            raise InvalidInput(
                f"Invalid arguments for {self.name}: {reasons}.", hint="Correct them and call again."
            ) from error

    def take(self, given: Mapping[str, Json]) -> BaseModel:
        """Arguments that a person gave, validated. Raises InvalidInput."""
        return self.parse(canonical(given).decode())

    def canonical_arguments(self, arguments: BaseModel) -> bytes:
        """Exactly what will run, as canonical JSON."""
        return canonical(arguments.model_dump(mode="json"))

    def digest(self, arguments: BaseModel) -> str:
        """What an approval of this call binds to."""
        return arguments_digest(self.name, self.canonical_arguments(arguments))

    def bind(self, context: ToolContext, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments for the function."""
        bound = dict(arguments)
        if self.context_parameter:
            bound[self.context_parameter] = context
        return bound

    def dump(self, result: Any) -> bytes:
        """The function's return value as canonical JSON. Raises InvalidInput if it can't be."""
        try:
            return canonical(self.returns.dump_python(result, mode="json", warnings="error"))
        except (ValueError, PydanticUserError, InvalidInput) as error:
            why = str(error).rstrip(".")
            raise InvalidInput(f"{self.name} returned what can't be stored as JSON: {why}.") from error


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *, effect: EffectClass = ..., compensate: str = ..., approval: Approval | None = ..., hidden: bool = ...,
    on_error: OnError = ..., timeout: Duration | None = ..., attempts: int | None = ..., deadline: Duration = ...,
    name: str = ..., cache: Duration | None = ..., reconcile: str = ..., saga: str = ...,
    undo_after: Sequence[str] | None = ..., simulate: Callable[..., Any] | None = ..., beside: bool = ...,
) -> Callable[[Callable[..., Any]], Tool]: ...  # fmt: skip


def tool(
    function: Callable[..., Any] | None = None, /, *, effect: EffectClass = "read", compensate: str = "",
    approval: Approval | None = None, hidden: bool = False, on_error: OnError = "return",
    timeout: Duration | None = None, attempts: int | None = None, deadline: Duration = "10m", name: str = "",
    cache: Duration | None = None,
    reconcile: str = "", saga: str = "", undo_after: Sequence[str] | None = None,
    simulate: Callable[..., Any] | None = None, beside: bool = False,
) -> Any:  # fmt: skip
    """Declare a function as a tool.

    Args:
        function: filled in by ``@tool`` without parentheses.
        effect: what a call does outside (DESIGN §7); it decides about retries and rollback.
        compensate: name of the tool that undoes a call; needed for ``compensable``. It receives ``receipt`` (what
            the call returned) and any of the call's own arguments, by name.
        approval: the gate before a call.
        hidden: the model never sees the tool (compensations).
        on_error: what a ``ToolError`` does: ``return`` tells the model, ``rollback`` ends the turn and undoes it.
        timeout: for one attempt: 60 seconds, or 10 beside the workflow.
        attempts: how often an unclear failure is tried; 3, or 1 for irreversible tools, or 5 for hidden ones.
        deadline: for all attempts together.
        name: the tool's name; the function's by default.
        cache: how long a result answers the same call of the thread and of its forks; for ``read`` only.
        reconcile: name of the tool that tells whether a call was done whose answer was lost. It receives any of the
            call's own arguments and returns an ``Outcome``; its context has the call's idempotency key.
        saga: what the call is undone with: by default its turn; ``"thread"``: all such calls of the thread; else those
            of this name. ``ctx.saga(name)`` says it in the call.
        undo_after: names of tools whose compensations come before this one's; it waits for no others and runs beside
            them. By default compensations run one after the other, in reverse order of completion.
        simulate: answers in a dry run where nothing is recorded: takes what the tool takes, and touches nothing.
        beside: runs beside the workflow, as a local activity: cheaper, for a read that takes a moment (a time-out of at
            most 10 seconds) and may be repeated where a worker dies. It takes no turn in a queue of its own.

    Raises DefinitionError that names the function.
    """

    def declare(function: Callable[..., Any]) -> Tool:
        if not inspect.isroutine(function):
            raise DefinitionError(f"{function!r} is no function and so no tool.")
        place = f"{function.__module__}.{function.__qualname__}"
        try:
            spec = ToolSpec(
                effect=effect, timeout=_timeout(timeout, beside), attempts=_attempts(effect, attempts, hidden),
                deadline=seconds(deadline), on_error=on_error, compensation=compensate, reconcile=reconcile, saga=saga,
                undo_after=None if undo_after is None else tuple(undo_after), beside=beside,
            )  # fmt: skip
            if beside and (effect != "read" or approval is not None or spec.timeout > _BESIDE):
                raise DefinitionError(
                    "`beside` is for tools that only read, that nobody approves, and that end within seconds.",
                    hint=f"Set a timeout of at most {_BESIDE:g}s.",
                )
            if (effect == "compensable") != bool(compensate):
                raise DefinitionError("`compensate` goes with effect='compensable', and only with it.")
            if cache is not None and effect != "read":
                raise DefinitionError("`cache` is for tools that only read: others would be skipped.")
            if effect == "read" and (reconcile or saga or undo_after is not None):
                raise DefinitionError("`reconcile`, `saga` and `undo_after` are for tools with an effect.")
            if approval is not None:
                approval.check()
            declared = _declared(
                function, place, spec, name=name or function.__name__, approval=approval, hidden=hidden
            )
            if simulate is not None:
                _check_simulation(declared, simulate)
            if effect == "read" and declared.one_time:
                raise DefinitionError("a token is spent by an effect, and this tool only reads.")
            return replace(declared, cache=None if cache is None else seconds(cache), simulate=simulate)
        except DefinitionError as error:
            raise DefinitionError(f"Tool {place}: {error.message}", hint=error.hint) from error

    return declare if function is None else declare(function)


def _timeout(timeout: Duration | None, beside: bool) -> float:
    if timeout is None:
        return _BESIDE if beside else _TIMEOUT
    return seconds(timeout)


def _attempts(effect: EffectClass, attempts: int | None, hidden: bool) -> int:
    if attempts is None:
        return 1 if effect == "irreversible" else 5 if hidden else 3
    if effect == "irreversible" and attempts != 1:
        raise DefinitionError("an irreversible tool is never retried.", hint="Leave `attempts` out.")
    if attempts < 1:
        raise DefinitionError("`attempts` must be at least 1.")
    return attempts


def _check_simulation(item: Tool, simulate: Callable[..., Any]) -> None:
    offered = {*item.parameters, *([item.context_parameter] if item.context_parameter else [])}
    if missing := inspect.signature(simulate).parameters.keys() - offered:
        raise DefinitionError(f"its simulation wants {', '.join(sorted(missing))}, which the tool doesn't take.")


def _declared(
    function: Callable[..., Any], place: str, spec: ToolSpec, *, name: str, approval: Approval | None, hidden: bool
) -> Tool:
    if not _NAME.fullmatch(name):
        raise DefinitionError(f"{name!r} is no name that a model can call.", hint="Use letters, digits, '-' and '_'.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError("it yields, and a tool returns.")
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise DefinitionError(f"an annotation can't be resolved: {error}.") from error
    documented = docstring_parser.parse(inspect.getdoc(function) or "")
    fields, context = _fields(function, hints, {p.arg_name: p.description or "" for p in documented.params})
    try:
        arguments = _arguments(name, fields)
        returns: TypeAdapter[Any] = TypeAdapter(hints.get("return", Any))
        returns.json_schema(mode="serialization")
    except (PydanticUserError, TypeError, ValueError, NameError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise DefinitionError(f"its signature can't be described as JSON: {why}.") from error
    if holds_secret(hints.get("return", Any)):
        raise DefinitionError("it returns a secret type, which would be stored as asterisks.")
    return Tool(
        name=name, description=_description(documented), function=function, place=place, arguments=arguments,
        parameters=tuple(fields), context_parameter=context, returns=returns, spec=spec, approval=approval,
        hidden=hidden, one_time=one_time({name: hint for name, hint in hints.items() if name in fields}),
    )  # fmt: skip


def _arguments(name: str, fields: dict[str, Any]) -> type[BaseModel]:
    """The model of a tool's arguments. Raises DefinitionError, and what pydantic raises."""
    config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a parameter may be called `json`, `copy` or `schema`
        model = create_model(f"{name}_arguments", __config__=config, **fields)
        model.model_json_schema()
    if lost := fields.keys() - model.model_fields.keys():
        raise DefinitionError(f"parameter {lost.pop()!r} needs another name: pydantic takes this one for itself.")
    return model


def _check_default(name: str, hint: Any, default: Any) -> None:
    """Raise DefinitionError for a default that isn't what the parameter takes."""
    try:
        adapter = TypeAdapter(hint)
        canonical(adapter.dump_python(adapter.validate_python(default), mode="json"))
    except PydanticUserError:
        return  # the type itself is wrong, which is found with the whole signature
    except (ValueError, InvalidInput) as error:
        raise DefinitionError(f"parameter {name!r} has the default {default!r}, which it doesn't take.") from error


def _fields(
    function: Callable[..., Any], hints: Mapping[str, Any], described: Mapping[str, str]
) -> tuple[dict[str, Any], str | None]:
    fields: dict[str, Any] = {}
    context: str | None = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise DefinitionError(f"parameter {parameter.name!r} must be an ordinary named one.")
        if parameter.name not in hints:
            raise DefinitionError(f"parameter {parameter.name!r} has no type.")
        hint = hints[parameter.name]
        if hint is ToolContext:
            if context is not None:
                raise DefinitionError(f"parameters {context!r} and {parameter.name!r} both take the context.")
            context = parameter.name
            continue
        if holds_secret(hint):
            raise DefinitionError(
                f"parameter {parameter.name!r} is a secret type, which would be stored as asterisks.",
                hint="Tools read secrets from the worker's environment; the model must not see them.",
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        if default is not ...:
            _check_default(parameter.name, hint, default)
        fields[parameter.name] = (hint, Field(default, description=described.get(parameter.name) or None))
    return fields, context


def _description(documented: docstring_parser.Docstring) -> str:
    return "\n\n".join(part for part in (documented.short_description, documented.long_description) if part)
