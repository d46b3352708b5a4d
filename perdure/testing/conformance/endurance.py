"""Checks of long threads: what a checkpointer writes over hundreds of steps, and reads back cold."""

from perdure.canonical import canonical
from perdure.checkpointer import READ_FACTOR, READ_FLOOR, Change, Checkpointer, Position
from perdure.stores.base import Store
from perdure.testing.conformance.suite import Suite
from perdure.testing.conformance.writer import add, checkpoint_id, put

_STEPS = 200


class Endurance(Suite):
    """Two hundred steps through one checkpointer."""

    async def test_two_hundred_steps_that_grow(self, store: Store) -> None:
        """A conversation: every state is there, and none of it was written twice."""
        positions = await self._written(store, overwrites=False)
        assert await store.snapshots("long") == []
        await self._check(store, positions)

    async def test_two_hundred_steps_that_overwrite(self, store: Store) -> None:
        """A page that is written again and again: snapshots keep every load short."""
        positions = await self._written(store, overwrites=True)
        snapshots = await store.snapshots("long")
        assert len(snapshots) > 10
        assert {snapshot.checkpoint_id for snapshot in snapshots} == {p.base_id for p in positions} - {None}
        await self._check(store, positions)

    async def _written(self, store: Store, *, overwrites: bool) -> list[Position]:
        checkpointer, positions = Checkpointer(store), list[Position]()
        for n in range(_STEPS):
            delta = put(f"{n} " * 300) if overwrites else add({"id": n, "text": f"{n} " * 30})
            change = Change(
                thread_id="long", checkpoint_id=checkpoint_id(), source="step", turn=n // 10, delta=delta,
                metadata={"tenth": n // 10},
            )  # fmt: skip
            positions.append(await checkpointer.commit(positions[-1] if positions else None, change))
        return positions

    async def _check(self, store: Store, positions: list[Position]) -> None:
        """Everything is there, in its order, and is read at the cost that it should be."""
        walked = [c async for c in store.walk("long")]
        assert [c.ref for c in walked] == [position.ref for position in positions]
        assert await store.path("long", positions[-1].ref.id, limit=_STEPS + 1) == walked[::-1]
        assert await store.path("long", positions[150].ref.id, limit=20) == walked[150:130:-1]
        assert await store.find({"tenth": 7}, limit=100) == walked[79:69:-1]
        for position in [*positions[::17], positions[-1]]:
            assert await Checkpointer(store).load("long", position.ref.id) == position
            assert await store.ancestor("long", positions[-1].ref.id, position.ref.step) == walked[position.ref.step]
            line = await store.line("long", position.ref.id)
            assert line is not None
            layers = line.layers[1:] if line.snapshot else line.layers
            read = sum(len(layer.delta) for layer in layers) + (len(line.snapshot.state) if line.snapshot else 0)
            state = len(canonical(position.values))
            assert (line.since_base, line.state_size) == (read, state)
            assert read <= READ_FACTOR * state + READ_FLOOR
