"""perdure audit: what was asked, decided, refused and settled, from the store alone."""

from typing import Annotated

import typer

from perdure.audit import AuditRow
from perdure.errors import IntegrityError
from perdure.starters.cli.command import Session, Thread, command
from perdure.starters.cli.render import audit as render

Expect = Annotated[
    str,
    typer.Option(
        "--expect", metavar="DIGEST", show_default=False,
        help="A digest noted down earlier: fails where no line has it, since lines were cut off or rewritten then.",
    ),
]  # fmt: skip


@command
async def audit(session: Session, thread: Thread, expect: Expect = "") -> None:
    """Show a thread's audit, and verify the chain of its digests. Needs no Temporal."""
    rows: list[AuditRow] = []
    try:
        async for row in session.archive().audit(thread):
            rows.append(row)  # noqa: PERF401 - a comprehension would lose the sound ones before a bad one
    except IntegrityError as error:
        session.out.show_all(rows, render.audit(rows))
        where = f"line {error.row} of the audit of {thread}" if error.row else f"the audit of {thread}"
        raise IntegrityError(
            f"The chain breaks at {where}: {error.message}", hint=error.hint, table=error.table, row=error.row
        ) from error
    session.out.show_all(rows, render.audit(rows))
    _check_expected(thread, rows, expect)
    head = f", head {rows[-1].digest}" if rows else ""
    session.out.say(f"{len(rows)} line{'' if len(rows) == 1 else 's'}, chain intact{head}")


def _check_expected(thread: str, rows: list[AuditRow], expect: str) -> None:
    if expect and all(row.digest != expect for row in rows):
        raise IntegrityError(
            f"No line of the audit of {thread} has the digest {expect}.",
            hint="If it is noted down right, lines were cut off or rewritten since.", table="audit",
        )  # fmt: skip
