"""Questions: what human nodes ask people, and their answers."""

from datetime import datetime, timedelta

from pydantic import BaseModel

from perdure.approvals import stamp
from perdure.canonical import Json
from perdure.errors import Refused, RequestNotFound
from perdure.values import Value

MAX_QUESTION = 16_384  # bytes of a question with its JSON schema: it stands in the history and in the answer of a query
KEPT = 20  # answered questions that are remembered


class Question(Value):
    """What a human node asks. ``details`` is any JSON that helps; ``answer_schema`` describes a fitting answer."""

    id: str = ""
    node: str = ""
    text: str
    details: Json = None
    answer_schema: Json = None
    asked_at: str = ""
    expires_at: str = ""
    answered_by: str = ""
    outcome: str = "open"  # open | answered | expired | withdrawn

    def waits_for(self) -> str:
        """The question on one line, for people."""
        return f"question {self.id} of {self.node}: {' '.join(self.text.split())[:200]}"


class QuestionBook(BaseModel):
    """The questions of a thread. Changed only by the workflow."""

    count: int = 0
    questions: dict[str, Question] = {}

    def ask(self, question: Question, node: str, seconds: float, now: datetime) -> Question:
        """Open a question under a new id."""
        self.count += 1
        opened = question.model_copy(
            update={
                "id": f"q{self.count}", "node": node, "asked_at": stamp(now),
                "expires_at": stamp(now + timedelta(seconds=seconds)),
            }
        )  # fmt: skip
        self.questions[opened.id] = opened
        for name in [q.id for q in self.questions.values() if q.outcome != "open"][: -KEPT or None]:
            del self.questions[name]
        return opened

    def open(self) -> list[Question]:
        """Those that wait for an answer, oldest first."""
        return [question for question in self.questions.values() if question.outcome == "open"]

    def close(self, question_id: str, outcome: str, by: str = "") -> None:
        """Answered, expired or withdrawn."""
        asked = self.questions[question_id]
        self.questions[question_id] = asked.model_copy(update={"outcome": outcome, "answered_by": by})

    def check(self, question_id: str, now: datetime) -> Question:
        """The open question of this id. Raises RequestNotFound, or Refused where it is too late."""
        asked = self.questions.get(question_id)
        if asked is None:
            raise RequestNotFound(f"There is no question {question_id!r}.", hint=f"Open: {self._names()}.")
        if asked.outcome != "open":
            raise Refused(f"Question {question_id} is {asked.outcome}.")
        if stamp(now) >= asked.expires_at:
            raise Refused(f"Question {question_id} has expired.")
        return asked

    def _names(self) -> str:
        return ", ".join(question.id for question in self.open()) or "none"
