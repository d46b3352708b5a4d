"""The connection to a Redis or Valkey server, or to a cluster: commands, scripts, patience, and errors as ours."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from perdure.errors import InvalidInput, StoreUnreachable

Argument = str | bytes | int
Command = Sequence[Argument]

_CONNECTIONS = 50  # at once; whoever needs one more waits
_SECONDS = 10.0  # for an answer, for a connection, and for replicas
# A server that is started again, or a replica that takes over, is back within seconds: nine attempts last about three.
# All that a store sends may be sent again, see perdure.stores.redis_store.
_RETRIES = 8
_READS = frozenset(
    {"ancestor", "back", "effects", "forks", "lines", "outline", "receipts", "rows", "snapshots", "strays", "walk"}
)  # the scripts that change nothing: replicas are none of their business
_AGAIN: tuple[type[exceptions.RedisError], ...] = (
    exceptions.ConnectionError, exceptions.TimeoutError, exceptions.BusyLoadingError, exceptions.ReadOnlyError,
    exceptions.ClusterDownError, exceptions.MasterDownError, exceptions.TryAgainError,
)  # fmt: skip


class Options(NamedTuple):
    """What a URL says to us; the rest of it is for the driver. ``wait``: for how many replicas a write waits."""

    prefix: str
    wait: int = 0
    cluster: bool = False


class _Script(NamedTuple):
    source: str
    sha: str


class Server:
    """A server; ``url`` is as people may see it. Every method raises StoreUnreachable when it doesn't answer."""

    def __init__(self, url: str, options: Options, client: "Redis | RedisCluster") -> None:
        self.url = url
        self._is_cluster = options.cluster
        self._wait = options.wait
        self._client: Any = client  # the two have the methods that are used here in common, but no type

    @classmethod
    def at(cls, url: str, prefix: str) -> "tuple[Server, Options]":
        """The server that a URL names, and what else it says. Nothing is sent yet. Raises InvalidInput."""
        options, plain = _options(url, prefix)
        retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), _RETRIES, supported_errors=_AGAIN)
        limits: dict[str, Any] = {
            "socket_timeout": _SECONDS, "socket_connect_timeout": _SECONDS, "protocol": 2, "retry": retry,
        }  # fmt: skip
        client: Redis | RedisCluster
        try:
            if options.cluster:
                client = RedisCluster.from_url(plain, **limits)
            else:
                pool = BlockingConnectionPool.from_url(
                    plain, **{"max_connections": _CONNECTIONS, "timeout": _SECONDS, **limits}
                )
                pool.connection_class(**pool.connection_kwargs)  # who misspells an option learns it now
                client = Redis.from_pool(pool)
        except (TypeError, ValueError, exceptions.RedisClusterException) as error:
            raise InvalidInput(f"{_shown(url)} names no store: {error}.") from error
        return cls(_shown(url), options, client), options

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.aclose()

    async def ask(self, *command: Argument) -> Any:
        """Send a command that only reads."""
        with self._mapped():
            return await self._client.execute_command(*command)

    async def ask_everywhere(self, *command: Argument) -> list[Any]:
        """Send a command about the server itself, on a cluster to each primary; the answers in a constant order."""
        if not self._is_cluster:
            return [await self.ask(*command)]
        with self._mapped():
            await self._client.initialize()
            nodes = sorted(self._client.get_primaries(), key=lambda node: node.name)
            return [await self._client.execute_command(*command, target_nodes=node) for node in nodes]

    async def ask_all(self, commands: Sequence[Command]) -> list[Any]:
        """Send several that only read, in one round trip."""
        return await self._send(commands) if commands else []

    async def tell_all(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands that write, in one round trip; on a cluster, one to each node."""
        if not commands:
            return []
        if not self._wait:
            return await self._send(commands)
        # WAIT is about all that was written before it: so it also counts where this is sent again and changes nothing
        # any more. Half as long as an answer may take, so that the answer comes.
        *answers, replicas = await self._send([*commands, ("WAIT", self._wait, round(_SECONDS * 500))])
        self._check_replicas(replicas)
        return answers

    async def run(self, name: str, keys: Sequence[str], *arguments: Argument) -> Any:
        """Run a script; its answer."""
        script = _script(name)
        send = self.ask_all if name in _READS else self.tell_all
        rest = (len(keys), *keys, *arguments)
        try:
            return (await send([("EVALSHA", script.sha, *rest)]))[0]
        except exceptions.NoScriptError:  # a server that was started again has forgotten it
            return (await send([("EVAL", script.source, *rest)]))[0]

    async def keys(self, pattern: str) -> "list[bytes]":
        """All keys that match, on all nodes; reads every key there is."""
        with self._mapped():
            return [key async for key in self._client.scan_iter(match=pattern, count=1000)]

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        with self._mapped():
            if len(commands) == 1:
                return [await self._client.execute_command(*commands[0])]
            async with self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = await pipeline.execute()
                return answers

    def _check_replicas(self, replicas: int) -> None:
        if replicas < self._wait:
            raise StoreUnreachable(
                f"The store {self.url} has written, but {replicas} of {self._wait} replicas have confirmed it."
            )

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except exceptions.NoScriptError:
            raise
        except (TimeoutError, exceptions.RedisError, exceptions.RedisClusterException, OSError) as error:
            raise StoreUnreachable(f"The store {self.url} doesn't answer: {error}.") from error


def _options(url: str, prefix: str) -> tuple[Options, str]:
    """What of the URL is ours, and the URL without it."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in query if name in Options._fields}
    try:
        options = Options(
            prefix=ours.get("prefix", prefix), wait=int(ours.get("wait", "0")),
            cluster=ours.get("cluster", "no").lower() in ("1", "yes", "true"),
        )  # fmt: skip
    except ValueError as error:
        raise InvalidInput(f"{_shown(url)} names no store: wait is no number.") from error
    if options.wait and options.cluster:
        raise InvalidInput(f"{_shown(url)} names no store: a cluster can't be waited for.", hint="Leave out wait=.")
    rest = [(name, value) for name, value in query if name not in ours]
    # Put together by hand: urlunsplit makes unix:/path of unix:///path.
    authority = f"//{parts.netloc}" if parts.netloc or parts.scheme == "unix" else ""
    question = f"?{urlencode(rest, quote_via=quote)}" if rest else ""
    return options, f"{parts.scheme}:{authority}{parts.path}{question}"


def _shown(url: str) -> str:
    """The URL without its password."""
    parts = urlsplit(url)
    if parts.password:
        _, _, place = parts.netloc.rpartition("@")
        url = url.replace(parts.netloc, f"{parts.username or ''}:***@{place}", 1)
    query = [(name, "***" if "password" in name else value) for name, value in parse_qsl(urlsplit(url).query)]
    return f"{url.partition('?')[0]}?{urlencode(query, quote_via=quote, safe='*/:')}" if query else url


@cache
def _script(name: str) -> _Script:
    folder = files("perdure.stores").joinpath("lua")
    source = "".join(folder.joinpath(f"{part}.lua").read_text("utf-8") for part in ("common", name))
    return _Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())
