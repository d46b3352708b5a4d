"""perdure approve, perdure reject."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.approvals import ApprovalRequest, Verdict
from perdure.canonical import Json
from perdure.contracts import ApprovalsAnswer
from perdure.errors import DecisionRefused, Refused
from perdure.starters.cli.command import Session, Thread, command
from perdure.starters.cli.render import approvals as render
from perdure.starters.cli.values import Editing, channels
from perdure.starters.inbox import may_approve

if TYPE_CHECKING:
    from perdure.security.signing import SigningKey
    from perdure.starters.client import Client

RequestId = Annotated[
    str,
    typer.Argument(metavar="REQUEST", help="The request's id; not needed if one is open.", show_default=False),
]
Approver = Annotated[str, typer.Option("--as", metavar="WHO", help="Who decides.", show_default=False)]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is recorded.", show_default=False)]
KeyFile = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="Sign with this private key.", show_default=False)
]  # fmt: skip


@dataclass(frozen=True)
class Decider:
    """Who decides, on what thread, and how that is proved."""

    session: Session
    client: "Client"
    thread: str
    who: str
    reason: str
    key: "SigningKey | None"

    async def request(self, name: str) -> ApprovalRequest:
        """The open request. Raises RequestNotFound, AmbiguousRequest, and DecisionRefused where no decision could
        count: nobody should be asked then."""
        asked = await self.client.request(self.thread, name)
        if asked.outcome != "open":
            raise DecisionRefused(f"Request {asked.id} is closed: {asked.verdict_line()}.", code="closed")
        if asked.policy.signed and self.key is None:
            raise DecisionRefused(
                f"Only signed decisions count for request {asked.id}.", code="unsigned", hint="Sign it with --key FILE."
            )
        return asked

    def show(self, asked: ApprovalRequest, wanted: dict[str, Json] | None = None) -> None:
        """Show what would run, and what of it is to be changed. Raises IntegrityError where it isn't what would run."""
        from perdure.starters.decisions import check_shown  # and with it Temporal's SDK: only when needed

        check_shown(asked)
        self.session.out.say(render.request(self.thread, asked, wanted))

    async def decide(
        self, verdict: Verdict, asked: ApprovalRequest, arguments: dict[str, Json] | None = None
    ) -> ApprovalsAnswer:
        """Say it. Raises DecisionRefused."""
        return await self.client.decide(
            self.thread, verdict, asked, approver=self.who, reason=self.reason, key=self.key, arguments=arguments
        )

    def tell(self, answer: ApprovalsAnswer, name: str) -> None:
        """How the request stands now."""
        after = _named(answer, name)
        self.session.out.show(after, f"Request {after.id} of {self.thread}: {render.standing(after)}.")


@command
async def approve(
    session: Session, thread: Thread, who: Approver, request: RequestId = "", reason: Why = "", key: KeyFile = None,
    editing: Editing = None,
) -> None:  # fmt: skip
    """Approve a call: exactly the arguments that are shown; or with other arguments (--edit)."""
    given, signer = channels(editing, "--edit"), _loaded(key)
    decider = Decider(session, await session.client(), thread, who, reason, signer)
    asked = await decider.request(request)
    wanted = {**asked.arguments, **given} if given else None
    decider.show(asked, wanted)
    if session.is_interactive:
        session.confirm(f"{f'Change {asked.id} so, and approve it' if given else f'Approve {asked.id}'} as {who}?")
    elif not request and not session.options.yes:
        raise Refused(
            f"Nobody has confirmed request {asked.id}, and there is no terminal to ask on.",
            hint="Name the request, or pass -y.",
        )
    answer = await decider.decide("approve", asked, wanted)
    if wanted is not None and _needs_own_yes(answer, asked, who):
        answer = await _approve_edited(decider, _named(answer, asked.id), wanted)
    decider.tell(answer, asked.id)


def _needs_own_yes(answer: ApprovalsAnswer, asked: ApprovalRequest, who: str) -> bool:
    """Whether the edit was not yet a yes to it, and the same person may still give that: a signature is for what was
    signed."""
    after = _named(answer, asked.id)
    return after.outcome == "open" and may_approve(after, answer, who)


async def _approve_edited(decider: Decider, edited: ApprovalRequest, wanted: dict[str, Json]) -> ApprovalsAnswer:
    """Approve what the edit has made of the request, once it is seen to be what was meant. Raises DecisionRefused, and
    Refused where nobody can be asked about arguments that came out otherwise."""
    session, name = decider.session, edited.id
    decider.show(edited)
    if session.is_interactive:
        still = f"request {name} is changed, and not approved by you"
        session.confirm(f"Approve {name} as it is now, as {decider.who}?", otherwise=still)
    elif edited.arguments != wanted and not session.options.yes:
        raise Refused(
            f"Request {name} is changed, not approved: its tool takes the arguments otherwise than they were given.",
            hint=f"Look at them, and `perdure approve {decider.thread} {name}`.",
        )
    return await decider.decide("approve", edited)


@command
async def reject(
    session: Session, thread: Thread, who: Approver, reason: Why, request: RequestId = "", key: KeyFile = None
) -> None:  # fmt: skip
    """Reject a call; the agent is told the reason and goes on without it."""
    signer = _loaded(key)
    decider = Decider(session, await session.client(), thread, who, reason, signer)
    asked = await decider.request(request)
    decider.tell(await decider.decide("reject", asked), asked.id)


def _loaded(path: Path | None) -> "SigningKey | None":
    """Raises UsageError."""
    if path is None:
        return None
    from perdure.security.signing import SigningKey  # only who signs pays for the cryptography

    return SigningKey.load(path)


def _named(answer: ApprovalsAnswer, name: str) -> ApprovalRequest:
    return next(request for request in (*answer.open, *answer.closed) if request.id == name)
