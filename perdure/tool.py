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

from perdure.approvals import ApprovalPolicy
from perdure.canonical import Json, canonical
from perdure.contracts import ToolSpec
from perdure.duration import Duration, seconds
from perdure.effects import EffectClass, arguments_digest
from perdure.errors import DefinitionError, InvalidInput
from perdure.state import State, holds_secret

OnError = Literal["return", "rollback"]
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what OpenAI's protocol allows
MAX_OUTPUT = 16_384  # characters of a result that the model is shown; the rest is kept in the store


class ToolContext:
    """What a tool is told about its call. Declare a parameter ``ctx: ToolContext`` to receive it."""

    def __init__(
        self, *, thread_id: str, turn: int, step: int, idempotency_key: str, attempt: int = 1,
        approved_by: tuple[str, ...] = (), state: Callable[[], State] = State,
    ) -> None:  # fmt: skip
        self.thread_id = thread_id
        self.turn = turn
        self.step = step
        self.idempotency_key = idempotency_key
        self.attempt = attempt
        self.approved_by = approved_by
        self.updates: dict[str, Any] = {}
        self._state = state

    @property
    def state(self) -> State:
        """The state before this step, as the agent's own class. Changing it changes nothing: use ``update``."""
        return self._state()

    def update(self, **channels: Any) -> None:
        """Write to channels of the state; merged by their reducers and committed together with the tool's result."""
        self.updates.update(channels)


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A gate before a call: people decide whether it runs.

    ``when`` looks at the validated arguments and tells whether this call needs approval (default: every call). It
    runs where the call is planned; if it fails, approval is needed. ``approvers`` empty means anyone. ``expires``
    is how long a request stays open.
    """

    when: Callable[[Any], bool] | None = None
    approvers: Sequence[str] = ()
    quorum: int = 1
    expires: Duration = "24h"
    reason: str = ""

    def policy(self) -> ApprovalPolicy:
        """The part that is data. Raises DefinitionError for a quorum that can't be reached."""
        if isinstance(self.approvers, str):
            raise DefinitionError("`approvers` is a list.", hint=f"Write approvers=[{self.approvers!r}].")
        if self.quorum < 1 or (self.approvers and self.quorum > len(set(self.approvers))):
            raise DefinitionError(
                f"A quorum of {self.quorum} can't be reached by {len(set(self.approvers))} approvers."
            )
        return ApprovalPolicy(
            approvers=tuple(self.approvers), quorum=self.quorum, expires=seconds(self.expires), reason=self.reason
        )

    def required(self, arguments: BaseModel) -> str | None:
        """Why this call needs approval, or None."""
        if self.when is None:
            return self.reason or "every call of this tool needs approval"
        try:
            needed = self.when(arguments)
        except Exception as error:  # the author's code: whatever it raises, the safe answer is to ask a person
            return f"the approval condition failed ({type(error).__name__}: {error})"
        return (self.reason or "the arguments match the approval condition") if needed else None


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
    policy: ApprovalPolicy | None
    hidden: bool
    cache: float | None = None  # seconds for which a result answers the same call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function; others run in a thread."""
        return inspect.iscoroutinefunction(self.function)

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
    on_error: OnError = ..., timeout: Duration = ..., attempts: int | None = ..., deadline: Duration = ...,
    name: str = ..., cache: Duration | None = ...,
) -> Callable[[Callable[..., Any]], Tool]: ...  # fmt: skip


def tool(
    function: Callable[..., Any] | None = None, /, *, effect: EffectClass = "read", compensate: str = "",
    approval: Approval | None = None, hidden: bool = False, on_error: OnError = "return", timeout: Duration = "60s",
    attempts: int | None = None, deadline: Duration = "10m", name: str = "", cache: Duration | None = None,
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
        timeout: for one attempt.
        attempts: how often an unclear failure is tried; 3, or 1 for irreversible tools.
        deadline: for all attempts together.
        name: the tool's name; the function's by default.
        cache: how long a result answers the same call of the thread and of its forks; for ``read`` only.

    Raises DefinitionError that names the function.
    """

    def declare(function: Callable[..., Any]) -> Tool:
        if not inspect.isroutine(function):
            raise DefinitionError(f"{function!r} is no function and so no tool.")
        place = f"{function.__module__}.{function.__qualname__}"
        try:
            spec = ToolSpec(
                effect=effect, timeout=seconds(timeout), attempts=_attempts(effect, attempts),
                deadline=seconds(deadline), on_error=on_error, compensation=compensate,
            )  # fmt: skip
            if (effect == "compensable") != bool(compensate):
                raise DefinitionError("`compensate` goes with effect='compensable', and only with it.")
            if cache is not None and effect != "read":
                raise DefinitionError("`cache` is for tools that only read: others would be skipped.")
            declared = _declared(
                function, place, spec, name=name or function.__name__, approval=approval, hidden=hidden
            )
            return replace(declared, cache=None if cache is None else seconds(cache))
        except DefinitionError as error:
            raise DefinitionError(f"Tool {place}: {error.message}", hint=error.hint) from error

    return declare if function is None else declare(function)


def _attempts(effect: EffectClass, attempts: int | None) -> int:
    if attempts is None:
        return 1 if effect == "irreversible" else 3
    if effect == "irreversible" and attempts != 1:
        raise DefinitionError("an irreversible tool is never retried.", hint="Leave `attempts` out.")
    if attempts < 1:
        raise DefinitionError("`attempts` must be at least 1.")
    return attempts


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
        policy=approval.policy() if approval else None, hidden=hidden,
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


def call_summary(name: str, arguments: Mapping[str, Any], limit: int = 120) -> str:
    """A call on one line, for people: ``charge_card(amount=250.0, card="…")``."""
    inner = ", ".join(f"{key}={canonical(value).decode()}" for key, value in arguments.items())
    text = f"{name}({inner})"
    return text if len(text) <= limit else text[: limit - 2] + "…)"
