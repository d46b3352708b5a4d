"""A client for Temporal: its own settings, our data converter, patience, and an error that says what to do.

Workers and starters both come in through here.
"""

import asyncio
import gc
from typing import Any

from temporalio.client import Client, GrpcCompression
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from perdure.errors import InvalidInput, TemporalUnreachable
from perdure.wire import data_converter

_LAST_CALLS = 0.2  # seconds; without them about one process in five died at its exit, after all its work was done
_EMBEDDED = 3  # attempts: it has said that it is up, but a busy machine may be slow to answer
_OURSELVES = ("localhost:", "127.", "[::1]:")  # how addresses of this very machine begin


async def connect(*, address: str = "", namespace: str = "", profile: str = "", attempts: int = 3) -> Client:
    """A client from the arguments, else ``TEMPORAL_*`` and Temporal's profile file.

    Raises TemporalUnreachable after ``attempts`` tries, with growing pauses; InvalidInput for an unknown profile.
    """
    try:
        config = ClientConfig.load_client_connect_config(profile=profile or None)
    except RuntimeError as error:
        raise InvalidInput(f"Temporal's configuration can't be read: {error}.") from error
    options: dict[str, Any] = dict(config)
    options.update({name: value for name, value in (("target_host", address), ("namespace", namespace)) if value})
    options.setdefault("target_host", "localhost:7233")
    try:
        return await _client(attempts, **options)
    except (RuntimeError, RPCError) as error:
        raise TemporalUnreachable(
            f"No Temporal server answers at {options['target_host']}.",
            hint="Start one with `perdure dev`, or name yours with --address or TEMPORAL_ADDRESS.",
        ) from error


async def connect_embedded(address: str) -> Client:
    """A client for our own server: ``TEMPORAL_*`` may name another one, with its keys and TLS.

    Raises TemporalUnreachable.
    """
    try:
        return await _client(_EMBEDDED, target_host=address)
    except (RuntimeError, RPCError) as error:
        raise TemporalUnreachable(f"The embedded Temporal server at {address} doesn't answer: {error}.") from error


async def _client(attempts: int, *, target_host: str, **options: Any) -> Client:
    # Between processes of one machine, compression takes both of them longer than what it saves.
    near = target_host.startswith(_OURSELVES)
    patiently = AsyncRetrying(
        retry=retry_if_exception_type((RuntimeError, RPCError)),
        stop=stop_after_attempt(attempts), wait=wait_exponential_jitter(multiplier=0.2, max=2.0), reraise=True,
    )  # fmt: skip
    return await patiently(
        Client.connect, target_host, data_converter=data_converter,
        grpc_compression=GrpcCompression.NONE if near else GrpcCompression.GZIP, **options,
    )  # fmt: skip


async def let_go() -> None:
    """The last thing in the loop of a process that had a client, once nothing refers to it: the SDK's own threads
    finish while there is still an interpreter to finish in."""
    gc.collect()
    await asyncio.sleep(_LAST_CALLS)
