"""The worker: serves threads with an app, on a store, through a Temporal client."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from openai import AsyncOpenAI
from pydantic import ValidationError
from temporalio.client import Client
from temporalio.worker import Interceptor, UnsandboxedWorkflowRunner, Worker

from perdure import __version__
from perdure.activities.decisions import DecisionActivities
from perdure.activities.effects import EffectActivities
from perdure.activities.guard import ActivityGuard
from perdure.activities.journal import JournalActivities
from perdure.activities.merges import MergeActivities
from perdure.activities.model import ModelActivities
from perdure.activities.nodes import NodeActivities
from perdure.activities.promotion import PromotionActivities
from perdure.activities.runtime import Runtime
from perdure.activities.tools import ToolActivities
from perdure.activities.travel import TravelActivities
from perdure.activities.turns import TurnActivities
from perdure.app import App
from perdure.errors import KeyMissing, PerdureError
from perdure.security.keyring import Keyring
from perdure.security.webhook import Webhook
from perdure.settings import Settings
from perdure.state import needs_keys
from perdure.stores.base import Store
from perdure.workers.executor import InLoop
from perdure.workflows.looking import DrawnWhenLookedAt
from perdure.workflows.thread import AgentThread


def build_worker(
    client: Client, *, app: App, store: Store, settings: Settings, model: AsyncOpenAI | None = None,
    interceptors: Sequence[Interceptor] = (),
) -> Worker:  # fmt: skip
    """A worker that is ready to run (``async with`` it, or ``await worker.run()``).

    The workflow holds nobody's code but ours, so it runs outside the sandbox: three times as many thread starts a
    second. The tests replay every recorded history inside it.

    Raises KeyMissing where the app has a state with Sensitive channels and the settings have no keys; UsageError and
    InvalidInput for keys of approvers, or a webhook, that can't be right.
    """
    runtime = Runtime(
        app=app, store=store, limits=settings.limits(), model=model, keyring=_keyring(app, settings),
        approver_keys=settings.approvers(), cached=settings.max_cached_workflows,
    )  # fmt: skip
    return Worker(
        client,
        task_queue=settings.task_queue,
        workflows=[AgentThread],
        activities=_activities(runtime, settings.hook()),
        workflow_runner=UnsandboxedWorkflowRunner(),
        workflow_task_executor=InLoop(),
        # It stands in several events of every step. Left alone, the SDK hashes the code of every module that is loaded,
        # which takes a second at each start; what runs the workflow is this package alone.
        build_id=f"perdure-{__version__}",
        interceptors=[ActivityGuard(), DrawnWhenLookedAt(), *interceptors],
        # What the workflow itself finds wrong must end the thread with its reason, not retry its task for ever.
        workflow_failure_exception_types=[ValidationError, PerdureError],
        max_cached_workflows=settings.max_cached_workflows,
        max_concurrent_activities=settings.max_concurrent_activities,
        # Left alone, the SDK sends a heartbeat when 80 % of its time is over: one busy moment then costs an attempt.
        max_heartbeat_throttle_interval=timedelta(seconds=settings.heartbeat / 4),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=settings.sticky),
        graceful_shutdown_timeout=timedelta(seconds=settings.shutdown),
    )


def _keyring(app: App, settings: Settings) -> Keyring | None:
    keyring = settings.keyring()
    sensitive = [name for name, graph in app.graphs.items() if needs_keys(graph.state)]
    if sensitive and keyring is None:
        raise KeyMissing(
            f"{', '.join(sensitive)}: the state has Sensitive channels, and there are no keys.",
            hint="Set PERDURE_KEYS; `perdure db keys new` makes a key.",
        )
    return keyring


def _activities(runtime: Runtime, webhook: Webhook | None) -> list[Callable[..., Any]]:
    effects, nodes = EffectActivities(runtime), NodeActivities(runtime)
    turns, travel, journal = TurnActivities(runtime), TravelActivities(runtime), JournalActivities(runtime, webhook)
    return [
        turns.look_up, turns.open_turn, turns.resume_turn, turns.keep_lease, turns.close_thread,
        travel.fork_thread, travel.write_state, travel.plan_rewind, travel.rewind_head,
        ModelActivities(runtime).call_model,
        PromotionActivities(runtime).promote_fork,
        DecisionActivities(runtime).check_decision,
        journal.append_audit, journal.notify,
        MergeActivities(runtime).merge_step,
        nodes.ask, nodes.take_answer,
        effects.inspect_effect, effects.load_saga, effects.settle_effect,
        ToolActivities(runtime, effects, nodes).run,
    ]  # fmt: skip
