"""How a process that serves threads is set up, so that it has its processor for them."""

import gc
import os

# Of Python's garbage collector. New objects between two looks for cycles: its usual 700 are not even those of one step.
# The others: how many looks go by until one takes in what is older, and how many of those until one takes in all. A
# workflow that is evicted is a few hundred objects in a cycle, and has become old while its thread waited. With the
# usual tens, thousands of them pile up: with 10,000 threads waiting and 500 workflows cached, 380 MB, not 225.
_GARBAGE = (10_000, 5, 2)


def prepare() -> None:
    """For the beginning of a process, before anything is imported that takes long, and before Temporal is connected to.

    One thread is enough for the SDK's core, which takes as many as there are cores: with Python's one interpreter it
    never has work for more, and they only wake one another. Measured with 50 agents on two cores: a sixth of the
    process's CPU. ``TOKIO_WORKER_THREADS`` in the environment decides otherwise (its runtime's own variable:
    https://docs.rs/tokio/latest/tokio/runtime/struct.Builder.html#method.worker_threads).
    """
    gc.set_threshold(*_GARBAGE)
    os.environ.setdefault("TOKIO_WORKER_THREADS", "1")


def settle() -> None:
    """Tell the garbage collector that what is loaded by now stays until the process ends. Looking through all of it
    takes a tenth of a second, for which every thread that is served here stands still."""
    gc.freeze()
