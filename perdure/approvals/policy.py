"""The policy of a gate: who decides, how many, by when, and what silence means."""

from typing import Literal

from perdure.values import Value

Silence = Literal["expire", "reject"]
Duty = Literal["requester", "steps"]


class Level(Value):
    """Who may decide from some moment on besides those before, how many must, how long they are waited for, and how
    long before the end of that people are told again. Times in seconds."""

    approvers: tuple[str, ...]
    quorum: int = 1
    expires: float = 86_400.0
    reminders: tuple[float, ...] = ()


class ApprovalPolicy(Value):
    """A policy as it is recorded with a request: groups are resolved to people. No approvers means anyone who can
    reach the thread.

    ``escalations`` are the levels that follow when nobody has decided in time; ``silence`` is what the end of the last
    one means. ``reminders`` are seconds before the end of the first level. ``separation``: neither who asked for the
    turn (``requester``) nor who approved another call of it (``steps``) may approve. ``remember``: within a turn, the
    same tool with the same arguments isn't asked for twice. ``signed``: only signed decisions count.
    """

    approvers: tuple[str, ...] = ()
    quorum: int = 1
    expires: float = 86_400.0  # seconds
    reason: str = ""
    silence: Silence = "expire"
    escalations: tuple[Level, ...] = ()
    reminders: tuple[float, ...] = ()
    separation: tuple[Duty, ...] = ()
    remember: bool = False
    signed: bool = False

    def level(self, number: int) -> Level:
        """A level with everybody who may decide at it, those of the levels before included."""
        if number == 0:
            return Level(
                approvers=self.approvers, quorum=self.quorum, expires=self.expires, reminders=self.reminders
            )  # fmt: skip
        before, own = self.level(number - 1), self.escalations[number - 1]
        people = (*before.approvers, *(name for name in own.approvers if name not in before.approvers))
        return own.model_copy(update={"approvers": people if before.approvers else ()})
