"""Asks the worker in this container how it is: exit code 0 for well. The slim image has no curl."""

import http.client
import os
import sys

TIMEOUT_SECONDS = 3.0


def healthy(port: int) -> bool:
    """Only an answer of 200 counts: a worker that drains or has lost Temporal answers 503."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not healthy(int(os.environ.get("PERDURE_HEALTH_PORT", "8080"))))
