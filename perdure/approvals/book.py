"""The book of a thread's approval requests: which decisions count, what time and edits do, and what is written down."""

from datetime import datetime, timedelta

from pydantic import BaseModel, Field, ValidationError

from perdure.approvals.decision import CountedDecision, Decision, Edited, RefusedDecision, Verdict, stamp
from perdure.approvals.policy import ApprovalPolicy
from perdure.approvals.request import ApprovalRequest, Edit, Outcome
from perdure.audit import AuditKind
from perdure.canonical import Json
from perdure.errors import DecisionRefused

KEPT_REFUSALS = 50  # the newest; each is at most a kilobyte, so a flood of junk can't fill a carried record
KEPT_CLOSED = 20
MAX_EDITS = 20  # of one request: all of them go with it wherever it is looked at
MAX_ARGUMENTS = 64_000  # characters of edited arguments
_PREVIEW = 500
_KEPT_ARGUMENTS = 4_000  # characters of the arguments of a closed request; the conversation has them all
_SIGNATURE_AGE = timedelta(hours=1)  # a signature is made when a person decides, not long before
_CLOCKS = timedelta(minutes=5)  # by which the clocks of the signer and of Temporal may differ


class ApprovalBook(BaseModel):
    """All requests of a thread that still matter, and what was refused.

    ``turn`` is the one (branch and number) of which ``approved_in_turn`` tells who has approved which requests, at
    which step. ``told`` are lines for the thread's audit; whoever calls takes them out.
    """

    requests: dict[str, ApprovalRequest] = {}
    refused: list[RefusedDecision] = []
    counter: int = 0
    turn: tuple[int, int] = (0, 0)
    approved_in_turn: dict[str, dict[str, int]] = {}
    told: list[tuple[AuditKind, dict[str, Json]]] = Field(default=[], exclude=True)

    def open(
        self, *, call_id: str, tool: str, summary: str, arguments: dict[str, Json], digest: str,
        policy: ApprovalPolicy, now: datetime, key: str = "", requesters: tuple[str, ...] = (), turn: int = 0,
        branch: int = 0, step: int = 0, index: int = 0, channel: str = "messages",
    ) -> ApprovalRequest:  # fmt: skip
        """Open a request. Ids are ``a1``, ``a2``, … in the thread: short, because people type them."""
        self.counter += 1
        if self.turn != (branch, turn):
            self.turn, self.approved_in_turn = (branch, turn), {}
        self._make_room()
        request = ApprovalRequest(
            id=f"a{self.counter}", call_id=call_id, tool=tool, summary=summary, arguments=arguments, digest=digest,
            key=key, policy=policy, requesters=requesters, turn=turn, branch=branch, step=step, index=index,
            channel=channel, opened_at=now,
            expires_at=now + timedelta(seconds=policy.expires),
        )  # fmt: skip
        self.requests[request.id] = request
        self._tell("request.opened", request, arguments=_kept(arguments), policy=policy.model_dump(mode="json"))
        return request

    def pending(self) -> list[ApprovalRequest]:
        """Open requests, oldest first."""
        return [request for request in self.requests.values() if request.outcome == "open"]

    def remembered(self, tool: str, digest: str, *, turn: int, branch: int) -> ApprovalRequest | None:
        """A request by which the same call was approved in this turn, where its policy allows to go by that."""
        for request in self.requests.values():
            same = (request.tool, request.digest, request.turn, request.branch) == (tool, digest, turn, branch)
            if same and request.policy.remember and request.outcome == "approved":
                self._tell("request.remembered", request)
                return request
        return None

    # ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────

    def decide(self, verdict: Verdict, said: object, now: datetime, edited: Edited | None = None) -> ApprovalRequest:
        """Count a decision. Raises DecisionRefused, after keeping the refusal, where it doesn't count."""
        try:
            request, decision = self.checked(verdict, said, now)
            if edited is not None and edited.digest == request.digest:
                raise _refused("invalid_edit", f"Request {request.id} has these arguments already.")
        except DecisionRefused as refusal:
            self.refuse(verdict, said, refusal, now)
            raise
        counted = CountedDecision(
            verdict=verdict, approver=decision.approver, reason=decision.reason, at=stamp(now), digest=request.digest,
            signed_at=decision.at, signature=decision.signature, edited=edited.given if edited else "",
        )  # fmt: skip
        self._tell("decision.counted", request, **counted.model_dump(mode="json"))
        if edited is not None:
            return self._edit(request, counted, edited, now)
        return self._count(request, counted, now)

    def checked(self, verdict: Verdict, said: object, now: datetime) -> tuple[ApprovalRequest, Decision]:
        """The request and the decision, where all that can be seen from here is right. Raises DecisionRefused where
        ``decide`` would; changes nothing."""
        decision = _decoded(said)
        request = self.requests.get(decision.request_id)
        if request is None:
            raise _refused("unknown_request", f"There is no request {decision.request_id!r}; open: {self._open_ids()}.")
        _check_open(request, now)
        if request.policy.signed:
            _check_signed(request, decision, now)
        if decision.digest != request.digest:
            raise _refused(
                "wrong_digest",
                f"Request {request.id} is for {request.digest[:12]}…, the decision names {decision.digest[:12]}….",
            )
        self._check_person(verdict, request, decision)
        if decision.arguments is not None and verdict == "reject":
            raise _refused("invalid_edit", "A rejection changes no arguments.")
        if decision.arguments is not None and len(request.edits) >= MAX_EDITS:
            raise _refused("invalid_edit", f"Request {request.id} was changed {MAX_EDITS} times; that is enough.")
        return request, decision

    def refuse(self, verdict: Verdict, said: object, refusal: DecisionRefused, now: datetime) -> None:
        """Keep a decision that doesn't count, with its reason."""
        why, text = _short(refusal.message), _short(str(said))
        kept = RefusedDecision(verdict=verdict, code=refusal.code, why=why, said=text, at=stamp(now))
        self.refused.append(kept)
        del self.refused[:-KEPT_REFUSALS]
        self.told.append(("decision.refused", kept.model_dump(mode="json", exclude={"at"})))

    def _check_person(self, verdict: Verdict, request: ApprovalRequest, decision: Decision) -> None:
        who, asked = decision.approver, request.asked.approvers
        if asked and who not in asked:
            raise _refused("not_an_approver", f"{who} may not decide; approvers: {', '.join(asked)}.")
        if any(earlier.approver == who for earlier in request.decisions):
            raise _refused("repeated", f"{who} has already decided on request {request.id}.")
        if verdict == "reject":
            return  # whoever is concerned may always stop it
        if "requester" in request.policy.separation and who in request.requesters:
            raise _refused("separation", f"{who} asked for this call, and so can't approve it.")
        others = [name for name in self.approved_in_turn.get(who, {}) if name != request.id]
        if "steps" in request.policy.separation and others:
            raise _refused("separation", f"{who} approved {others[0]} of this turn, and so can't approve {request.id}.")

    def _count(self, request: ApprovalRequest, counted: CountedDecision, now: datetime) -> ApprovalRequest:
        spent = (*request.spent, counted.signature) if counted.signature else request.spent
        updated = request.model_copy(update={"decisions": (*request.decisions, counted), "spent": spent})
        self.requests[request.id] = updated
        if counted.verdict == "reject":
            return self._close(updated, "rejected", now)
        self.approved_in_turn.setdefault(counted.approver, {})[request.id] = request.step
        if updated.approvals() >= updated.asked.quorum:
            return self._close(updated, "approved", now)
        return updated

    def _edit(
        self, request: ApprovalRequest, counted: CountedDecision, edited: Edited, now: datetime
    ) -> ApprovalRequest:
        """Other arguments: what was decided before was on others. Whoever changed them has said yes to them; but a
        signature is for what was signed, and where duties are separated that person is one of those who ask now."""
        edit = Edit(
            by=counted.approver, at=stamp(now), digest=request.digest,
            changes=changes(request.arguments, edited.arguments),
        )  # fmt: skip
        separated = "requester" in request.policy.separation
        changed = request.model_copy(
            update={
                "arguments": edited.arguments, "summary": edited.summary, "digest": edited.digest, "key": edited.key,
                "decisions": (), "edits": (*request.edits, edit),
                "spent": (*request.spent, counted.signature) if counted.signature else request.spent,
                "requesters": (*request.requesters, counted.approver) if separated else request.requesters,
            }
        )  # fmt: skip
        self.requests[request.id] = changed
        self._tell(
            "request.edited", changed, by=edit.by, before=edit.digest, arguments=_kept(edited.arguments),
            changes={name: list(pair) for name, pair in edit.changes.items()},
        )  # fmt: skip
        if separated or request.policy.signed:
            return changed
        return self._count(changed, counted.model_copy(update={"digest": edited.digest}), now)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def remind(self, request_id: str) -> None:
        """Its level is about to end."""
        self._tell("request.reminded", self.requests[request_id])

    def silence(self, request_id: str, now: datetime) -> ApprovalRequest:
        """A level is over without enough decisions: the next one begins, or the request is closed. What was decided
        stays decided, and no decision is made up."""
        request = self.requests[request_id]
        if request.outcome != "open":
            return request
        if request.level >= len(request.policy.escalations):
            return self._close(request, "expired" if request.policy.silence == "expire" else "rejected", now)
        level = request.level + 1
        until = now + timedelta(seconds=request.policy.level(level).expires)
        further = request.model_copy(update={"level": level, "expires_at": until})
        self.requests[request_id] = further
        self._tell("request.escalated", further)
        if further.approvals() >= further.asked.quorum:  # the further level asks for fewer
            return self._close(further, "approved", now)
        return further

    def pass_time(self, now: datetime) -> None:
        """Where a level is over, nobody decides at it any more, whoever looks first: its timer or a decision."""
        for request in self.pending():
            if now >= request.expires_at:
                self.silence(request.id, now)

    def trim(self, request_id: str) -> None:
        """Whoever waited for it knows what it was about: long arguments need not be kept here any longer."""
        request, edits = self.requests[request_id], self.requests[request_id].edits
        if len(str(edits)) > _KEPT_ARGUMENTS:
            edits = tuple(edit.model_copy(update={"changes": {}}) for edit in edits)
        self.requests[request_id] = request.model_copy(update={"arguments": _kept(request.arguments), "edits": edits})

    def withdraw_all(self, now: datetime) -> None:
        """Close what is open because its turn has ended."""
        for request in self.pending():
            self._close(request, "withdrawn", now)

    def go_back(self, *, turn: int, branch: int, step: int) -> None:
        """The thread was rewound to a step of a turn: what was approved for calls before it is still approved, and
        whoever did so is still another than who approves what follows."""
        if self.turn[1] != turn:
            return
        self.turn = (branch, turn)
        for who, approved in self.approved_in_turn.items():
            self.approved_in_turn[who] = {name: at for name, at in approved.items() if at < step}

    # ── what they share ──────────────────────────────────────────────────────────────────────────────────────────

    def _close(self, request: ApprovalRequest, outcome: Outcome, now: datetime) -> ApprovalRequest:
        closed = request.model_copy(update={"outcome": outcome, "closed_at": stamp(now)})
        self.requests[request.id] = closed
        self._tell("request.closed", closed)
        return closed

    def _make_room(self) -> None:
        """Forget the oldest closed requests; only when one is opened, since a call that waits still reads its own."""
        for request_id in [r.id for r in self.requests.values() if r.outcome != "open"][:-KEPT_CLOSED]:
            del self.requests[request_id]

    def _tell(self, kind: AuditKind, request: ApprovalRequest, **more: Json) -> None:
        body: dict[str, Json] = {
            "request": request.id, "tool": request.tool, "summary": request.summary, "digest": request.digest,
            "outcome": request.outcome, "level": request.level, "approvers": list(request.asked.approvers),
            "quorum": request.asked.quorum, "approvals": request.approvals(), "expires_at": stamp(request.expires_at),
            "requesters": list(request.requesters),
        }  # fmt: skip
        self.told.append((kind, body | more))

    def _open_ids(self) -> str:
        return ", ".join(request.id for request in self.pending()) or "none"


def changes(before: dict[str, Json], after: dict[str, Json]) -> dict[str, tuple[Json, Json]]:
    """What differs between two calls' arguments, by name; of a long value its beginning."""
    names = sorted(before.keys() | after.keys())
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    return {name: (_glance(old), _glance(new)) for name, (old, new) in pairs.items() if old != new}


def _check_open(request: ApprovalRequest, now: datetime) -> None:
    if request.outcome == "open" and now >= request.expires_at:
        raise _refused("expired", f"Request {request.id} expired at {stamp(request.expires_at)}.")
    if request.outcome != "open":
        raise _refused(
            "expired" if request.outcome == "expired" else "closed",
            f"Request {request.id} is closed: {request.verdict_line()}.",
        )


def _check_signed(request: ApprovalRequest, decision: Decision, now: datetime) -> None:
    """What can be seen of a signature without a key; an activity verifies it."""
    if not decision.signature:
        raise _refused("unsigned", f"Only signed decisions count for request {request.id}.")
    if decision.signature in request.spent:
        raise _refused("replayed", f"This signature was used on request {request.id} before.")
    try:
        at = datetime.fromisoformat(decision.at)
        early = at < max(request.opened_at - _CLOCKS, now - _SIGNATURE_AGE)
        late = at > now + _CLOCKS
    except (ValueError, TypeError) as error:  # no time, or one without a time zone
        raise _refused("malformed", f"The decision doesn't fit: at: {error}.") from error
    if early or late:
        raise _refused("stale", f"The decision was signed at {decision.at}, and it is {stamp(now)}.")


def _kept(arguments: dict[str, Json]) -> dict[str, Json]:
    return arguments if len(str(arguments)) <= _KEPT_ARGUMENTS else {}


def _glance(value: Json) -> Json:
    return value if len(str(value)) <= _PREVIEW else _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= _PREVIEW else text[:_PREVIEW] + "…"


def _refused(code: str, why: str) -> DecisionRefused:
    return DecisionRefused(why, code=code)


def undecodable(why: str) -> DecisionRefused:
    """A payload that could not even be read."""
    return _refused("undecodable", why)


def _decoded(said: object) -> Decision:
    try:
        decision = Decision.model_validate(said)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'payload'}: {e['msg']}" for e in error.errors())
        raise _refused("malformed", f"The decision doesn't fit: {reasons[:_PREVIEW]}.") from error
    if len(str(decision.arguments)) > MAX_ARGUMENTS:
        raise _refused(
            "malformed", f"The decision doesn't fit: its arguments have more than {MAX_ARGUMENTS} characters."
        )
    return decision
