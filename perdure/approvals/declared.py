"""Approvals as the author of a tool declares them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from perdure.approvals.policy import ApprovalPolicy, Duty, Level, Silence
from perdure.duration import Duration, seconds
from perdure.errors import DefinitionError

Groups = Mapping[str, Sequence[str]]  # people by group


@dataclass(frozen=True, kw_only=True)
class Escalation:
    """To whom a request goes that nobody has decided in time; those who could decide before still can.

    ``approvers`` are people or groups. ``quorum`` is how many must say yes from now on, those included who have.
    """

    approvers: Sequence[str]
    expires: Duration = "24h"
    quorum: int = 1


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A gate before a call: people decide whether it runs.

    ``when`` looks at the validated arguments and tells whether this call needs approval (default: every call). It
    runs where the call is planned; if it fails, approval is needed. ``approvers`` are people, or groups of the app;
    empty means anyone. ``quorum`` distinct people must say yes; one no ends it. ``expires`` is how long they are waited
    for; then come the ``escalations``, one after the other, and in the end ``silence`` means that the request has
    expired, or is rejected. ``reminders`` say how long before the end of each wait people are told again (by default a
    tenth of it). ``separation``: ``requester``: whoever asked for the turn, or changed the arguments, can't approve;
    ``steps``: whoever approved another call of the turn can't. ``remember``: within a turn, the same tool with the same
    arguments isn't asked for twice.
    """

    when: Callable[[Any], bool] | None = None
    approvers: Sequence[str] = ()
    quorum: int = 1
    expires: Duration = "24h"
    reason: str = ""
    escalations: Sequence[Escalation] = ()
    silence: Silence = "expire"
    reminders: Sequence[Duration] | None = None
    separation: Sequence[Duty] = ()
    remember: bool = False

    def check(self) -> None:
        """Raise DefinitionError for what can't be right, whoever belongs to the groups."""
        for names in (self.approvers, *(level.approvers for level in self.escalations)):
            if isinstance(names, str):
                raise DefinitionError("`approvers` is a list.", hint=f"Write approvers=[{names!r}].")
        if any(not level.approvers for level in self.escalations):
            raise DefinitionError("An escalation names nobody.", hint="Give it approvers.")
        if isinstance(self.separation, str) or not set(self.separation) <= {"requester", "steps"}:
            raise DefinitionError("`separation` is a list of 'requester' and 'steps'.")
        if self.silence not in ("expire", "reject"):
            raise DefinitionError("`silence` is 'expire' or 'reject'; `escalations` come before it.")
        if min(self.quorum, *(level.quorum for level in self.escalations), 1) < 1:
            raise DefinitionError(f"A quorum of {self.quorum} is none.")
        for duration in (self.expires, *(level.expires for level in self.escalations), *(self.reminders or ())):
            seconds(duration)

    def policy(self, groups: Groups) -> ApprovalPolicy:
        """The part that is data, with people in place of groups. Raises DefinitionError for a quorum that can't be
        reached, and for groups with nobody in them."""
        policy = ApprovalPolicy(
            **dict(self._level(self, groups)), reason=self.reason, silence=self.silence,
            separation=tuple(self.separation), remember=self.remember,
            escalations=tuple(self._level(level, groups) for level in self.escalations),
        )  # fmt: skip
        for number in range(len(policy.escalations) + 1):
            asked = policy.level(number)
            if asked.approvers and asked.quorum > len(asked.approvers):
                raise DefinitionError(
                    f"A quorum of {asked.quorum} can't be reached by {len(asked.approvers)} approvers."
                )
        return policy

    def required(self, arguments: BaseModel) -> str | None:
        """Why this call needs approval, or None."""
        if self.when is None:
            return self.reason or "every call of this tool needs approval"
        try:
            needed = self.when(arguments)
        except Exception as error:  # the author's code: whatever it raises, the safe answer is to ask a person
            return f"the approval condition failed ({type(error).__name__}: {error})"
        return (self.reason or "the arguments match the approval condition") if needed else None

    def _level(self, level: "Approval | Escalation", groups: Groups) -> Level:
        """Raises DefinitionError where groups are named and nobody is in them: no approvers would mean anyone."""
        approvers, expires = _people(level.approvers, groups), seconds(level.expires)
        if level.approvers and not approvers:
            raise DefinitionError(f"Nobody is in {', '.join(level.approvers)}.", hint="Put people into the group.")
        reminders = (expires / 10,) if self.reminders is None else tuple(map(seconds, self.reminders))
        return Level(approvers=approvers, quorum=level.quorum, expires=expires, reminders=reminders)


def _people(names: Sequence[str], groups: Groups) -> tuple[str, ...]:
    """Each person once, in the order in which they are named."""
    return tuple(dict.fromkeys(person for name in names for person in groups.get(name, [name])))
