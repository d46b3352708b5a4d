"""Starting and stopping the scripted model: in the running loop, and as a process."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from perdure.testing import ModelFault, ModelServer, Rule, Script, call, result, say, together

SCRIPT = Script(
    rules=[Rule(when="hi", on_error="no", replies=[together(say("{f}"), call("f", x=result("f.y")))])],
    fallback=say("Hello."),
    faults=[ModelFault(mode="hang")],
    models=["one", "two"],
)
HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}


async def ask(client: httpx2.AsyncClient) -> Any:
    response = await client.post("/v1/chat/completions", json=HELLO)
    return response.json()["choices"][0]["message"]["content"]


async def test_it_stops_while_requests_are_held() -> None:
    """Whoever waits is cut off at once, and nothing is left behind; then it can start again."""
    server = ModelServer(SCRIPT)
    for _ in range(2):
        async with server, httpx2.AsyncClient(base_url=server.url) as client:
            answer = asyncio.create_task(ask(client))
            await server.held()
            watcher = asyncio.create_task(client.get("/_waiting", params={"count": 2}))
            assert (await client.get("/_waiting")).json() == {"waiting": 1}
            async with asyncio.timeout(1):
                await server.stop()
            for cut_off in (answer, watcher):
                with pytest.raises(httpx2.TransportError):
                    await cut_off
            assert server.waiting == 0
        server.add_fault(ModelFault(mode="hang"))


async def test_a_port_of_ones_own() -> None:
    """The port asked for is the port served; a taken one is an error; an address comes with the start."""
    with pytest.raises(RuntimeError, match="has not been started"):
        _ = ModelServer().url
    async with ModelServer() as first:
        port = int(first.url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="in use"):
            await ModelServer(port=port).start()
    async with ModelServer(port=port) as second:
        assert second.base_url == f"http://127.0.0.1:{port}/v1"


async def test_a_script_survives_a_file(tmp_path: Path) -> None:
    """All of a script is plain data."""
    path = tmp_path / "script.json"
    path.write_text(SCRIPT.model_dump_json())
    assert Script.load(path).model_dump_json() == SCRIPT.model_dump_json()


async def test_it_serves_as_a_process(tmp_path: Path) -> None:
    """The process tells its address, follows its file, and ends when told though it holds a request."""
    path = tmp_path / "script.json"
    path.write_text(SCRIPT.model_dump_json())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "perdure.testing.model_server", "--script", str(path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    address = json.loads(await process.stdout.readline())
    assert address["base_url"] == address["url"] + "/v1"
    async with httpx2.AsyncClient(base_url=address["url"]) as client:
        held = asyncio.create_task(ask(client))
        assert (await client.get("/_waiting", params={"count": 1})).json() == {"waiting": 1}
        assert await ask(client) == "Hello."
        process.terminate()
        with pytest.raises(httpx2.TransportError):
            await held
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
