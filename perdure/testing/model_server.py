"""The scripted model as a process: ``python -m perdure.testing.model_server --script FILE --port N``.

Once it listens it writes one JSON line, ``{"base_url": "http://127.0.0.1:PORT/v1", "url": "..."}``, to
standard output; SIGINT and SIGTERM end it at once.
"""

import argparse
from pathlib import Path

from perdure.testing.script import Script
from perdure.testing.serve import run_as_process
from perdure.testing.server import ModelServer


def main(argv: list[str] | None = None) -> None:
    """Read the options and serve. Raises OSError for a taken port, ValidationError for a wrong script."""
    parser = argparse.ArgumentParser(prog="python -m perdure.testing.model_server", description=__doc__)
    parser.add_argument("--script", type=Path, required=True, help="a Script as a JSON file")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    options = parser.parse_args(argv)
    server = ModelServer(Script.load(options.script), port=options.port)
    run_as_process(server, lambda: {"base_url": server.base_url, "url": server.url})


if __name__ == "__main__":
    main()
