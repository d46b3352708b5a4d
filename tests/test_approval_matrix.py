"""The matrix of approvals: what runs a tool, and that nothing else does.

{approve, reject, edit} by {right, wrong, stale digest} by {in time, late} by {first, repeated, other person} by
{signed, unsigned, forged, replayed} by {quorum 1, 2 of 3} by {separation of duties on, off} are 864 cells;
``tests/matrix.py`` says what each word means. Where separation is on, each is played twice: with somebody whom it
concerns, and with somebody whom it doesn't. So there are 1,296, each a request of its own, in 36 threads.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from itertools import groupby, product
from pathlib import Path
from typing import Any

import pytest

from perdure import Agent, App, Approval, ToolContext, tool
from perdure.approvals import ApprovalRequest, Verdict
from perdure.audit import AuditHead, AuditRow, check_end, follow
from perdure.canonical import canonical
from perdure.effects import arguments_digest
from perdure.testing import Rule, Script, call, say, together
from perdure.tool import Tool
from tests.ballot import FOREIGN, KEYS, ballot, write_keys
from tests.conftest import MakeWorld
from tests.matrix import CELLS, CORRECTED, EDITED, Cell, Expected, expected
from tests.witness import Witness
from tests.world import World, eventually

DAY = timedelta(hours=24)
DONOR = -1  # the number of a request whose signature is used once more on others
Group = list[tuple[int, Cell]]

witness = Witness()


def acting(quorum: int, separated: bool) -> Tool:
    """A tool that tells with which arguments it ran."""

    @tool(
        name=_tool(quorum, separated), effect="irreversible",
        approval=Approval(
            approvers=["people"], quorum=quorum, separation=["requester"] if separated else [], reminders=[],
        ),
    )  # fmt: skip
    async def act(ctx: ToolContext, cell: int, amount: int) -> str:
        """Do it."""
        witness.saw(ctx, f"{cell}: {amount}")
        return "done"

    return act


def _tool(quorum: int, separated: bool) -> str:
    return f"act_{quorum}{'_apart' if separated else ''}"


def together_in_a_thread(cell: Cell) -> tuple[Any, ...]:
    """Cells that agree on this share a thread."""
    return cell.say, cell.quorum, cell.duty, cell.late


GROUPS: Sequence[Group] = [
    list(group) for _, group in groupby(enumerate(CELLS), key=lambda pair: together_in_a_thread(pair[1]))
]
APP = App(
    agents=[
        Agent(name="actor", model="m", tools=[acting(q, separated) for q in (1, 2) for separated in (False, True)])
    ],
    groups={"people": list(KEYS)},
)


def asks_for(group: Group) -> Rule:
    """The model asks for one call a cell, all at once."""
    _, cell = group[0]
    name = _tool(cell.quorum, cell.separated)
    calls = together(*(call(name, cell=number, amount=1) for number in (DONOR, *(number for number, _ in group))))
    return Rule(when=_message(group), replies=[calls, say("Done.")])


def _message(group: Group) -> str:
    return f"cells from {group[0][0]}."


class Played:
    """A thread in which the cells of a group are played, phase by phase."""

    def __init__(self, world: World, group: Group) -> None:
        self._world = world
        self.group = group
        self.thread = ""
        self._requests: dict[int, ApprovalRequest] = {}
        self._sent = 0
        self._audit: list[AuditRow] = []
        self._used: dict[int, dict[str, Any]] = {}  # the ballots whose signatures were used last, by request
        self._later = timedelta(0)

    async def play(self) -> None:
        """From the message to the answer."""
        world, (_, cell) = self._world, self.group[0]
        sender = "zoe" if cell.duty == "other" else "ann"
        self.thread, sent = await world.client.start(
            "actor", _message(self.group), thread=world.thread(), sender=sender
        )
        await world.opened(self.thread, len(self.group) + 1)
        await self._look()
        await self._prepare()
        if cell.late:
            await self._pass_a_day()
        await self._decided(*((number, self._cell(number, cell)) for number, cell in self.group))
        await self._quorum_afresh()
        if not cell.late:
            await self._pass_a_day()
        assert (await world.ended(self.thread, sent.message_id)).outcome == "answered"
        await self._look()

    async def _prepare(self) -> None:
        """What came before the cells: another request was decided, arguments were changed, others said yes."""
        donor = (DONOR, self._say(DONOR, "reject", "ann"))
        stale = [number for number, cell in self.group if cell.digest == "stale"]
        await self._decided(donor, *((n, self._say(n, "approve", "cid", amount=CORRECTED)) for n in stale))
        before = [(number, cell) for number, cell in self.group if cell.before != "first"]
        who = {"repeated": "ann", "other": "bob"}
        await self._decided(*((number, self._say(number, "approve", who[cell.before])) for number, cell in before))

    def _cell(self, number: int, cell: Cell) -> tuple[Verdict, dict[str, Any]]:
        """The decision of a cell."""
        verdict: Verdict = "reject" if cell.say == "reject" else "approve"
        request = self._requests[number]
        digests = {
            "right": request.digest,
            "wrong": arguments_digest(request.tool, canonical({"cell": number, "amount": 1_000_000})),
            "stale": request.edits[0].digest if request.edits else "",
        }
        said = self._say(
            number, verdict, "ann", amount=EDITED if cell.say == "edit" else 0, digest=digests[cell.digest],
            forged=cell.signature == "forged",
        )[1]  # fmt: skip
        if cell.signature == "unsigned":
            del said["signature"]
        elif cell.signature == "replayed":
            said |= {name: self._used.get(number, self._used[DONOR])[name] for name in ("signature", "at")}
        return verdict, said

    async def _quorum_afresh(self) -> None:
        """Where ann's edit counted, the others say yes to what she wants; bob may have said yes before, to less."""
        edited = [n for n, cell in self.group if cell.say == "edit" and not expected(cell).code]
        people = ("bob", "cid")[: self.group[0][1].quorum]
        await self._decided(*((number, self._say(number, "approve", who)) for number in edited for who in people))

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _say(
        self, number: int, verdict: Verdict, who: str, *, amount: int = 0, digest: str = "", forged: bool = False
    ) -> tuple[Verdict, dict[str, Any]]:
        return verdict, ballot(
            self.thread, verdict, self._requests[number], who, key=FOREIGN if forged else None, digest=digest,
            arguments={"cell": number, "amount": amount} if amount else None, later=self._later,
        )  # fmt: skip

    async def _decided(self, *said: tuple[int, tuple[Verdict, dict[str, Any]]]) -> None:
        """Send decisions, and wait until the audit has them all, counted or refused."""
        handle = self._world.handle(self.thread)
        await asyncio.gather(*(handle.signal(verdict, payload) for _, (verdict, payload) in said))
        self._sent += len(said)
        await eventually(self._audited, lambda count: count >= self._sent, within=60)
        await self._look()
        for number, (_, payload) in said:
            if payload.get("signature", "") in self._requests[number].spent:
                self._used[number] = payload

    async def _audited(self) -> int:
        return sum(row.entry.kind.startswith("decision.") for row in await self.audit())

    async def _look(self) -> None:
        answer = await self._world.client.approvals(self.thread)
        self._requests = {request.arguments["cell"]: request for request in (*answer.open, *answer.closed)}

    async def _pass_a_day(self) -> None:
        self._later += DAY
        await self._world.forward(self.thread, DAY)

    # ── what it came to ──────────────────────────────────────────────────────────────────────────────────────────

    async def audit(self) -> list[AuditRow]:
        """All lines of the thread that are written by now."""
        self._audit += await self._world.store.audit(self.thread, after=len(self._audit))
        return self._audit

    async def check_audit(self) -> None:
        """The chain of the audit holds, to its end."""
        row = await self._world.store.thread(self.thread)
        assert row is not None
        check_end(follow(self.thread, AuditHead(), await self.audit()), row.audit_end)

    async def found(self) -> dict[int, Expected]:
        """What each cell came to."""
        lines = [(row.entry.kind.partition(".")[2], row.entry.body) for row in await self.audit()]
        deeds = [deed.split(": ") for deed in witness.of(self.thread)]
        found = {}
        for number, cell in self.group:
            request = self._requests[number]
            told = [_line(kind, body) for kind, body in lines if _concerns(body, request.id)]
            said = [line for line in told if line.startswith(("counted", "refused"))]
            mine = (cell.digest == "stale") + (cell.before != "first")  # the decision that is the cell
            ran = [int(amount) for name, amount in deeds if int(name) == number]
            found[number] = Expected(
                code=said[mine].partition(": ")[2],
                ran=ran[0] if ran else None,
                outcome=request.outcome,
                told=tuple(told),
            )
        return found


def _line(kind: str, body: dict[str, Any]) -> str:
    return f"{kind}: {body['code']}" if kind == "refused" else kind


def _concerns(body: dict[str, Any], request_id: str) -> bool:
    return body["request"] == request_id if "request" in body else f"'request_id': '{request_id}'" in body["said"]


@pytest.mark.parametrize(("verdict", "quorum"), [*product(("approve", "reject", "edit"), (1, 2))])
async def test_only_the_intended_cells_run_the_tool(
    make_world: MakeWorld, tmp_path: Path, verdict: str, quorum: int
) -> None:
    """In every cell the decision counts, or is refused with the documented reason; the request ends as it must; the
    audit tells exactly what happened; and the tool ran once with the arguments that were approved, or not at all."""
    groups = [group for group in GROUPS if (group[0][1].say, group[0][1].quorum) == (verdict, quorum)]
    script = Script(rules=[asks_for(group) for group in groups])
    async with make_world(APP, script, approver_keys=write_keys(tmp_path / "approvers")) as world:
        played = [Played(world, group) for group in groups]
        await asyncio.gather(*(one.play() for one in played))
        wrong: list[str] = []
        for one in played:
            found = await one.found()
            wrong += [
                f"{cell}\n  expected {expected(cell)}\n  found    {found[number]}"
                for number, cell in one.group
                if found[number] != expected(cell)
            ]
            intended = {n: expected(cell).ran for n, cell in one.group}
            assert Counter(witness.of(one.thread)) == Counter(f"{n}: {ran}" for n, ran in intended.items() if ran)
            await one.check_audit()
        assert not wrong, f"{len(wrong)} cells are not as they must be:\n" + "\n".join(wrong)


def test_the_matrix_is_whole() -> None:
    """864 cells, and those with separation once more; in few of them ann's decision counts, and in fewer something
    runs because of it."""
    assert len(CELLS) == len(set(CELLS)) == 1_296
    assert len({(c.say, c.digest, c.late, c.before, c.signature, c.quorum, c.separated) for c in CELLS}) == 864
    counted = [cell for cell in CELLS if not expected(cell).code]
    assert {(c.digest, c.late, c.signature) for c in counted} == {("right", False, "signed")}
    assert Counter(c.say for c in counted) == {"approve": 6, "edit": 6, "reject": 11}
    assert Counter(c.say for c in counted if expected(c).ran) == {"approve": 4, "edit": 6}
