"""What a statement touches, and the protected names in it replaced in place.

``analyse`` reads a text with PostgreSQL's own grammar, the shell has the server answer its
questions (RESOLVE, ``answers``), and ``decide`` refuses the text or gives what to forward.
"""

from pgbalise.rewrite.bodies import reason_not_to_run
from pgbalise.rewrite.editing import Decision, Step, decide, explain_refusal
from pgbalise.rewrite.names import Answer, Name, Protected, Refusal, Rules, Unreadable
from pgbalise.rewrite.reading import Analysis, analyse, prints_plans
from pgbalise.rewrite.resolving import RESOLVE, answers
from pgbalise.rewrite.shapes import Shape, constants_of, shape_of, shape_text

__all__ = [
    "RESOLVE",
    "Analysis",
    "Answer",
    "Decision",
    "Name",
    "Protected",
    "Refusal",
    "Rules",
    "Shape",
    "Step",
    "Unreadable",
    "analyse",
    "answers",
    "constants_of",
    "decide",
    "explain_refusal",
    "prints_plans",
    "reason_not_to_run",
    "shape_of",
    "shape_text",
]
