"""Logs of a process: lines for people, or JSON with ``PERDURE_LOG=json``, always on standard error.

Set up by the processes, never at import. Everything takes the same way out: structlog, the standard library's loggers
(Temporal's SDK, uvicorn, psycopg), and the SDK's Rust core, which would otherwise write to standard output. A line
says which thread it is about, and inside an activity also turn, step and checkpoint.
"""

import logging
import sys
from collections.abc import Mapping
from typing import IO, Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger
from temporalio.exceptions import ApplicationError

from perdure.errors import InvalidInput, PerdureError
from perdure.settings import Settings

# Libraries that report every request or statement; their warnings are still heard.
_TALKATIVE = ("asyncio", "httpcore2", "httpx2", "openai", "uvicorn")
_CORE = "temporalio.core"
_REPEAT = 10.0  # seconds; where Temporal is gone, each of a worker's ten pollers says so, again and again
_FAILED = "Completing activity as failed"  # the SDK's words where an attempt failed, with a traceback


def configure_logging(settings: Settings, stream: IO[str] | None = None) -> None:
    """Set up the logs of this process, as ``PERDURE_LOG`` and ``PERDURE_LOG_LEVEL`` say. Again is anew.

    Raises InvalidInput for a form or a level that there isn't.
    """
    stream, level = stream or sys.stderr, _level(settings.log_level)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(settings.log, stream))
    handler.addFilter(_is_news)
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_common(settings.log),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    _quote_no_context()


def forward_core_logs() -> None:
    """Have the SDK's Rust core log through the standard library's loggers. Before the first client of the process."""
    from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig

    forwarding = LogForwardingConfig(
        logger=logging.getLogger(_CORE), append_target_to_name=False, prepend_target_on_message=False,
        append_log_fields_to_message=False,
    )  # fmt: skip
    config = LoggingConfig(filter=LoggingConfig.default.filter, forwarding=forwarding)
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=config)), error_if_already_set=False)


def _level(name: str) -> int:
    level = logging.getLevelNamesMapping().get(name.upper())
    if level is None:
        raise InvalidInput(f"PERDURE_LOG_LEVEL: there is no level {name!r}.", hint="DEBUG, INFO, WARNING or ERROR.")
    return level


def _formatter(form: str, stream: IO[str]) -> logging.Formatter:
    if form == "json":
        rendering: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    elif form == "text":
        # Plain tracebacks: the pretty ones show the values of variables, and so secrets.
        traceback = structlog.dev.plain_traceback
        rendering = [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=traceback)]
    else:
        raise InvalidInput(f"PERDURE_LOG: there is no form {form!r}.", hint="text or json.")
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_common(form),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
    )


def _quote_no_context() -> None:
    """Temporal's loggers would append a dict of ids to every message; ours are fields of the line."""
    from temporalio import activity, workflow

    workflow.logger.workflow_info_on_message = False
    activity.logger.activity_info_on_message = False


def _is_news(record: logging.LogRecord) -> bool:
    """False where the SDK repeats, with a long traceback, what the guard around activities has said in one line.

    A failure that was raised on purpose says all there is to know in its message; a bug keeps its traceback.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, ApplicationError | PerdureError) and str(record.msg).startswith(_FAILED))


class _Repeats:
    """False for what the SDK's core has said in the same words a moment ago."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written."""
        if record.name != _CORE:
            return True
        now, words = record.created, record.getMessage()
        self._said = {text: at for text, at in self._said.items() if now - at < _REPEAT}
        return self._said.setdefault(words, now) == now


def _core_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """What the SDK's core attaches to its words."""
    core = getattr(event.get("_record"), "temporal_log", None)
    for name, value in (core.fields if core else {}).items():
        event.setdefault(name, value)
    return event


def _where(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The thread, from what Temporal's loggers attach to a record."""
    record = event.get("_record")
    for name in ("temporal_workflow", "temporal_activity"):
        info = getattr(record, name, None)
        if isinstance(info, Mapping):
            event.setdefault("thread", info.get("workflow_id"))
            _copy(info, event, ("activity_type", "activity"), ("attempt", "attempt"))
    return event


def _copy(info: Mapping[str, Any], event: EventDict, *names: tuple[str, str]) -> None:
    for theirs, ours in names:
        if theirs in info:
            event.setdefault(ours, info[theirs])


def _common(form: str) -> list[Processor]:
    """What is done to every line, whoever wrote it."""
    is_json = form == "json"
    return [
        structlog.contextvars.merge_contextvars,
        _where,
        _core_fields,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso" if is_json else "%H:%M:%S", utc=is_json),
        structlog.processors.StackInfoRenderer(),
    ]
