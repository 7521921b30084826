"""Explains a message to an operator: what became of it, what it waits for, and why.

Pure: everything is given as values. The sentences are for people; `Step` has the same in fields.
"""

from domain.states import Verdict
from services.explanation.known import FINAL_STATUSES, Known, Step, StepKind
from services.explanation.steps import folded, steps_of
from services.explanation.summary import acceptance, choice, ending, remarks, waiting

__all__ = ["Known", "Step", "StepKind", "explain"]


def explain(known: Known) -> tuple[tuple[str, ...], tuple[Step, ...]]:
    """The summary in sentences, the most important one first; and the steps, in order."""
    steps = tuple(folded(steps_of(known)))
    if known.message.status in FINAL_STATUSES or known.message.verdict is Verdict.SENT:
        summary = [ending(known)]
    else:
        summary = [*waiting(known)]
    summary += [*choice(known), *remarks(known), acceptance(known.message)]
    return tuple(summary), steps
