"""Makes the pictures of the README: the demo in a real terminal, and threads in the real Temporal UI.

    python3 dev.py run python docs/pictures.py

Needs Chromium and its driver on the PATH (`chromium`, `chromedriver`); nothing else in the project does.
"""

import asyncio
import base64
import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
from openai import AsyncOpenAI
from rich.console import Console
from rich.text import Text

from perdure import END, START, Agent, App, Approval, Escalation, Graph, State, ToolContext, tool
from perdure.examples.orders import desk
from perdure.examples.orders.shop import Shop
from perdure.examples.orders.story import ONE_MONITOR, STORY, TWO_LAPTOPS
from perdure.settings import Settings
from perdure.starters.client import Client
from perdure.stores import open_store
from perdure.testing import ModelServer, Script, call, say
from perdure.workers.embedded import EmbeddedServer
from perdure.workers.worker import build_worker

DOCS = Path(__file__).resolve().parent
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync"
)
_PORT = 9515
_SETTLED = 6.0  # seconds until the UI has drawn a page; it polls for ever, so there is no event to wait for


def terminal() -> None:
    """Run the demo in a pseudo-terminal and draw what it wrote."""
    reader, writer = pty.openpty()
    os.environ["COLUMNS"] = "110"
    demo = subprocess.Popen([Path(sys.executable).with_name("perdure"), "demo"], stdout=writer, stderr=writer)
    os.close(writer)
    written = b"".join(iter(lambda: _read(reader), b""))
    if demo.wait() != 0:
        sys.exit(written.decode())
    console = Console(record=True, width=110, file=io.StringIO())
    console.print(Text.from_ansi(written.decode().replace("\r\n", "\n")))
    drawn = console.export_svg(title="python3 dev.py demo")
    # Without the fonts that rich would have the reader's browser fetch from elsewhere.
    (DOCS / "demo.svg").write_text(re.sub(r"@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL), "utf-8")


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65536)
    except OSError:  # Linux says so when the other end of a pseudo-terminal is closed
        return b""


class Article(State):
    """What a person looks at before it is published."""

    approved: bool = False


def asking() -> App:
    """A graph in which a person has the last word."""
    graph = Graph("publish", state=Article)
    graph.node("writer", Agent(name="writer", model="gpt-5-mini", state=Article))
    graph.human("review", lambda state: f"Publish this? {state.messages[-1].content}", answer=bool, into="approved")
    graph.edge(START, "writer")
    graph.edge("writer", "review")
    graph.router("review", lambda state: END if state.approved else "writer", [END, "writer"])
    return App(agents=[graph])


@tool(
    effect="irreversible",
    approval=Approval(
        approvers=["finance"], quorum=2, separation=["requester"], escalations=[Escalation(approvers=["cfo"])],
        reason="Money that leaves can't be called back.",
    ),
)  # fmt: skip
async def pay(ctx: ToolContext, to: str, amount: float) -> str:
    """Pay somebody."""
    return f"paid {amount} to {to}"


def treasury() -> App:
    """An agent that pays, where two people of finance agree, and not the one who asked."""
    agent = Agent(name="treasury", model="gpt-5-mini", tools=[pay])
    return App(agents=[agent], groups={"finance": ["ann", "bob", "cleo"]})


@asynccontextmanager
async def served(home: Path, app: App, script: Script) -> AsyncIterator[tuple[Client, str]]:
    """An app on a worker: a client, and the address of the UI."""
    settings = Settings(home=home)
    store = open_store(settings.store_url())
    await store.migrate()
    async with (
        EmbeddedServer(home=home, settings=settings) as server,
        ModelServer(script) as model,
        AsyncOpenAI(base_url=model.base_url, api_key="offline") as openai,
    ):
        client = await Client.connect(address=server.address, settings=settings)
        async with build_worker(client.temporal, app=app, store=store, settings=settings, model=openai):
            yield client, server.ui
    await store.close()


@asynccontextmanager
async def question(home: Path) -> AsyncIterator[str]:
    """A thread that waits for an answer; the address of the UI that shows it."""
    script = Script(fallback=say("Durable agents: what a crash can't take from them."))
    async with served(home, asking(), script) as (client, ui):
        _, accepted = await client.start("publish", "An article about durable agents", thread="article-1")
        await client.wait("article-1", accepted.message_id)
        yield ui


@asynccontextmanager
async def approval(home: Path) -> AsyncIterator[str]:
    """A thread whose call an approver has changed; the address of the UI that shows it."""
    script = Script(fallback=call("pay", to="Lex & Co", amount=9000.0))
    async with served(home, treasury(), script) as (client, ui):
        _, accepted = await client.start("treasury", "Pay the lawyers", thread="payment-1", sender="dan")
        await client.wait("payment-1", accepted.message_id)
        request = await client.request("payment-1")
        await client.decide("payment-1", "approve", request, approver="ann")
        changed = {"to": "Lex & Co", "amount": 900.0}
        await client.decide("payment-1", "approve", request, approver="bob", arguments=changed, reason="A zero less")
        await client.signal_decision("payment-1", "approve", request, approver="dan")
        await asyncio.sleep(1)
        yield ui


@asynccontextmanager
async def threads(home: Path) -> AsyncIterator[str]:
    """A waiting thread and a compensated one; the address of the UI that shows them."""
    async with Shop(home / "shop.db") as shop:
        os.environ["ORDERS_SHOP_URL"] = shop.url
        async with served(home, desk.app, STORY) as (client, ui):
            for thread, message in (("orders-17", TWO_LAPTOPS), ("orders-18", ONE_MONITOR)):
                _, accepted = await client.start("orders", message, thread=thread)
                await client.wait(thread, accepted.message_id)
            yield ui


@contextmanager
def browser() -> Iterator[httpx2.Client]:
    """A headless Chromium behind its driver's HTTP protocol (WebDriver)."""
    driver = subprocess.Popen(["chromedriver", f"--port={_PORT}"], stdout=subprocess.DEVNULL)
    transport = httpx2.HTTPTransport(retries=20)
    options = {"goog:chromeOptions": {"args": _FLAGS.split()}, "pageLoadStrategy": "none"}
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{_PORT}", transport=transport, timeout=60) as client:
            answer = client.post("/session", json={"capabilities": {"alwaysMatch": options}})
            client.base_url = httpx2.URL(f"{client.base_url}/session/{answer.json()['value']['sessionId']}")
            yield client
            client.delete("")
    finally:
        driver.terminate()
        driver.wait()


async def photograph(client: httpx2.Client, url: str, name: str, height: int) -> None:
    """One page as a PNG in this folder."""
    client.post("/window/rect", json={"width": 1700, "height": height})
    client.post("/url", json={"url": url})
    await asyncio.sleep(_SETTLED)
    (DOCS / name).write_bytes(base64.b64decode(client.get("/screenshot").json()["value"]))


async def ui() -> None:
    """Threads as the UI shows them: what one waits for, what became of another, what a third asks a person."""
    with tempfile.TemporaryDirectory() as home:
        async with threads(Path(home)) as address:
            pages = f"{address}/namespaces/default/workflows"
            with browser() as client:
                await photograph(client, f"{pages}/orders-17", "ui-timeline.png", 1000)
                run = client.get("/url").json()["value"].rsplit("/", 2)[-2]
                await photograph(client, f"{pages}/orders-17/{run}/user-metadata", "ui-waiting.png", 1400)
                await photograph(client, f"{pages}/orders-18", "ui-compensated.png", 1250)
    for make, thread, name in (
        (question, "article-1", "ui-question.png"),
        (approval, "payment-1", "ui-approval.png"),
    ):
        with tempfile.TemporaryDirectory() as home:
            async with make(Path(home)) as address:
                with browser() as client:
                    page = f"{address}/namespaces/default/workflows/{thread}"
                    await photograph(client, page, name, 1250)
                    run = client.get("/url").json()["value"].rsplit("/", 2)[-2]
                    await photograph(client, f"{page}/{run}/user-metadata", name, 1250)


if __name__ == "__main__":
    asyncio.run(ui())
    terminal()
