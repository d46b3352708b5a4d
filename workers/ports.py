"""Ports of the embedded server: the usual ones while they are free."""

import socket

from perdure.errors import Conflict

HOST = "127.0.0.1"
TEMPORAL_PORT = 7233
UI_PORT = 8233


def choose_port(wanted: int | None, usual: int) -> int:
    """The port asked for; where none was, the usual one, or else any free one. Raises Conflict if it is taken."""
    if wanted is None:
        return usual if is_free(usual) else free_port()
    if not is_free(wanted):
        raise Conflict(f"Port {wanted} is taken.", hint="Choose another one, or none: then a free one is found.")
    return wanted


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: what just closed is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Any port where a server could listen now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
