"""The wire types: what crosses Temporal. Workflow, activities and clients meet only here.

Wire types ignore fields they don't know, so that an older worker can serve a thread that a newer client started.
What goes to activities and comes back is written ``lean``: an optional field costs history only where it is used.
"""

from perdure.contracts.base import *  # noqa: F403 - one door to all of them
from perdure.contracts.brief import *  # noqa: F403 - one door to all of them
from perdure.contracts.short import SHORT as SHORT
from perdure.contracts.spec import *  # noqa: F403 - one door to all of them
from perdure.contracts.stubs import *  # noqa: F403 - one door to all of them
from perdure.contracts.tasks import *  # noqa: F403 - one door to all of them
from perdure.contracts.thread import *  # noqa: F403 - one door to all of them
