"""The client: everything the CLI does, as a Python API.

client = await Client.connect()
await client.start("orders", "Buy two laptops", thread="orders-17")
result = await client.wait("orders-17")
"""

from perdure.starters.checkpoints import Checkpoints
from perdure.starters.decisions import Decisions
from perdure.starters.leases import Leases
from perdure.starters.operations import Operations
from perdure.starters.threads import Threads
from perdure.starters.travel import TimeTravel


class Client(TimeTravel, Threads, Checkpoints, Decisions, Operations, Leases):
    """Talks to threads through Temporal, and to the store where a question needs it.

    One door to all nouns: each is a class of its own, in the module of its name.
    """
