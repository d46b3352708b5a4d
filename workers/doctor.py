"""`perdure doctor`: is everything there that threads need? Each finding says how to mend it."""

import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

import openai
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, GetSystemInfoRequest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from perdure.activities.journal import deliver
from perdure.app import load_app
from perdure.approvals import stamp
from perdure.errors import Caution, Failed, PerdureError, Unreachable
from perdure.settings import Settings
from perdure.values import Value
from perdure.workers.connect import connect
from perdure.workers.embedded import temporal_executable
from perdure.workers.model import ADDRESS, KEY, model_client
from perdure.workers.process import opened
from perdure.workers.readiness import require_namespace, require_schema, require_search_attributes, unanswered

_PYTHON = (3, 11)
_MODEL = 5.0  # seconds for the model's list of models
_POLLED = 75.0  # seconds; a poll lasts up to a minute, and Temporal names pollers for five
_KINDS = (TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)

Outcome = Literal["ok", "warning", "problem"]


class Check(Value):
    """One finding: about what, how it is, and what to do. ``code``: the exit code it calls for."""

    name: str
    outcome: Outcome
    found: str
    mend: str = ""
    code: int = 0


async def examine(settings: Settings, *, address: str = "", namespace: str = "", profile: str = "") -> list[Check]:
    """All checks, in the order in which one would mend things. Nothing is changed, and nothing is raised.

    The webhook is sent a ``ping``.
    """
    checks = [await _check("Python", _python), await _check("Temporal executable", lambda: _executable(settings))]
    checks += await _temporal(settings, address=address, namespace=namespace, profile=profile)
    checks += await _stored(settings)
    if settings.app:
        checks.append(await _check("App", lambda: _app(settings.app)))
    checks.append(await _check("Approvals", lambda: _approvals(settings)))
    if settings.webhook:
        checks.append(await _check("Webhook", lambda: _webhook(settings)))
    return [*checks, await _check("Model", _model)]


def exit_code(checks: Sequence[Check]) -> int:
    """0 without a problem; 6 where Temporal or the store is out of reach, else 1."""
    return max((check.code for check in checks if check.outcome == "problem"), default=0)


async def _check(name: str, look: Callable[[], Awaitable[str]]) -> Check:
    try:
        return Check(name=name, outcome="ok", found=await look())
    except Caution as caution:
        return Check(name=name, outcome="warning", found=caution.message, mend=caution.hint)
    except PerdureError as error:
        code = error.exit_code if isinstance(error, Unreachable) else Failed.exit_code
        return Check(name=name, outcome="problem", found=error.message, mend=error.hint, code=code)


async def _python() -> str:
    if sys.version_info < _PYTHON:  # an installer that was told to ignore the requirement
        raise Failed(f"Python {platform.python_version()} is too old.", hint="Perdure needs 3.11 or newer.")
    return f"{platform.python_version()}, {sys.executable}"


async def _executable(settings: Settings) -> str:
    try:
        path = temporal_executable(settings)
    except Unreachable as error:
        raise Caution(error.message, hint=f"Only `perdure dev` and the demo need it. {error.hint}") from error
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout  # noqa: ASYNC221 - nothing else runs meanwhile
    except (OSError, subprocess.SubprocessError) as error:
        raise Caution(f"{path} does not run: {error}.", hint="Only `perdure dev` and the demo need it.") from error
    return said.strip()


async def _temporal(settings: Settings, *, address: str, namespace: str, profile: str) -> list[Check]:
    found: list[Client] = []

    async def server() -> str:
        client = await connect(address=address, namespace=namespace, profile=profile, attempts=1)
        found.append(client)
        return f"{client.service_client.config.target_host}, version {await _version(client)}"

    checks = [await _check("Temporal server", server)]
    if found:
        (client,) = found
        checks += [
            await _check("Namespace", lambda: _namespace(client)),
            await _check("Search attributes", lambda: _search_attributes(client)),
            await _check("Worker", lambda: _pollers(client, settings.task_queue)),
        ]
    return checks


async def _version(client: Client) -> str:
    try:
        return (await client.workflow_service.get_system_info(GetSystemInfoRequest())).server_version or "unknown"
    except RPCError as error:
        raise unanswered(error) from error


async def _namespace(client: Client) -> str:
    await require_namespace(client)
    return client.namespace


async def _search_attributes(client: Client) -> str:
    await require_search_attributes(client)
    return "registered"


async def _pollers(client: Client, queue: str) -> str:
    """Whether workers ask for tasks of both kinds: a queue whose worker is gone names it for minutes."""
    identities: list[set[str]] = []
    for kind in _KINDS:
        request = DescribeTaskQueueRequest(
            namespace=client.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind
        )
        try:
            pollers = (await client.workflow_service.describe_task_queue(request)).pollers
        except RPCError as error:
            raise unanswered(error) from error
        recent = (poller for poller in pollers if time.time() - poller.last_access_time.seconds < _POLLED)
        identities.append({poller.identity for poller in recent})
    workers = set.intersection(*identities)
    if not workers:
        raise Caution(f"No worker serves the task queue {queue}.", hint="`perdure worker` or `perdure dev` starts one.")
    return f"task queue {queue}: {', '.join(sorted(workers))}"


async def _stored(settings: Settings) -> list[Check]:
    """The store; and where that is well, what its configuration can lose."""
    store = await _check("Store", lambda: _store(settings))
    return [store] if store.outcome == "problem" else [store, await _check("Durability", lambda: _durability(settings))]


async def _store(settings: Settings) -> str:
    async with opened(settings) as store:
        await require_schema(store)
        await store.delete_thread(f"doctor-{uuid4()}")  # nobody has that name: this only tells whether one may write
        rows = (await store.sizes())["rows"]
    return f"{store.url}, {rows.get('threads', 0)} threads, {rows.get('checkpoints', 0)} checkpoints"


async def _durability(settings: Settings) -> str:
    async with opened(settings) as store:
        cautions = await store.cautions()
    if cautions:
        raise Caution(" ".join(cautions), hint="docs/stores.md says which settings are safe.")
    return "a commit is safe once it returns"


async def _app(target: str) -> str:
    app = load_app(target)
    return f"{target} with {', '.join(app.graphs) or 'no agent'}; tools: {len(app.tools)}"


async def _approvals(settings: Settings) -> str:
    keys = settings.approvers()
    if keys is None:
        raise Caution(
            "Decisions are not signed: whoever reaches Temporal can approve, in anybody's name.",
            hint="Set PERDURE_APPROVER_KEYS; docs/security.md says how.",
        )
    names = keys.fingerprints()
    if not names:
        raise Caution("No approver has a key, so nobody can approve.", hint="`perdure keys new NAME` makes a pair.")
    return f"only signed decisions count; keys of {', '.join(names)}"


async def _webhook(settings: Settings) -> str:
    webhook = settings.hook()
    assert webhook is not None, "it is only looked at where it is set"
    ping = {"event": "ping", "delivery": str(uuid4()), "at": stamp(datetime.now(UTC)), "body": {}}
    try:
        await deliver(webhook, {**ping, "thread": "", "agent": "", "tenant": ""})
    except ApplicationError as error:
        raise Caution(error.message, hint="Deliveries are tried again for a day.") from error
    return f"{webhook.host} takes what we sign"


async def _model() -> str:
    client = model_client()
    if client is None:
        raise Caution("No model is configured.", hint=f"Set {KEY}, or {ADDRESS} for a server of your own.")
    async with client.with_options(timeout=_MODEL) as asked:
        try:
            models = [model.id async for model in asked.models.list()]
        except openai.APIStatusError as error:
            raise Caution(
                f"{asked.base_url} answers {error.status_code}.", hint=f"Check {KEY} and {ADDRESS}."
            ) from error
        except openai.OpenAIError as error:
            raise Caution(f"{asked.base_url} does not answer: {error}", hint=f"Check {ADDRESS}.") from error
    return f"{asked.base_url}, {len(models)} models"
