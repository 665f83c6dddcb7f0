"""A protected relation as a marked view.

The view reads the relation (and, for secondary use, the recipient's decoys) and joins one row of
secrets, read with the view owner's rights: the recipient's stored word and the carriers' seeds.
OFFSET 0 keeps that row one plan node, so that the planner can put it on either side: outside for
a full scan, inside (materialised) when rows must come in the order of an index. A condition
without variables, checked before anything is read, raises an error for a session user who is not
enrolled in the view's class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlglot import exp

from pgbalise.compile.cells import (
    BASE,
    HASHES,
    SECRETS,
    call,
    case,
    cell_hash,
    column,
    integer,
    marked_cell,
)
from pgbalise.marking.policy import Carrier, Derivation, RecipientClass, Relation

CATALOG = "balise"
"""The schema of the catalog."""

DECOYS = "balise_decoy"
"""The schema of the decoys' relations, one for each relation that has decoys."""


def table(name: str, schema: str, alias: str | None = None) -> exp.Table:
    """Return a quoted reference to a relation."""
    return exp.Table(
        this=exp.to_identifier(name, quoted=True),
        db=exp.to_identifier(schema, quoted=True),
        alias=exp.TableAlias(this=exp.to_identifier(alias)) if alias else None,
    )


def marked_view(
    relation: Relation,
    columns: Sequence[str],
    recipient_class: RecipientClass,
    relation_id: int,
    derivation: Derivation,
    server_version: int,
) -> str:
    """Return the SELECT of a marked view, in PostgreSQL's dialect.

    ``columns`` are all columns of the relation in order; ``relation_id`` is the relation's number
    in the catalog; ``server_version`` is PostgreSQL's ``server_version_num``.
    """
    carriers = relation.carriers_for(recipient_class)
    numbers = {c.column: at for at, c in enumerate(relation.carriers, 1)}
    by_name = {carrier.column: carrier for carrier in carriers}
    outputs = []
    for name in columns:
        value: exp.Expr = column(name, BASE)
        if name in by_name:
            value = marked_cell(by_name[name], derivation, numbers[name], server_version)
        outputs.append(exp.alias_(value, exp.to_identifier(name, quoted=True), copy=False))
    used = [numbers[carrier.column] for carrier in carriers]
    source: exp.Expr = table(relation.name, relation.schema, BASE)
    if relation.decoys and recipient_class is RecipientClass.SECONDARY:
        branches = [
            exp.select(*(column(name, "x") for name in columns)).from_(table(where, schema, "x"))
            for where, schema in ((relation.name, relation.schema), (decoy_table(relation), DECOYS))
        ]
        source = exp.Union(this=branches[0], expression=branches[1], distinct=False).subquery(BASE)
    secrets = _secrets(used, recipient_class, relation_id, derivation)
    # the builders' own copies of a wide view took most of the time
    query = exp.select(*outputs, copy=False).from_(source, copy=False)
    query.join(secrets, join_type="cross", copy=False)
    if carriers:
        hashes = _hashes(relation, carriers, numbers)
        query.join(hashes, on=exp.true(), join_type="left", copy=False)
    query.where(_enrolled(recipient_class), copy=False)
    return query.sql(dialect="postgres", normalize_functions=False, copy=False)


def decoy_table(relation: Relation) -> str:
    """Return the name of a relation's decoys in schema DECOYS."""
    return relation.view


def _hashes(
    relation: Relation, carriers: Sequence[Carrier], numbers: Mapping[str, int]
) -> exp.Expr:
    """Return each carrier's cell hash, computed once for a row however often it is used.

    The planner copies the expressions of a plain subquery to where they are used. Below an outer
    join it may not (they could be NULL there), and so computes them once, where the row is made;
    the join itself, with one row that needs no table, it removes.
    """
    outputs = []
    for carrier in carriers:
        number = numbers[carrier.column]
        outputs.append(exp.alias_(cell_hash(carrier, relation.key, number), f"h{number}"))
    return exp.Lateral(
        this=exp.select(*outputs, copy=False).subquery(copy=False),
        alias=exp.TableAlias(this=exp.to_identifier(HASHES)),
    )


def _secrets(
    numbers: Sequence[int],
    recipient_class: RecipientClass,
    relation_id: int,
    derivation: Derivation,
) -> exp.Expr:
    def element(array: str, at: int, name: str) -> exp.Expr:
        value = exp.Bracket(this=column(array, "c"), expressions=[integer(at)], offset=1)
        return exp.alias_(value, name)

    outputs: list[exp.Expr] = [column("word", "r")]
    for number in numbers:
        outputs.append(element("seeds", 2 * number - 1, f"a{number}"))
        outputs.append(element("seeds", 2 * number, f"b{number}"))
        if derivation is Derivation.SHA256:
            outputs.append(element("keys", number, f"k{number}"))
    known = case(
        [
            (
                exp.Is(this=column("relation_id", "c"), expression=exp.null()),
                exp.Dot(this=exp.to_identifier(CATALOG), expression=call("refuse")),
            )
        ],
        exp.true(),
    )
    own = exp.EQ(this=column("relation_id", "c"), expression=integer(relation_id))
    return (
        _word(exp.select(*outputs, copy=False), recipient_class)
        .join(table("relation_secret", CATALOG, "c"), on=own, join_type="left", copy=False)
        .where(known, copy=False)
        .offset(0, copy=False)
        .subquery(SECRETS, copy=False)
    )


def _word(query: exp.Select, recipient_class: RecipientClass) -> exp.Select:
    """Read the session user's row of the codewords, or none."""
    return query.from_(table("codeword", CATALOG, "r"), copy=False).where(
        exp.EQ(this=column("role_name", "r"), expression=exp.var("SESSION_USER")),
        exp.EQ(this=column("class", "r"), expression=exp.Literal.string(recipient_class.value)),
        copy=False,
    )


def _enrolled(recipient_class: RecipientClass) -> exp.Expr:
    """TRUE or an error.

    Without a variable it is a one-time filter above everything that the view reads, so it comes
    before any condition of the caller's.
    """
    found = exp.Exists(this=_word(exp.select("1"), recipient_class))
    refuse = exp.Dot(this=exp.to_identifier(CATALOG), expression=call("refuse"))
    return case([(found, exp.true())], refuse)
