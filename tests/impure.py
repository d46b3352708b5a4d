"""A thread's workflow that looks at the clock of the machine: what the sandbox is there to notice."""

import time

from temporalio import workflow

from perdure.contracts import WORKFLOW, ThreadInput, ThreadResult
from perdure.workflows.thread import AgentThread


@workflow.defn(name=WORKFLOW)
class Impure(AgentThread):
    """Issues the same commands as ``AgentThread``."""

    @workflow.init
    def __init__(self, given: ThreadInput) -> None:
        super().__init__(given)

    @workflow.run
    async def run(self, given: ThreadInput) -> ThreadResult:
        """See base class."""
        time.time()
        return await super().run(given)
