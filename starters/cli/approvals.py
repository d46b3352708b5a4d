"""perdure approvals, approve, reject."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from perdure.approvals import ApprovalRequest, Verdict
from perdure.contracts import ApprovalsAnswer
from perdure.errors import DecisionRefused, PerdureError, Refused, TemporalUnreachable
from perdure.questions import Question
from perdure.starters.cli import render
from perdure.starters.cli.command import Session, Thread, command
from perdure.values import Value

if TYPE_CHECKING:
    from perdure.starters.client import Client

_AT_ONCE = 20  # threads asked at the same time; each is a query that a worker answers
_MOST = 1_000
_PATIENCE = 5.0  # seconds for one of them; a worker answers in milliseconds

SomeThread = Annotated[
    str, typer.Argument(metavar="THREAD", help="The thread's id; otherwise all that wait.", show_default=False)
]
RequestId = Annotated[
    str,
    typer.Argument(metavar="REQUEST", help="The request's id; not needed if one is open.", show_default=False),
]
Approver = Annotated[str, typer.Option("--as", metavar="WHO", help="Who decides.", show_default=False)]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is recorded.", show_default=False)]


class OpenRequest(Value):
    """What waits for a person, and whose it is: an approval request, or a question."""

    thread_id: str
    request: ApprovalRequest | None = None
    question: Question | None = None


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for function in (approvals, approve, reject):
        app.command(rich_help_panel="Approvals")(function)


@command
async def approvals(session: Session, thread: SomeThread = "") -> None:
    """Show what waits for an approval or an answer: in all threads, or everything about those of one."""
    client = await session.client()
    if thread:
        answer = await client.approvals(thread)
        session.out.show(answer, render.approvals(thread, answer))
        return
    waiting = [*await client.threads(status="awaiting_approval", limit=_MOST)]
    waiting += await client.threads(status="awaiting_input", limit=_MOST)
    answers = await _ask_all(client, [summary.thread_id for summary in waiting])
    found = [item for name, answer in answers.items() for item in _open(name, answer)]
    session.out.show_all(found, _shown(found))
    _raise_for({name: answer for name, answer in answers.items() if isinstance(answer, PerdureError)})


def _open(thread: str, answer: ApprovalsAnswer | PerdureError) -> list[OpenRequest]:
    if isinstance(answer, PerdureError):
        return []
    requests = [OpenRequest(thread_id=thread, request=request) for request in answer.open]
    return requests + [OpenRequest(thread_id=thread, question=question) for question in answer.questions]


def _shown(found: list[OpenRequest]) -> RenderableType:
    shown = render.requests([(item.thread_id, item.request) for item in found if item.request])
    asked = [(item.thread_id, item.question) for item in found if item.question]
    return Group(shown, Text(), render.questions(asked)) if asked else shown


def _raise_for(errors: dict[str, PerdureError]) -> None:
    """A thread that doesn't answer must not hide the others, nor be hidden. Raises the error, or one for all."""
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        names = ", ".join(errors)
        raise TemporalUnreachable(f"{len(errors)} threads don't answer: {names}.", hint="Are their workers running?")


async def _ask_all(client: "Client", threads: list[str]) -> dict[str, ApprovalsAnswer | PerdureError]:
    room = asyncio.Semaphore(_AT_ONCE)

    async def asked(thread: str) -> ApprovalsAnswer | PerdureError:
        async with room:
            try:
                return await client.approvals(thread, patience=_PATIENCE)
            except PerdureError as error:
                return error

    return dict(zip(threads, await asyncio.gather(*map(asked, threads)), strict=True))


@command
async def approve(session: Session, thread: Thread, who: Approver, request: RequestId = "", reason: Why = "") -> None:
    """Approve a call: exactly the arguments that are shown."""
    client = await session.client()
    asked = await _open_request(client, thread, request)
    session.out.say(render.request(thread, asked))
    if session.is_interactive:
        session.confirm(f"Approve {asked.id} as {who}?")
    elif not request and not session.options.yes:
        raise Refused(
            f"Nobody has confirmed request {asked.id}, and there is no terminal to ask on.",
            hint="Name the request, or pass -y.",
        )
    await _decide(session, client, thread, "approve", asked, who, reason)


@command
async def reject(
    session: Session, thread: Thread, who: Approver, reason: Why, request: RequestId = ""
) -> None:  # fmt: skip
    """Reject a call; the agent is told the reason and goes on without it."""
    client = await session.client()
    asked = await _open_request(client, thread, request)
    await _decide(session, client, thread, "reject", asked, who, reason)


async def _open_request(client: "Client", thread: str, request: str) -> ApprovalRequest:
    asked = await client.request(thread, request)
    if asked.outcome != "open":  # the thread would refuse it too; but nobody should be asked first
        raise DecisionRefused(f"Request {asked.id} is closed: {asked.verdict_line()}.", code="closed")
    return asked


async def _decide(
    session: Session, client: "Client", thread: str, verdict: Verdict, asked: ApprovalRequest, who: str, reason: str
) -> None:
    answer = await client.decide(thread, verdict, asked, approver=who, reason=reason)
    after = next(request for request in (*answer.open, *answer.closed) if request.id == asked.id)
    still = f"{after.approvals()} of {after.policy.quorum} have said yes" if after.outcome == "open" else ""
    verdict_line = (still or after.verdict_line()).rstrip(".")
    session.out.show(after, f"Request {after.id} of {thread}: {verdict_line}.")
