"""perdure answer."""

from typing import Annotated

import typer

from perdure.canonical import Json
from perdure.errors import UsageError
from perdure.starters.cli.command import Session, Thread, command
from perdure.starters.cli.render import approvals as render
from perdure.starters.cli.values import parsed

QuestionId = Annotated[
    str,
    typer.Argument(metavar="QUESTION", help="The question's id; not needed if one is open.", show_default=False),
]
Answerer = Annotated[str, typer.Option("--as", metavar="WHO", help="Who answers.", show_default=False)]
Text = Annotated[
    str | None, typer.Option("--message", "-m", metavar="TEXT", help="The answer, as a text.", show_default=False)
]  # fmt: skip
Input = Annotated[
    str | None, typer.Option("--input", metavar="JSON", help="The answer, as JSON.", show_default=False)
]  # fmt: skip


@command
async def answer(
    session: Session, thread: Thread, who: Answerer, question: QuestionId = "", text: Text = None, given: Input = None
) -> None:
    """Answer what a thread asks. An answer that doesn't fit is refused, and the question stays open."""
    value = _value(text, given)
    client = await session.client()
    asked = await client.question(thread, question)
    session.out.say(render.question(thread, asked))
    status = await client.answer(thread, asked.id, value, by=who)
    session.out.show(status, f"Question {asked.id} of {thread} is answered.")


def _value(text: str | None, given: str | None) -> Json:
    if (text is None) == (given is None):
        raise UsageError("Give the answer either as a text or as JSON.", hint="For example --input true.")
    if given is None:
        return text
    try:
        return parsed(given)
    except ValueError as error:
        raise UsageError(f"The answer is no JSON: {error}.", hint="A text goes with -m.") from error
