"""The commands: how `perdure --help` lists them, and where each is defined.

A command's module is imported when the command is run, and no other: all of them take longer to import than most
commands take to run. So the list repeats what each command's docstring says first; a test compares them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

_PANELS: dict[str, dict[str, str]] = {  # by the module and the name of each command
    "Commands": {
        "demo.demo": "See an order survive the death of its worker, and another one be taken back.",
        "servers.dev": "Run Temporal with its UI, a store and a worker, all in this process.",
        "servers.worker": "Serve the app's threads on a Temporal server, until SIGINT or SIGTERM.",
        "servers.doctor": "Check everything that threads need, and say how to mend what is missing.",
        "agents.graph": "Draw the graph of an agent.",
        "database.db": "The checkpoint store.",
    },
    "Threads": {
        "messages.start": "Start a thread of an agent with its first message, or with an input.",
        "messages.send": "Send a message to a thread; one that had completed goes on from where it stood.",
        "threads.list": "List threads, the newest first.",
        "status.status": "Show what a thread does, what it waits for, how to answer, and what happened lately.",
        "threads.watch": "Follow a thread until it has completed, or until Ctrl-C.",
        "threads.cancel": "Stop the running turn and undo what it did outside.",
        "threads.extend": "Give the running turn more room; one that ran out of budget goes on.",
        "threads.close": "Let the thread finish what it has begun and take no more messages, for good.",
        "leases.lease":
            "Acquire, renew or release the exclusive right to write to a thread; standard output is its token.",
    },
    "Checkpoints": {
        "checkpoints.state":
            "Show a thread's state, checked against its digests; or a large result that one of its messages names.",
        "checkpoints.history":
            "List a thread's checkpoints from its head back, across forks, with the effects that were made at each.",
        "checkpoints.tree":
            "Draw a thread's branches: its line, what rewinds have left, and the threads that were forked from it.",
        "checkpoints.find": "Find checkpoints by their metadata, in all threads or in one.",
        "checkpoints.diff":
            "Show how the state differs between two checkpoints; with -o json as a JSON Patch (RFC 6902).",
    },
    "Time travel": {
        "travel.fork": "Make a new thread from a checkpoint of another, which stays as it is.",
        "travel.promote":
            "Make the plan of a dry run the thread's next turn: its calls are made for real, each behind its gate "
            "anew.",
        "travel.rewind": "Undo what a thread did outside since a checkpoint, then move its head back to it.",
        "travel.restore":
            "Rewind a thread to its last good state: where a turn had ended with an answer that still holds.",
        "travel.update": "Write to a thread's state between turns.",
        "travel.resume":
            "Let a thread go on with what follows its head: after a fork, a rewind or an update that left it standing.",
    },
    "Approvals": {
        "approvals.approvals":
            "Show what waits for an approval or an answer: in all threads, or everything about those of one.",
        "decisions.approve": "Approve a call: exactly the arguments that are shown; or with other arguments (--edit).",
        "decisions.reject": "Reject a call; the agent is told the reason and goes on without it.",
        "questions.answer":
            "Answer what a thread asks. An answer that doesn't fit is refused, and the question stays open.",
        "audit.audit": "Show a thread's audit, and verify the chain of its digests. Needs no Temporal.",
        "keys.keys": "Keys with which approvers sign.",
    },
    "Effects": {
        "effects.effects":
            "Show the ledger: what a thread did outside, under which key, and how it stands; or what is open anywhere.",
        "effects.compensate":
            "Undo what a turn or a saga did outside, by default the latest first; the running turn is stopped for it.",
        "effects.resolve": "Settle an effect whose outcome is in doubt, or that could not be undone.",
    },
}  # fmt: skip
_FUNCTIONS = {"list": "list_threads"}  # which can't have the name of their command


@dataclass(frozen=True)
class Listed:
    """A command as it is listed."""

    name: str
    panel: str
    module: str
    help: str

    def load(self) -> Any:
        """The command itself, from its module."""
        app = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
        found = getattr(import_module(f"perdure.starters.cli.{self.module}"), _FUNCTIONS.get(self.name, self.name))
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=self.name)
        else:
            app.command(self.name)(found)
        return typer.main.get_group(app).commands[self.name]


LISTED = {
    name: Listed(name, panel, module, help)
    for panel, commands in _PANELS.items()
    for (module, name), help in ((place.split("."), help) for place, help in commands.items())
}


class _Loaded(Mapping[str, Any]):
    """All commands by their names, each loaded when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        return LISTED[name].load()

    def __iter__(self) -> Iterator[str]:
        return iter(LISTED)

    def __len__(self) -> int:
        return len(LISTED)


class Index(TyperGroup):
    """The root of the commands: it lists all, and loads the one that is run."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = _Loaded()  # type: ignore[assignment]  # nobody adds to them

    def list_commands(self, ctx: Any) -> list[str]:
        """See base class."""
        return list(LISTED)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """See base class: the command as it is listed."""
        listed = LISTED.get(cmd_name)
        return TyperCommand(cmd_name, help=listed.help, rich_help_panel=listed.panel) if listed else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """See base class: the command as it is run."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, self.commands[name] if name else None, rest
