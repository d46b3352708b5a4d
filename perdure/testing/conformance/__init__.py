"""The conformance suite of checkpoint stores, for everybody who writes one. It needs pytest and pytest-asyncio.

A store is one that threads can be trusted to when this passes::

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda: MyStore(tmp_path / "store")

Each call of ``make_store()`` gives another store object on one database, which is empty when a test begins. The suite
migrates it, closes every store that it was given, and verifies the database after each test. ``make_bare_store`` is
for databases that take long to make: see ``suite``.
"""

import pytest

_CHECKS = (
    "audits", "commits", "contents", "dryruns", "endurance", "forks", "ledger", "lines", "opening", "picture", "races",
    "removals", "results", "search", "settling", "suite", "threads", "tokens", "writer",
)  # fmt: skip
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _CHECKS))  # so that a failure shows both sides

from perdure.testing.conformance.audits import Audits  # noqa: E402 - only modules imported from here on are rewritten
from perdure.testing.conformance.commits import Commits  # noqa: E402
from perdure.testing.conformance.contents import Contents  # noqa: E402
from perdure.testing.conformance.dryruns import DryRuns  # noqa: E402
from perdure.testing.conformance.endurance import Endurance  # noqa: E402
from perdure.testing.conformance.forks import Forks, Rewinds  # noqa: E402
from perdure.testing.conformance.ledger import Ledger  # noqa: E402
from perdure.testing.conformance.lines import Lines  # noqa: E402
from perdure.testing.conformance.opening import Opening  # noqa: E402
from perdure.testing.conformance.races import Races  # noqa: E402
from perdure.testing.conformance.removals import Removals, Restores  # noqa: E402
from perdure.testing.conformance.results import Blobs, Receipts, Results  # noqa: E402
from perdure.testing.conformance.search import Search  # noqa: E402
from perdure.testing.conformance.settling import Settling  # noqa: E402
from perdure.testing.conformance.suite import MakeStore  # noqa: E402
from perdure.testing.conformance.threads import Copies, Threads  # noqa: E402
from perdure.testing.conformance.tokens import Tokens  # noqa: E402

__all__ = ["MakeStore", "StoreConformance"]


class StoreConformance(
    Opening, Threads, Copies, Commits, Races, Lines, Forks, Rewinds, Removals, Restores, Search, Results, Receipts,
    Blobs, Ledger, Settling, DryRuns, Tokens, Audits, Contents, Endurance,
):  # fmt: skip
    """All checks. A subclass gives the fixture ``make_store``, and is named ``Test…`` for pytest to find it."""
