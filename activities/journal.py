"""What is written down and told: the lines of a thread's audit, and news for the webhook."""

import asyncio
import json
import math
import time
from collections.abc import Mapping

import httpx2
from temporalio import activity

from perdure.activities.decisions import hides_arguments
from perdure.activities.runtime import Runtime
from perdure.audit import AuditHead
from perdure.canonical import Json
from perdure.contracts import APPEND_AUDIT, NOTIFY, AppendAudit, Notify
from perdure.errors import Failed, Unreachable
from perdure.failures import to_failure
from perdure.security.webhook import Webhook, signed_headers

_PATIENCE = 10.0  # seconds for one delivery
_RETRIED = frozenset({408, 425, 429})
_LONGEST_WAIT = 3600.0  # seconds; a receiver may not put us off until people no longer care
_TOLD_APART = ("arguments", "changes")  # of the body: left out where the conversation is sensitive


class JournalActivities:
    """Writes lines to the store, and posts news."""

    def __init__(self, runtime: Runtime, webhook: Webhook | None = None) -> None:
        self._runtime = runtime
        self._webhook = webhook

    @activity.defn(name=APPEND_AUDIT.name)
    async def append_audit(self, task: AppendAudit) -> AuditHead:
        """Append lines; those that are there already are left out."""
        return await self._runtime.store.append_audit(task.thread_id, task.entries)

    @activity.defn(name=NOTIFY.name)
    async def notify(self, task: Notify) -> bool:
        """Post one piece of news; False where this worker has no webhook.

        Raises what ``deliver`` raises.
        """
        if self._webhook is None:
            return False
        entry = task.entry
        left_out = _TOLD_APART if hides_arguments(self._runtime.app, task.agent) else ()
        news: dict[str, Json] = {
            "event": entry.kind, "delivery": entry.id, "thread": task.thread_id, "agent": task.agent,
            "tenant": task.tenant, "at": entry.at,
            "body": {name: value for name, value in entry.body.items() if name not in left_out},
        }  # fmt: skip
        await deliver(self._webhook, news)
        return True


async def deliver(webhook: Webhook, news: Mapping[str, Json]) -> None:
    """Post a signed delivery. ``news`` has ``event`` and ``delivery``.

    Raises a retryable ApplicationError where nobody answers, for 408, 425, 429 (after Retry-After, where it is given)
    and 5xx; and Failed for every other answer but 2xx, since the same again would be answered the same.
    """
    body = json.dumps(news, ensure_ascii=False).encode()
    headers = signed_headers(webhook.secrets, body, str(news["event"]), str(news["delivery"]), time.time())
    try:
        async with asyncio.timeout(_PATIENCE), httpx2.AsyncClient(timeout=_PATIENCE) as client:
            request = client.stream(
                "POST", webhook.url, content=body, headers={"Content-Type": "application/json", **headers}
            )
            async with request as answer:  # what it says besides its status is not read: it could be endless
                status, after = answer.status_code, answer.headers.get("retry-after", "")
    except (httpx2.HTTPError, OSError) as error:  # TimeoutError is an OSError
        why = str(error).rstrip(".") or type(error).__name__
        raise to_failure(Unreachable(f"The webhook at {webhook.host} does not answer: {why}.")) from error
    if 200 <= status < 300:
        return
    said = f"The webhook at {webhook.host} answers {status}."
    if status in _RETRIED or status >= 500:
        raise to_failure(Unreachable(said), delay=_wait(after))
    raise Failed(said, hint="Redirects are not followed." if 300 <= status < 400 else "")


def _wait(after: str) -> float | None:
    """Seconds, as Retry-After has them; a date is left to Temporal's own back-off."""
    try:
        wait = float(after)
    except ValueError:
        return None
    return min(max(wait, 0.0), _LONGEST_WAIT) if math.isfinite(wait) else None
