"""SIGINT and SIGTERM: the first asks to stop in good order, the second ends the process at once."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals(last_act: Callable[[], None] = lambda: None) -> Iterator[asyncio.Event]:
    """An event that the first signal sets. ``last_act`` runs before a second one ends the process, with 128 plus the
    signal's number: Temporal notices the missing worker by its silence, and nothing that is recorded is lost."""
    told = asyncio.Event()

    def hear(number: int) -> None:
        if told.is_set():
            last_act()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(128 + number)
        told.set()

    loop = asyncio.get_running_loop()
    for number in _STOPPING:
        loop.add_signal_handler(number, hear, number)
    try:
        yield told
    finally:
        for number in _STOPPING:
            loop.remove_signal_handler(number)
