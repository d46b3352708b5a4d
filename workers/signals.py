"""SIGINT, SIGTERM, SIGHUP: the first asks to stop in good order, the second ends the process at once."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup: the terminal's end is not ours
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, hear, number)
    try:
        yield told
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
