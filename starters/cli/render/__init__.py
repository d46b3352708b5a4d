"""How things look to a person: tables, and panels on a terminal. Nothing here is read by a program."""

from perdure.starters.cli.render.approvals import approvals, change, inbox, question, request, standing
from perdure.starters.cli.render.audit import audit
from perdure.starters.cli.render.checkpoints import comparison, difference, found, history, state, tree
from perdure.starters.cli.render.effects import effects, plan, promotion, queue, residue_lines, undoing
from perdure.starters.cli.render.tables import moment, state_of, table
from perdure.starters.cli.render.threads import needs, result_lines, status

__all__ = [
    "approvals", "audit", "change", "comparison", "difference", "effects", "found", "history", "inbox", "moment",
    "needs", "plan", "promotion", "question", "queue", "request", "residue_lines", "result_lines", "standing", "state",
    "state_of", "status", "table", "tree", "undoing",
]  # fmt: skip
