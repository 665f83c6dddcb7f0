"""What a statement touches, and the protected names in it replaced in place.

``analyse`` reads a text with PostgreSQL's own grammar, the shell has the server answer its
questions (RESOLVE, ``answers``), and ``decide`` refuses the text or gives what to forward.
"""

from pgbalise.rewrite.bodies import reason_not_to_run
from pgbalise.rewrite.editing import Decision, Step, decide, explain_refusal
from pgbalise.rewrite.names import Answer, Name, Protected, Refusal, Rules, Unreadable
from pgbalise.rewrite.reading import Analysis, analyse
from pgbalise.rewrite.resolving import RESOLVE, answers

__all__ = [
    "RESOLVE",
    "Analysis",
    "Answer",
    "Decision",
    "Name",
    "Protected",
    "Refusal",
    "Rules",
    "Step",
    "Unreadable",
    "analyse",
    "answers",
    "decide",
    "explain_refusal",
    "reason_not_to_run",
]
