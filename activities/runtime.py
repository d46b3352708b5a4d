"""What the activities of a worker share: the app, the store, the model client."""

from dataclasses import dataclass

from openai import AsyncOpenAI

from perdure.app import App
from perdure.canonical import canonical
from perdure.checkpointer import CACHE_STATES, Checkpointer, Position
from perdure.contracts import INLINE, SHORT, AgentSpec, Brief, Commit, Committed, Common, Limits, brief
from perdure.delta import Delta
from perdure.errors import Failed, ThreadNotFound, ToolGone
from perdure.graphs.definition import Definition
from perdure.security.keyring import Keyring
from perdure.security.signing import ApproverKeys
from perdure.states.schema import Opened, open_position
from perdure.stores.base import CachedResult, Store
from perdure.tool import Tool

_LINEAGES = 10_000  # threads whose lineage is kept in mind, about a megabyte
_DEFINITIONS = "definitions"  # scope of a result: the whole digest of a definition, by its beginning


class Runtime:
    """One a worker. ``limits`` are recorded with each turn; ``keyring`` opens and seals what is sensitive.
    With ``approver_keys`` only signed decisions count. ``cached``: how many states are kept in memory."""

    def __init__(
        self, *, app: App, store: Store, limits: Limits, model: AsyncOpenAI | None = None,
        keyring: Keyring | None = None, approver_keys: ApproverKeys | None = None, cached: int = CACHE_STATES,
    ) -> None:  # fmt: skip
        self.app = app
        self.store = store
        self.limits = limits
        self.keyring = keyring
        self.approver_keys = approver_keys
        self.checkpointer = Checkpointer(store, cache_states=cached)
        self._model = model
        self._definitions: dict[str, Definition] = {}
        self._lineages: dict[str, str] = {}

    @property
    def model(self) -> AsyncOpenAI:
        """The client of the model; reads OPENAI_API_KEY and OPENAI_BASE_URL at its first use.

        Its own retries are off: Temporal retries, so that every attempt is visible and survives the worker.
        """
        if self._model is None:
            self._model = AsyncOpenAI(max_retries=0)
        return self._model

    async def publish(self, agent: str) -> Definition:
        """The agent as it is now, kept in the store under its digest."""
        definition = self.app.graph(agent).definition(self.app.tools, self.limits)
        name = definition.spec.digest
        if name[:SHORT] not in self._definitions:
            undigested = definition.model_copy(update={"spec": definition.spec.model_copy(update={"digest": ""})})
            await self.store.put_blob("definition", canonical(undigested.model_dump(mode="json")))
            await self.store.put_result(CachedResult(scope=_DEFINITIONS, key=name[:SHORT], value=name.encode()))
            self._definitions[name[:SHORT]] = definition
        return definition

    async def definition(self, name: str) -> Definition:
        """The agent as it was when the turn began, by its digest or the beginning of it that a history has."""
        if name[:SHORT] not in self._definitions:
            known = await self.store.result(_DEFINITIONS, name[:SHORT])
            whole = known.value.decode() if known and known.value else name
            blob = await self.store.blob(whole)
            if blob is None:
                raise Failed(f"The store has no agent definition {name[:12]}….", hint="Do all workers share one store?")
            definition = Definition.model_validate_json(blob)
            spec: AgentSpec = definition.spec.model_copy(update={"digest": whole})
            self._definitions[name[:SHORT]] = definition.model_copy(update={"spec": spec})
        return self._definitions[name[:SHORT]]

    async def lineage(self, thread_id: str) -> str:
        """What a thread shares its cached results with: itself and its forks."""
        if thread_id not in self._lineages:
            row = await self.store.thread(thread_id)
            if row is None:
                raise ThreadNotFound(f"The store has no thread {thread_id}.")
            if len(self._lineages) >= _LINEAGES:
                del self._lineages[next(iter(self._lineages))]
            self._lineages[thread_id] = row.lineage
        return self._lineages[thread_id]

    def tool(self, name: str) -> Tool:
        """The tool of this name in the code as it is now. Raises ToolGone."""
        if name not in self.app.tools:
            raise ToolGone(
                f"The tool {name!r} is no longer part of the app.", hint="Deploy it again, or go on without it."
            )
        return self.app.tools[name]

    async def head(self, commit: Commit) -> Position:
        """The position that a commit extends."""
        assert commit.head is not None, "only the first checkpoint of a thread has no head"
        return await self.checkpointer.load(commit.thread_id, commit.head.id, expect=commit.head.digest)

    async def common(
        self, commit: Commit, spec: AgentSpec, node: str, *, channel: str = "", call_id: str = ""
    ) -> Common:
        """What the workflow knows of the step that a task is about to commit."""
        head = (await self.head(commit)).ref
        return Common(
            head=head, id=commit.id, node=node, turn=commit.turn, routes=spec.nodes[node].routes, channel=channel,
            call_id=call_id,
        )  # fmt: skip

    async def earlier(self, commit: Commit) -> Committed | None:
        """What another attempt committed and could not report."""
        found = await self.found(commit)
        return found.told() if found else None

    async def found(self, commit: Commit) -> "Merged | None":
        """The step, where another attempt has committed it."""
        found = await self.store.checkpoint(commit.thread_id, commit.id)
        if found is None:
            return None
        position = await self.checkpointer.load(commit.thread_id, found.id)
        return Merged(position=position, delta=found.delta)

    async def open(self, commit: Commit, agent: str) -> Opened:
        """The state that a commit extends, as the agent's own: unsealed, and in the version that the code has."""
        return self.opened(agent, await self.head(commit) if commit.head else None)

    def opened(self, agent: str, position: Position | None) -> Opened:
        """A position as the agent's own state."""
        return open_position(self.app.graph(agent).state, position, self.keyring)


@dataclass(frozen=True)
class Merged:
    """A committed step: where the thread stands, and what changed."""

    position: Position
    delta: Delta

    def told(self) -> Committed:
        """As the workflow is told: the delta itself only while it is small."""
        position = self.position
        return Committed(
            head=position.ref, next=position.next.nodes, schema_version=position.schema_version,
            delta=self.delta if len(canonical(self.delta)) <= INLINE else None,
        )  # fmt: skip

    def brief(self, common: Common) -> Brief:
        """As it is told where it was committed by its only task."""
        return brief(self.told(), common, plain=self.position.next.is_plain)
