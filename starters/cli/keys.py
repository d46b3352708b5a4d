"""perdure keys: the keys with which approvers sign."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.starters.cli.command import Session, command
from perdure.values import Value

if TYPE_CHECKING:
    from rich.table import Table

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Whose: the approver, as policies name them.", show_default=False)
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the two files go.")]


class NewPair(Value):
    """A new pair of keys. ``line`` is the public half, as PERDURE_APPROVER_KEYS takes it."""

    approver: str
    fingerprint: str
    private_file: str
    public_file: str
    line: str


class ApproverKey(Value):
    """A public key, and whose signatures it proves."""

    approver: str
    fingerprint: str


keys = typer.Typer(help="Keys with which approvers sign.")


@keys.command()
@command
async def new(session: Session, name: Name, out: Out = Path()) -> None:
    """Make the pair of keys of an approver: NAME.key to sign with, NAME.pub to be known by."""
    from perdure.security.signing import SigningKey

    key = SigningKey.new(name)
    private, public = key.save(out)
    pair = NewPair(
        approver=name, fingerprint=key.fingerprint, private_file=str(private), public_file=str(public), line=key.line
    )
    session.out.show(pair, f"{private}\n{public}")
    session.out.say(
        f"Keep {private.name} to yourself, for `perdure approve --key`: whoever has it approves as {name}.\n"
        f"Give {public.name} to whoever runs the workers, for the folder that PERDURE_APPROVER_KEYS names."
    )


@keys.command("list")
@command
async def list_(session: Session) -> None:
    """Show whose signatures count, by PERDURE_APPROVER_KEYS."""
    approvers = session.place.settings.approvers()
    if approvers is None:
        session.out.say("PERDURE_APPROVER_KEYS is not set: decisions need no signature.")
    known = approvers.fingerprints() if approvers else {}
    found = [ApproverKey(approver=name, fingerprint=each) for name, prints in known.items() for each in prints]
    session.out.show_all(found, _table(found))


def _table(found: list[ApproverKey]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for key in found:
        table.add_row(Text(key.approver), key.fingerprint)
    return table
