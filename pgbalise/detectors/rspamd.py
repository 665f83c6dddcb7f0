"""A regular expression map for rspamd's multimap module, and the rule that reads it.

https://docs.rspamd.com/modules/multimap: a line of such a map is ``/expression/flags
symbol:score``, so that each decoy has a symbol of its own in rspamd's log and history
(the score there is a factor). The
expressions are on bytes and without look-around: with either, Hyperscan needs half a minute for a
decoy or refuses.
"""

from __future__ import annotations

from typing import Final

from pgbalise.detectors.export import Export, Files
from pgbalise.detectors.expressions import alone, on_utf8, person_expressions

_SCORE: Final = 15.0
"""rspamd's own limit for rejecting a mail."""

_RULE: Final = """\
# {comment}
PGBALISE_DECOY {{
  type = "content";
  filter = "text";
  regexp = true;
  multi = true;
  map = "${{LOCAL_CONFDIR}}/local.d/maps.d/decoys.map";
  score = {score};
  description = "A patient who does not exist: the mail holds data that left the database";
  symbols = [{symbols}];
}}
"""


def write_rspamd(export: Export) -> Files:
    """Return ``decoys.map``, and ``multimap.conf`` which names its symbols."""
    until = f", to be renewed before {export.expires_on}" if export.expires_on else ""
    comment = f"decoys of {export.made_on}{until}"
    lines = [f"# {comment}\n"]
    for target in export.targets:
        texts = [spelling.text for spelling in target.texts]
        expressions = [on_utf8(texts)] if texts else []
        if target.person is not None:
            expressions += person_expressions(target.person, on_utf8)
        symbol = _symbol(target.rule)
        lines += [f"/{alone(each)}/is {symbol}:1.0\n" for each in expressions]
    symbols = ", ".join(f'"{_symbol(target.rule)}"' for target in export.targets)
    return {
        "decoys.map": "".join(lines).encode("ascii"),
        "multimap.conf": _RULE.format(comment=comment, score=_SCORE, symbols=symbols).encode(
            "ascii"
        ),
    }


def _symbol(rule: str) -> str:
    return f"PGBALISE_DECOY_{rule}"
