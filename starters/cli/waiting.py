"""Waiting for the end of a turn, and telling how it went."""

from typing import TYPE_CHECKING, TypeVar

from rich.console import Group

from perdure.contracts import StatusAnswer, TurnResult
from perdure.errors import Refused, TurnFailed
from perdure.starters.cli.command import Session
from perdure.starters.cli.output import safe
from perdure.starters.cli.render import effects, threads
from perdure.values import Value

if TYPE_CHECKING:
    from perdure.starters.client import Client


Document = TypeVar("Document", bound=Value)


async def tell_end(
    session: Session, client: "Client", thread_id: str, document: Document, message_id: str = ""
) -> None:
    """Wait and tell how it went: the ``result`` of the turn, or the ``status`` in which it needs a person, complete the
    document. Raises TurnFailed or Refused where the turn ended without an answer.
    """
    ended = await client.wait(thread_id, message_id)
    if isinstance(ended, StatusAnswer):
        shown = threads.status(ended, session.ui_link(thread_id))
        session.out.show(document.model_copy(update={"status": ended}), shown)
        return
    session.out.show(document.model_copy(update={"result": ended}), safe(ended.answer) if ended.answer else Group())
    for text in (f"note: {ended.note}" if ended.note else "", *effects.residue_lines(ended.residue)):
        if text:
            session.out.say(text)
    _raise_unless_answered(thread_id, ended)


def _raise_unless_answered(thread_id: str, ended: TurnResult) -> None:
    if ended.outcome == "answered":
        return
    kind = Refused if ended.outcome == "refused" else TurnFailed
    went = "failed" if ended.outcome == "failed" else f"was {ended.outcome}"
    raise kind(f"Turn {ended.turn} of {thread_id} {went}: {ended.error.rstrip('.')}.")
