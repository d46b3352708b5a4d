"""`perdure demo`: two orders, a killed worker, and books that tell what happened."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep the demo's folder, to look at it afterwards.")] = False,
    home: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The demo's folder, a new one, which is kept.", show_default=False),
    ] = None,
    slow: Annotated[
        bool | None, typer.Option("--slow/--fast", help="Longer pauses to read, or none.", show_default=False)
    ] = None,
    real_model: Annotated[
        bool,
        typer.Option(
            "--real-model",
            help="Ask the model that OPENAI_API_KEY and OPENAI_BASE_URL name. Its story is not scripted.",
        ),
    ] = False,
) -> None:
    """See an order survive the death of its worker, and another one be taken back.

    Needs no network and no answers: it runs its own Temporal server, shop and model, even where OPENAI_API_KEY is set.
    The exit code tells whether the shop's books are right.
    """
    from perdure.examples.orders.demo import PAUSE, SLOW_PAUSE, Options, main

    pause = PAUSE if slow is None else SLOW_PAUSE if slow else 0.0
    raise typer.Exit(main(Options(home=home, keep=keep, pause=pause, real_model=real_model)))
