"""How things look to a person: tables, and panels on a terminal. Nothing here is read by a program."""

from perdure.starters.cli.render.approvals import approvals, question, questions, request, requests
from perdure.starters.cli.render.checkpoints import difference, found, history, state, tree
from perdure.starters.cli.render.effects import effects, plan, residue_lines
from perdure.starters.cli.render.tables import moment, state_of, table
from perdure.starters.cli.render.threads import needs, result_lines, status

__all__ = [
    "approvals", "difference", "effects", "found", "history", "moment", "needs", "plan", "question", "questions",
    "request", "requests", "residue_lines", "result_lines", "state", "state_of", "status", "table", "tree",
]  # fmt: skip
