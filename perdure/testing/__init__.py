"""Servers for tests, offline: a model that follows a script, and what it takes to build others.

- ``ModelServer``: the OpenAI protocol on 127.0.0.1, answering by a ``Script`` of ``Rule``s and going wrong by
  ``ModelFault``s; its journal holds ``ModelCall``s.
- ``say``, ``call``, ``together``, ``refuse`` make the ``Reply``s of a rule (and their ``Call``s); ``result``
  is an argument taken from a tool's result.
- ``ControlledServer``: the base of a server with faults (``Trouble``), holds and a journal; ``NoAnswer`` is
  the response that closes the connection. Below it ``LocalServer``, the plain one. ``run_as_process`` serves
  either in a process of its own.

- ``perdure.testing.conformance`` has the checks that every checkpoint store passes, for those who write one. It needs
  pytest, so it is imported by its own name.

Fakes for the demo, the examples and people's tests: nothing else in Perdure imports them.
"""

from perdure.testing.answer import NoAnswer
from perdure.testing.control import ControlledServer
from perdure.testing.conversation import Conversation
from perdure.testing.faults import Trouble
from perdure.testing.model_fault import ModelFault
from perdure.testing.script import (
    Call,
    Reply,
    Rule,
    Script,
    ScriptError,
    call,
    refuse,
    result,
    say,
    together,
)
from perdure.testing.serve import LocalServer, run_as_process
from perdure.testing.server import ModelCall, ModelServer

__all__ = [
    "Call",
    "ControlledServer",
    "Conversation",
    "LocalServer",
    "ModelCall",
    "ModelFault",
    "ModelServer",
    "NoAnswer",
    "Reply",
    "Rule",
    "Script",
    "ScriptError",
    "Trouble",
    "call",
    "refuse",
    "result",
    "run_as_process",
    "say",
    "together",
]
