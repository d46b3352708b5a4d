"""What happens in the demo, step by step, told while it happens."""

import asyncio
import time
from collections.abc import Callable

from perdure.approvals import ApprovalRequest
from perdure.care.verify import verify
from perdure.contracts import StatusAnswer, TurnResult
from perdure.examples.orders import verdict
from perdure.examples.orders.ledger import Entry
from perdure.examples.orders.narration import Narrator
from perdure.examples.orders.parts import Parts
from perdure.examples.orders.shop import ShopFault
from perdure.examples.orders.story import ONE_MONITOR, TWO_LAPTOPS
from perdure.examples.orders.verdict import Check

_AGENT, _APPROVER = "orders", "finance"
_POLL = 0.1
_PATIENCE = 30.0  # seconds for the second attempt; it comes within five
_FOR_PEOPLE = frozenset({"awaiting_approval", "awaiting_input", "in_doubt", "needs_attention", "out_of_budget"})

Seen = StatusAnswer | TurnResult


class Tale:
    """Two orders, and the verdict over what they left in the shop."""

    def __init__(self, parts: Parts, narrator: Narrator) -> None:
        self._parts = parts
        self._narrator = narrator
        self._checks: list[Check] = []
        self._results: list[TurnResult] = []
        self._recorded = 0  # the model's answers that the second worker found in the thread's history

    async def tell(self) -> bool:
        """The whole tale. Whether the shop's books are right."""
        await self._introduce()
        await self._first_order("order-1")
        await self._second_order("order-2")
        await self._show_books()
        return await self._judge(["order-1", "order-2"])

    async def _introduce(self) -> None:
        parts, narrator = self._parts, self._narrator
        narrator.title("Perdure: an order desk that outlives its worker.")
        await narrator.step("The world: everything runs on this machine, in a folder of its own.")
        narrator.fact("home", str(parts.worker.log.parent))
        narrator.fact("shop", parts.shop.url, "stock, payments, a courier; it keeps its own books")
        if parts.model:
            narrator.fact("model", parts.model.base_url, "offline: it follows a script, by OpenAI's protocol")
        else:
            narrator.fact("model", "a real one, as your OPENAI_ variables say", "so this story is not scripted")
        narrator.fact("Temporal", parts.server.address, f"its UI: {parts.server.ui}")
        narrator.fact("worker", f"process {parts.worker.pid}", f"it is going to die; its log: {parts.worker.log}")
        await parts.ready()

    # ── the first order ──────────────────────────────────────────────────────────────────────────────────────────

    async def _first_order(self, thread: str) -> None:
        await self._narrator.step(f'A customer writes: "{TWO_LAPTOPS}"')
        shop, asked, killed = self._parts.shop, False, False
        shop.add_fault(ShopFault(path="/charges", method="POST", mode="hang_after"))
        message = await self._start(thread, TWO_LAPTOPS)
        while isinstance(seen := await self._follow(thread, message, until=lambda: shop.waiting > 0), StatusAnswer):
            if shop.waiting:
                killed = True
                await self._kill_worker(seen)
            elif seen.status == "awaiting_approval":
                asked = True
                await self._approve(seen)
            else:
                break
        shop.clear_faults()
        self._claim(f"{thread} waited for a person", asked)
        self._claim("the worker was killed in the middle of a charge", killed)
        self._ended(thread, seen, "answered")

    async def _approve(self, seen: StatusAnswer) -> None:
        narrator, thread = self._narrator, seen.thread_id
        request = await self._parts.client.request(thread)
        await narrator.step("The thread pauses: this call needs a person.")
        narrator.say("However long that takes, it needs no process. What a person sees, and would do:")
        narrator.fact("status", seen.status, f"step {seen.step}, turn {seen.turn}")
        narrator.request(request, self._command(thread, request), self._parts.link(thread))
        await narrator.step(f"{_APPROVER} approves, by a signal to the workflow.")
        await self._parts.client.signal_decision(
            thread, "approve", request, approver=_APPROVER, reason="The order is genuine."
        )
        await self._decided(thread, request)

    async def _decided(self, thread: str, request: ApprovalRequest) -> None:
        """Until the signal has arrived: what still waits would be approved a second time."""
        while True:
            answer = await self._parts.client.approvals(thread)
            if answer.refused_decisions or request.id not in {each.id for each in answer.open}:
                return
            await asyncio.sleep(_POLL)

    def _command(self, thread: str, request: ApprovalRequest) -> str:
        return f"perdure approve {thread} {request.id} --as {_APPROVER} --address {self._parts.server.address}"

    async def _kill_worker(self, seen: StatusAnswer) -> None:
        narrator, worker, shop = self._narrator, self._parts.worker, self._parts.shop
        await narrator.step("The worker is killed in the middle of the charge.")
        narrator.say("The shop has taken the money; the worker still waits for the answer.")
        narrator.fact("SIGKILL", f"process {worker.pid}")
        await worker.kill()
        await shop.idle()  # the connection is gone: nobody will ever hear that answer
        self._recorded = seen.usage.calls
        entries = shop.ledger.entries()
        narrator.books(entries)
        await narrator.step("Another worker starts, and the thread goes on where it was.")
        await worker.start()
        started = time.monotonic()
        narrator.fact("worker", f"process {worker.pid}")
        narrator.say(
            "Temporal misses the heartbeats of the first one and gives the charge to the second, under the same key. "
            "The shop knows the key: it charges nothing, and answers as it would have then."
        )
        await self._asked_again(entries)
        narrator.fact("took", f"{time.monotonic() - started:.1f} s until the charge was asked for again")

    async def _asked_again(self, before: list[Entry]) -> None:
        """Until the shop's books have changed; if they don't for long, the verdict will tell."""
        until = time.monotonic() + _PATIENCE
        while self._parts.shop.ledger.entries() == before and time.monotonic() < until:  # noqa: ASYNC110 - a file
            await asyncio.sleep(_POLL)

    # ── the second order ─────────────────────────────────────────────────────────────────────────────────────────

    async def _second_order(self, thread: str) -> None:
        await self._narrator.step(f'Another customer writes: "{ONE_MONITOR}"')
        self._narrator.say("This costs less than 100: nobody is asked. But no courier goes to Atlantis.")
        message = await self._start(thread, ONE_MONITOR)
        while isinstance(seen := await self._follow(thread, message), StatusAnswer):
            if seen.status != "awaiting_approval":  # only a real model asks for so much that it is
                break
            await self._approve(seen)
        self._ended(thread, seen, "failed")

    # ── the verdict ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _show_books(self) -> None:
        narrator, model = self._narrator, self._parts.model
        await narrator.step("The shop's own books. The shop knows nothing of Perdure.")
        narrator.books(self._parts.shop.ledger.entries())
        usage = [result.usage for result in self._results]
        cached = sum(each.cached for each in usage)
        await narrator.step("The model: nothing is asked, or paid for, twice.")
        if model:
            narrator.fact("calls", str(len(model.log)), "as the model's own server has counted")
        else:
            narrator.fact("calls", str(sum(each.calls for each in usage) - cached), "as the threads have counted")
        narrator.fact("saved", str(self._recorded), "recorded before the kill: the second worker did not ask again")
        if cached:
            narrator.fact("saved", str(cached), "answered from the cache")

    async def _judge(self, threads: list[str]) -> bool:
        ledgers = {thread: await self._parts.client.effects(thread) for thread in threads}
        entries = self._parts.shop.ledger.entries()
        self._checks += [
            *self._scripted_checks(),
            *verdict.check_books(entries),
            *(verdict.check_order(thread, entries, effects) for thread, effects in ledgers.items()),
            verdict.check_agreement(entries, [effect for effects in ledgers.values() for effect in effects]),
            verdict.check_store(await verify(self._parts.store)),
        ]
        await self._narrator.step("The verdict.")
        self._narrator.checks(self._checks)
        right = all(check.ok for check in self._checks)
        self._narrator.verdict(right=right)
        return right

    def _scripted_checks(self) -> list[Check]:
        model, ledger = self._parts.model, self._parts.shop.ledger
        if model is None:
            return []
        needed = sum(result.usage.calls - result.usage.cached for result in self._results)
        story = verdict.check_story(ledger.entries(), ledger.stock())
        return [*story, verdict.check_model(model.calls_by_key, needed)]

    # ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self, thread: str, text: str) -> str:
        _, accepted = await self._parts.client.start(_AGENT, text, thread=thread)
        return accepted.message_id

    async def _follow(self, thread: str, message: str, *, until: Callable[[], bool] = lambda: False) -> Seen:
        """Tell what the thread logs, until its turn has ended, it waits for a person, or ``until`` holds."""
        while True:
            status = await self._parts.client.status(thread)
            self._narrator.log(thread, status.log)
            for result in status.results:
                if message in result.message_ids:
                    return result
            if status.status in _FOR_PEOPLE or until():
                return status
            await asyncio.sleep(_POLL)

    def _claim(self, claim: str, is_so: bool, found: str = "it was not so") -> None:
        """A claim about the scripted story; a real model may tell another one."""
        if self._parts.model:
            self._checks.append(Check(claim=claim, found="" if is_so else found))

    def _ended(self, thread: str, seen: Seen, wanted: str) -> None:
        outcome = seen.status if isinstance(seen, StatusAnswer) else seen.outcome
        self._claim(f"the turn of {thread} ended as it had to: {wanted}", outcome == wanted, f"it is {outcome}")
        if isinstance(seen, TurnResult):
            self._results.append(seen)
            self._narrator.result(seen)
