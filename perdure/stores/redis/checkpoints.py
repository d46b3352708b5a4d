"""Checkpoints: committing them, and reading them back along the ways from child to parent."""

import zlib
from collections.abc import AsyncIterator, Sequence
from secrets import token_hex
from typing import Any, Literal

from perdure.canonical import Json, canonical
from perdure.checkpoint import Checkpoint
from perdure.errors import IntegrityError
from perdure.stores import ledger, records, refusals, sealed
from perdure.stores.base import Line, Snapshot, Step
from perdure.stores.packing import packed, unpacked
from perdure.stores.records import Entry
from perdure.stores.redis import labels, results
from perdure.stores.redis.entries import Entries, busy
from perdure.stores.redis.keys import ID_FROM, id_in, place
from perdure.stores.redis.part import ATTEMPTS, pause
from perdure.stores.redis.threads import PATIENCE, RESTORED, Threads, moved_fields, new_fields, too_slow
from perdure.stores.rows import now

PAGE = 500  # checkpoints that one script reads: a few hundred kilobytes, some milliseconds of the server
_FAR = 20_000  # links that one script follows: about as long
_DIGEST = 32  # bytes


class Checkpoints(Threads, Entries):
    """Committing and reading."""

    async def commit(self, step: Step) -> bool:
        c = step.checkpoint
        order = _order(c) | {
            "extends": step.extends or "", "digest": c.digest, "clears": list(step.clears), "patience": PATIENCE,
            "row": [*(new_fields(step) if step.extends is None else ()), *moved_fields(step)],
        }  # fmt: skip
        if c.parent_id and not c.parent_thread and not c.cut:
            order["parent"] = c.parent_id
        if step.result:
            order["request"] = results.request(step.result)
        if step.receipt:
            order["receipt"] = step.receipt.key
        stored = *records.record(Entry.of(step)), stored_snapshot(step.snapshot)
        await self._announce(step)
        commit = self._commit_fork if c.parent_thread else self._commit
        told, stands = await commit(step, order, *stored)
        return _outcome(step, told, stands)

    async def _commit(self, step: Step, order: dict[str, Json], *stored: bytes) -> tuple[str, str]:
        for attempt in range(ATTEMPTS):
            await pause(attempt)
            effect = await self._finished(step)
            told, stands = await self._run("commit", step.checkpoint.thread_id, canonical(order), *stored, *effect)
            if told != b"changed":
                return told.decode(), stands.decode()
        raise busy(step.checkpoint.thread_id, str(order.get("receipt")))

    async def _finished(self, step: Step) -> tuple[bytes, bytes, bytes]:
        """The ledger entry of the step's receipt, before and after it, and the receipt; empty where there is none."""
        stands = await self._stands(step.checkpoint.thread_id, step.receipt.key) if step.receipt else None
        if stands is None or step.receipt is None:
            return b"", b"", b""
        row = ledger.moved(stands.row, ledger.finish(step.receipt.result, now()))
        after = sealed.changed(stands.stored, row, stands.mark)
        return stands.stored.entry, after.entry, after.receipt or b""

    async def _commit_fork(self, step: Step, order: dict[str, Json], *stored: bytes) -> tuple[str, str]:
        """Note the fork at its parent, which can't go away from then on; then commit."""
        c, token = step.checkpoint, token_hex(8)
        origin = c.parent_thread, c.parent_id or ""
        noted = await self._note(origin, c.thread_id, token)
        order["row"] += ["made_by", token]
        told = await self._commit(step, order | ({"orphan": True} if noted is None else {"noted": noted}), *stored)
        if told[0] != "done":
            await self._unnote(origin, c.thread_id, token)
        return told

    async def _announce(self, step: Step) -> None:
        """Write what crosses threads before the commit that makes it true.

        A commit that doesn't come leaves names behind that nobody finds: who reads them looks whether they are true.
        """
        commands = labels.announcing(self._keys, step.checkpoint)
        if step.extends is None:
            commands.append(("ZADD", self._keys.threads, 0, step.checkpoint.thread_id))
        if step.result:
            commands += results.announcing(self._keys, step.result, step.checkpoint)
        await self._tell(*commands)

    async def restore(self, step: Step, *, head: bool) -> None:
        c = step.checkpoint
        stored: Sequence[bytes] = records.record(Entry.of(step))
        _, links, bodies, _ = await self._stored_rows(c.thread_id, [c.id])
        if records.is_whole((links[0], bodies[0]), c):
            stored = (b"", b"")
            c = records.entry(c.thread_id, c.id, (links[0], bodies[0])).checkpoint
        order = _order(c)
        if head:
            order |= {"row": moved_fields(step), "new": new_fields(step), "id_from": ID_FROM}
            await self._announce_thread(c.thread_id)
        await self._tell(*labels.announcing(self._keys, c))
        await self._run("restore", c.thread_id, canonical(order), *stored, stored_snapshot(step.snapshot))
        row = await self.thread(c.thread_id) if head else None
        if row and row.origin_thread and await self._maker(c.thread_id) == RESTORED:
            await self._note((row.origin_thread, row.origin_id), c.thread_id, RESTORED, anyhow=True)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def checkpoint(self, thread_id: str, checkpoint_id: str) -> Checkpoint | None:
        found = await self._entries(thread_id, [checkpoint_id])
        return found[0].checkpoint if found else None

    async def line(self, thread_id: str, checkpoint_id: str) -> Line | None:
        found, snapshot = await self._back(thread_id, checkpoint_id, "line")
        return records.line(found[::-1], snapshot) if found else None

    async def path(self, thread_id: str, checkpoint_id: str, *, limit: int) -> list[Checkpoint]:
        found, _ = await self._back(thread_id, checkpoint_id, "path", limit)
        return [entry.checkpoint for entry in found]

    async def landmarks(
        self, thread_id: str, checkpoint_id: str, *, limit: int, in_turn: bool = False
    ) -> list[Checkpoint]:
        found: list[Checkpoint] = []
        while checkpoint_id and len(found) < limit:
            page = await self.path(thread_id, checkpoint_id, limit=min(PAGE, limit - len(found)))
            found += page
            if not page or page[-1].cut or (in_turn and page[-1].turn != found[0].turn):
                break
            thread_id, checkpoint_id = page[-1].parent_thread or page[-1].thread_id, page[-1].parent_id or ""
        return records.landmarks(found, in_turn=in_turn)

    async def _back(
        self, thread_id: str, checkpoint_id: str, way: Literal["line", "path"], limit: int = 2**62
    ) -> tuple[list[Entry], Snapshot | None]:
        """A checkpoint and its ancestors, newest first; of a line also the snapshot at its end."""
        found: list[Entry] = []
        base: bytes | str = "?"
        while checkpoint_id and len(found) < limit:
            most = min(PAGE, limit - len(found))
            page, onward, then, base, snapshot = await self._run("back", thread_id, checkpoint_id, most, way, base)
            found += [records.entry(thread_id, name.decode(), (link, body)) for name, link, body in page]
            if snapshot is not None:
                return found, read_snapshot(thread_id, found[-1].checkpoint.id, snapshot)
            thread_id, checkpoint_id = onward.decode() or thread_id, then.decode()
        return found, None

    async def ancestor(self, thread_id: str, checkpoint_id: str, step: int) -> Checkpoint | None:
        while checkpoint_id:
            found, onward, then = await self._run("ancestor", thread_id, checkpoint_id, step, _FAR)
            for name, link, body in found:
                return records.entry(thread_id, name.decode(), (link, body)).checkpoint
            thread_id, checkpoint_id = onward.decode() or thread_id, then.decode()
        return None

    async def walk(self, thread_id: str) -> AsyncIterator[Checkpoint]:
        after: bytes | str = "-"
        while True:
            places, links, bodies, counted = await self._run("walk", thread_id, after, PAGE, ID_FROM)
            if len(set(counted)) > 1:
                raise await self._stray(thread_id)
            for at, link, body in zip(places, links, bodies, strict=True):
                yield records.entry(thread_id, id_in(at), (link, body)).checkpoint
            if len(places) < PAGE:
                return
            after = b"(" + places[-1]

    async def _stray(self, thread_id: str) -> IntegrityError:
        """Which checkpoint is known by one key and not by another."""
        part = self._keys.part
        places, links, bodies = await self._ask_all(
            [
                ("ZRANGE", part(thread_id, "steps"), 0, -1), ("HKEYS", part(thread_id, "links")),
                ("HKEYS", part(thread_id, "checkpoints")),
            ]
        )  # fmt: skip
        names = [set(map(id_in, places)), {link.decode() for link in links}, {body.decode() for body in bodies}]
        [row, *_] = sorted(set.union(*names) - set.intersection(*names)) or [""]
        return IntegrityError(
            f"Thread {thread_id}: a part of checkpoint {row} is missing.",
            hint="Run `perdure db verify`.", table="checkpoints", row=row,
        )  # fmt: skip

    async def snapshots(self, thread_id: str) -> list[Snapshot]:
        steps: dict[str, int] = {}
        found: dict[str, Snapshot] = {}
        for stored_name, stored, link in await self._run("snapshots", thread_id):
            name = stored_name.decode()
            found[name] = read_snapshot(thread_id, name, stored)
            steps[name] = records.link(thread_id, name, link).step if link is not None else -1
        return sorted(found.values(), key=lambda snapshot: steps[snapshot.checkpoint_id])

    async def _entries(self, thread_id: str, checkpoint_ids: Sequence[str]) -> list[Entry]:
        """Those of the checkpoints that are there."""
        ids, links, bodies, _ = await self._stored_rows(thread_id, checkpoint_ids)
        found = [row for row in zip(ids, links, bodies, strict=True) if row[1] is not None or row[2] is not None]
        return [records.entry(thread_id, name, (link, body)) for name, link, body in found]

    async def _stored_rows(self, thread_id: str, checkpoint_ids: Sequence[str]) -> tuple[Sequence[str], Any, Any, Any]:
        links, bodies, snapshots = (
            await self._run("rows", thread_id, *checkpoint_ids) if checkpoint_ids else ([], [], [])
        )
        return checkpoint_ids, links, bodies, snapshots


def _order(c: Checkpoint) -> dict[str, Json]:
    """What a script has to know to put in a checkpoint."""
    return {"id": c.id, "place": place(c.step, c.id), "labels": labels.own(c)}


def _outcome(step: Step, told: str, stands: str) -> bool:
    if told in ("done", "known"):
        return told == "done"
    if told == "late":
        raise too_slow(step.checkpoint.thread_id)
    refusal = {"other": refusals.other_content, "moved": refusals.head_moved}.get(told)
    raise refusal(step, stands) if refusal else refusals.no_parent(step)


def stored_snapshot(snapshot: Snapshot | None) -> bytes:
    """A snapshot as it is stored; empty for none."""
    return bytes.fromhex(snapshot.digest) + packed(snapshot.state) if snapshot else b""


def read_snapshot(thread_id: str, checkpoint_id: str, stored: bytes) -> Snapshot:
    """The inverse of ``stored_snapshot``. Raises IntegrityError."""
    try:
        state = unpacked(stored[_DIGEST:])
    except zlib.error as error:
        raise IntegrityError(
            f"Thread {thread_id}: the snapshot at {checkpoint_id} can't be read: {error}.",
            hint="Run `perdure db verify`.", table="snapshots", row=checkpoint_id,
        ) from error  # fmt: skip
    return Snapshot(checkpoint_id=checkpoint_id, state=state, digest=stored[:_DIGEST].hex())
