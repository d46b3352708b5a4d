"""Webhooks: what a receiver can rely on, what is tried again and what isn't, and what a thread tells."""

import asyncio
import hashlib
import hmac
import json
import re
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from perdure import Agent, App, Message, Sensitive, State
from perdure import messages as by_id
from perdure.activities.journal import JournalActivities
from perdure.activities.runtime import Runtime
from perdure.audit import AuditEntry
from perdure.contracts import Notify
from perdure.errors import Failed, Refused, UsageError
from perdure.examples.webhook.receiver import Receiver, line
from perdure.security.webhook import Webhook, signed_headers, verify
from perdure.settings import Settings
from perdure.stores import open_store
from perdure.testing import LocalServer
from perdure.workers.doctor import examine
from tests.programs import plain_environment
from tests.properties import thorough

SECRET, OTHER = "s" * 32, "o" * 32
NOW = 1_767_225_600
AT = "2026-01-01T00:00:00.000+00:00"


class Diary(State):
    """A conversation that is nobody's business."""

    messages: Annotated[list[Message], by_id, Sensitive] = []


app = App(agents=[Agent(name="clerk", model="m"), Agent(name="doctor", model="m", state=Diary)])


# ── a signature ──────────────────────────────────────────────────────────────────────────────────────────────────


@thorough
@given(st.binary(max_size=60), st.integers(0, 2**33), st.data())
def test_a_delivery_is_what_was_signed_or_is_refused(body: bytes, at: int, data: st.DataObject) -> None:
    """With any byte of the body changed, another time, or any digit of the signature changed, it is refused."""
    headers = signed_headers([SECRET], body, "request.opened", "d1", at)
    verify(SECRET, headers, body, now=at)
    place = data.draw(st.integers(0, len(body)))
    other = body[:place] + data.draw(st.binary(min_size=1, max_size=3)) + body[place + 1 :]
    if other != body:
        with pytest.raises(Refused, match="another secret, or changed"):
            verify(SECRET, headers, other, now=at)
    signature = headers["Perdure-Signature"]
    digit = data.draw(st.integers(signature.index("v1=") + 3, len(signature) - 1))
    flipped = signature[:digit] + ("0" if signature[digit] != "0" else "1") + signature[digit + 1 :]
    later = signature.replace(f"t={at}", f"t={at + 1}")
    for changed in (flipped, later):
        with pytest.raises(Refused, match="another secret, or changed"):
            verify(SECRET, {"Perdure-Signature": changed}, body, now=at)


def test_the_recipe_of_the_page_makes_the_same_signature() -> None:
    """Plain HMAC-SHA256 over the time, a full stop and the body, as any language has it."""
    headers = signed_headers([SECRET], b'{"a": 1}', "ping", "d1", NOW + 0.9)
    by_hand = hmac.new(SECRET.encode(), f"{NOW}.".encode() + b'{"a": 1}', hashlib.sha256).hexdigest()
    assert headers == {"Perdure-Signature": f"t={NOW},v1={by_hand}", "Perdure-Event": "ping", "Perdure-Delivery": "d1"}


def test_a_secret_is_changed_without_losing_a_delivery() -> None:
    """While there are two, the receiver may have either, or both; a third never counts, and no secret is none."""
    both = signed_headers([OTHER, SECRET], b"{}", "ping", "d1", NOW)
    accepted: list[str | Sequence[str]] = [SECRET, OTHER, [SECRET, OTHER], ("x" * 32, OTHER)]
    for secrets in accepted:
        verify(secrets, both, b"{}", now=NOW)
    refused: list[str | Sequence[str]] = ["x" * 32, "", [], [""]]
    for secrets in refused:
        with pytest.raises(Refused, match="another secret"):
            verify(secrets, signed_headers([OTHER, SECRET], b"{}", "ping", "d1", NOW), b"{}", now=NOW)
    with pytest.raises(Refused, match="another secret"):  # signed with nothing, by somebody who hopes we have nothing
        verify([""], signed_headers([""], b"{}", "ping", "d1", NOW), b"{}", now=NOW)


@pytest.mark.parametrize("away", [-300, -299, 0, 299, 300, -301, 301, 10**6])
def test_a_copy_of_an_old_delivery_is_refused(away: int) -> None:
    """Five minutes either way, for clocks and the way; or what the receiver allows."""
    headers = signed_headers([SECRET], b"{}", "ping", "d1", NOW)
    if abs(away) <= 300:
        verify(SECRET, headers, b"{}", now=NOW + away)
    else:
        with pytest.raises(Refused, match=r"signed \d+ seconds from now"):
            verify(SECRET, headers, b"{}", now=NOW + away)
    verify(SECRET, headers, b"{}", now=NOW + away, tolerance=abs(away))


good = signed_headers([SECRET], b"{}", "ping", "d1", NOW)["Perdure-Signature"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (None, "not signed"),
        ("", "can't be read"),
        ("t=now,v1=" + "a" * 64, "can't be read"),
        (good.partition(",")[0], "can't be read"),
        (good + ",", "can't be read"),
        (good.upper(), "can't be read"),
        (good + "\n", "can't be read"),
        (good + 100 * (",v1=" + "a" * 64), "can't be read"),
        (f"t={'9' * 5_000},v1=" + "a" * 64, "can't be read"),
        (good.replace("t=1", "t=\u0661"), "can't be read"),
    ],
)
def test_a_signature_that_is_none_is_refused(given: str | None, why: str) -> None:
    """The reason is told, and nothing else is raised whatever a stranger sends."""
    with pytest.raises(Refused, match=why):
        verify(SECRET, {} if given is None else {"Perdure-Signature": given}, b"{}", now=NOW)
    verify(SECRET, {"PERDURE-SIGNATURE": good}, b"{}", now=NOW)  # names of headers are what proxies make of them


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "secret", "why"),
    [
        ("https://example.org", "", "has no secret"),
        ("https://example.org", " , ", "has no secret"),
        ("https://example.org", f"{SECRET},short", "less than 16"),
        ("ftp://example.org", SECRET, "no address"),
        ("example.org", SECRET, "no address"),
        ("https://", SECRET, "no address"),
        ("https://example.org:port", SECRET, "no address"),
        ("https://exam ple.org", SECRET, "no address"),
        ("file:///etc/passwd", SECRET, "no address"),
    ],
)
def test_a_webhook_that_can_not_be_right_is_refused(
    url: str, secret: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is sent; and no secret is quoted."""
    monkeypatch.setenv("PERDURE_WEBHOOK", url)
    monkeypatch.setenv("PERDURE_WEBHOOK_SECRET", secret)
    settings = Settings()
    with pytest.raises(UsageError, match=why) as refused:
        settings.hook()
    assert not {SECRET, "short"} & set(re.split(r"\W", f"{refused.value!r} {refused.value} {settings!r}"))


def test_the_first_secret_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a webhook nothing is told; with one, its password and its secrets are not printed."""
    assert (Settings().hook(), Settings().limits().notify) == (None, False)
    monkeypatch.setenv("PERDURE_WEBHOOK", "https://me:pass@example.org:8443/x")
    monkeypatch.setenv("PERDURE_WEBHOOK_SECRET", f"{OTHER}, {SECRET}")
    hook = Settings().hook()
    assert hook is not None
    assert (hook.secrets, hook.host, Settings().limits().notify) == ((OTHER, SECRET), "example.org:8443", True)
    assert not {"pass", OTHER, SECRET} & set(re.split(r"\W", repr(hook)))


# ── deliveries ───────────────────────────────────────────────────────────────────────────────────────────────────


class Listening:
    """A receiver that keeps what it told, and answers first as it is told."""

    def __init__(self, *, secrets: Sequence[str] = (SECRET,), first: Sequence[Response] = (), port: int = 0) -> None:
        self.told: list[str] = []
        self.news: list[dict[str, Any]] = []
        self.requests = 0
        self._first = list(first)
        self._receiver = Receiver(secrets, self.told.append)
        self.server = LocalServer(Starlette(routes=[Route("/{path:path}", self._receive, methods=["POST"])]), port=port)

    async def _receive(self, request: Request) -> Response:
        self.requests += 1
        if self._first:
            return self._first.pop(0)
        told = len(self.told)
        answer = await self._receiver.receive(request)
        if len(self.told) > told:
            self.news.append(json.loads(await request.body()))
        return answer

    async def __aenter__(self) -> "Listening":
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()

    @property
    def hook(self) -> Webhook:
        """Where it listens, with the secret."""
        return Webhook(url=f"{self.server.url}/in", secrets=(SECRET,))


async def notify(tmp_path: Path, hook: Webhook | None, *, agent: str = "clerk", delivery: str = "d1") -> bool:
    """Run the activity once, as a worker does, against a store of its own."""
    body = {"summary": "pay(…)", "request": "a1", "approvers": ["ann"], "arguments": {"card": "4711"}, "changes": {}}
    entry = AuditEntry(id=delivery, at=AT, kind="request.opened", body=body)
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    try:
        runtime = Runtime(app=app, store=store, limits=Settings().limits())
        task = Notify(thread_id="order-17", agent=agent, tenant="acme", entry=entry)
        return await ActivityEnvironment().run(JournalActivities(runtime, hook).notify, task)
    finally:
        await store.close()


async def test_news_arrives_signed(tmp_path: Path) -> None:
    """What a receiver gets: who, what, when, and the id by which it knows the delivery again."""
    async with Listening() as there:
        assert await notify(tmp_path, there.hook)
        assert there.news == [
            {
                "event": "request.opened", "delivery": "d1", "thread": "order-17", "agent": "clerk", "tenant": "acme",
                "at": AT,
                "body": {
                    "summary": "pay(…)", "request": "a1", "approvers": ["ann"], "arguments": {"card": "4711"},
                    "changes": {},
                },
            }
        ]  # fmt: skip
        assert there.told == [f"{AT} request.opened order-17 pay(…) waits for ann: perdure approve order-17 a1"]
    assert await notify(tmp_path, None) is False


async def test_it_is_told_once_though_it_is_sent_twice(tmp_path: Path) -> None:
    """An answer may be lost; the receiver knows the delivery by its id. Another one is told."""
    async with Listening() as there:
        for delivery in ("d1", "d1", "d2", "d1"):
            assert await notify(tmp_path, there.hook, delivery=delivery)
        assert (there.requests, [news["delivery"] for news in there.news]) == (4, ["d1", "d2"])


async def test_a_receiver_with_another_secret_hears_nothing(tmp_path: Path) -> None:
    """It refuses, that is final, and the reason is not guessed from the secret."""
    async with Listening(secrets=[OTHER]) as there:
        with pytest.raises(Failed, match="answers 401"):
            await notify(tmp_path, there.hook)
        assert (there.requests, there.told) == (1, [])


@pytest.mark.parametrize("agent", ["doctor", "gone"])
async def test_what_is_sensitive_stays_at_home(tmp_path: Path, agent: str) -> None:
    """Arguments of an agent whose conversation is Sensitive, or that this worker doesn't know, are not sent."""
    async with Listening() as there:
        assert await notify(tmp_path, there.hook, agent=agent)
        assert there.news[0]["body"] == {"summary": "pay(…)", "request": "a1", "approvers": ["ann"]}


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
async def test_what_may_pass_is_tried_again(tmp_path: Path, status: int) -> None:
    """After as long as the receiver asks for, within reason; a date, or nonsense, is left to Temporal's back-off."""
    waits = {
        "7": 7.0,
        "0.5": 0.5,
        "-3": 0.0,
        "1e9": 3600.0,
        "nan": None,
        "Wed, 21 Oct 2026 07:28:00 GMT": None,
        "": None,
    }
    answers = [Response(status_code=status, headers={"Retry-After": after} if after else {}) for after in waits]
    async with Listening(first=answers) as there:
        for after, wait in waits.items():
            with pytest.raises(ApplicationError, match=f"answers {status}") as failed:
                await notify(tmp_path, there.hook)
            delay = failed.value.next_retry_delay
            seconds = None if delay is None else delay.total_seconds()
            assert (after, seconds, failed.value.non_retryable) == (after, wait, False)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 410, 413, 422])
async def test_what_will_not_pass_is_final(tmp_path: Path, status: int) -> None:
    """Also a redirect: nothing is posted to wherever it leads."""
    async with Listening() as elsewhere:
        answer = Response(status_code=status, headers={"Location": elsewhere.server.url})
        async with Listening(first=[answer]) as there:
            with pytest.raises(Failed, match=f"answers {status}"):
                await notify(tmp_path, there.hook)
            assert (there.requests, elsewhere.requests) == (1, 0)


async def test_a_receiver_that_is_down_is_tried_again(tmp_path: Path) -> None:
    """The failure says so, and where it was looked for; once it is up the news arrives."""
    async with Listening() as there:
        hook = there.hook
    with pytest.raises(ApplicationError, match=rf"{hook.host} does not answer") as failed:
        await notify(tmp_path, hook)
    assert (failed.value.type, failed.value.non_retryable) == ("Unreachable", False)
    async with Listening(port=int(hook.url.split(":")[2].split("/")[0])) as there:
        assert await notify(tmp_path, hook)
        assert len(there.news) == 1


async def test_doctor_says_whether_the_webhook_answers(tmp_path: Path) -> None:
    """A signed ping: taken, refused, and nobody there."""

    async def found(url: str, secret: str = SECRET) -> tuple[str, str]:
        settings = Settings(home=tmp_path, webhook=url, webhook_secret=secret)  # type: ignore[arg-type]
        checks = await examine(settings, address="127.0.0.1:1")
        return next((check.outcome, check.found) for check in checks if check.name == "Webhook")

    async with Listening() as there:
        host = there.hook.host
        assert await found(there.hook.url) == ("ok", f"{host} takes what we sign")
        assert [(news["event"], news["body"]) for news in there.news] == [("ping", {})]
        assert await found(there.hook.url, OTHER) == ("problem", f"The webhook at {host} answers 401.")
    assert (await found(there.hook.url))[0] == "warning"
    assert (await found("nowhere"))[1] == "PERDURE_WEBHOOK is no address."


# ── the example ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_example_runs_as_its_page_says() -> None:
    """A process that takes deliveries, refuses what isn't signed, and prints one line an event."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "perdure.examples.webhook.receiver", "--port", "0",
        env=plain_environment({"PERDURE_WEBHOOK_SECRET": SECRET}), stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        url = ""
        async with asyncio.timeout(20):
            while not url:
                said = re.search(r"http://127\.0\.0\.1:\d+", (await process.stderr.readline()).decode())
                url = said[0] if said else ""
        news = {
            "event": "request.closed",
            "delivery": "d1",
            "thread": "t1",
            "at": AT,
            "body": {"summary": "a\nb\x1b[2J"},
        }
        body = json.dumps(news).encode()
        headers = signed_headers([SECRET], body, "request.closed", "d1", time.time())
        async with httpx2.AsyncClient() as client:
            assert (await client.post(url, content=body)).status_code == 401
            assert (await client.post(url, content=body + b" ", headers=headers)).status_code == 401
            assert (await client.post(url, content=b"x" * 2_000_000, headers=headers)).status_code == 413
            assert [(await client.post(url, content=body, headers=headers)).json() for _ in "12"] == [
                {"known": False}, {"known": True}
            ]  # fmt: skip
        process.terminate()
        out, _ = await process.communicate()
        assert out.decode() == f"{AT} request.closed t1 a b [2J:\n"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_a_line_is_one_whatever_a_model_wrote() -> None:
    """Templates in what is told stay text, and an event that it doesn't know is told by its name."""
    base = {"thread": "t1", "at": AT}
    said = {"event": "request.opened", "body": {"summary": "{thread.__class__}", "request": "a1"}}
    assert line({**base, **said}) == (
        f"{AT} request.opened t1 {{thread.__class__}} waits for anyone: perdure approve t1 a1"
    )
    assert line({**base, "event": "ping", "body": {}}) == f"{AT} ping t1"
