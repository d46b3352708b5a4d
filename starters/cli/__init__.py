"""The command line: ``perdure``. One module a noun; ``command`` has what all of them share."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

import perdure
from perdure.errors import PerdureError
from perdure.starters.cli.index import Index
from perdure.starters.cli.output import line
from perdure.workers.tuning import prepare

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="perdure",
    cls=Index,
    help="AI agents that outlive crashes, deploys, rate limits and slow humans.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(perdure.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """The executable. Ends the process at once: one that has used Temporal's SDK sometimes crashes at exit."""
    prepare()
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the reader has gone, `perdure list | head`, or closed it before
            code = code or 1
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. What goes wrong is told on standard error, in one line."""
    try:
        return app(list(arguments) or ["--help"], prog_name="perdure", standalone_mode=False) or 0
    except PerdureError as error:
        return _tell(error, str(error), error.exit_code)
    except typer.TyperException as error:  # what Typer finds wrong with the command line
        message = error.format_message().rstrip(".?")
        return _tell(error, f"{message}. See `{_where(error)} --help`.", error.exit_code)
    except (typer.Abort, KeyboardInterrupt) as error:
        return _tell(error, "Interrupted.", 130)
    except BrokenPipeError:
        return 1
    except Exception as error:
        return _tell(error, f"{type(error).__name__}: {error} (PERDURE_DEBUG=1 shows where.)", 1)


def _where(error: typer.TyperException) -> str:
    context: typer.Context | None = getattr(error, "ctx", None)
    return context.command_path if context else "perdure"


def _tell(error: BaseException, message: str, code: int) -> int:
    if os.environ.get("PERDURE_DEBUG") == "1":
        traceback.print_exception(error)
    typer.echo(f"perdure: {line(message)}", err=True)
    return code
