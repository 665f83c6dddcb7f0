"""Decoys are made, written where the marked views find them, and taken back.

A decoy derives from the master key, its recipient and its number; so retiring one and making
another changes none of the others. The same key, number and state of the database give the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from pgbalise.compile.views import DECOYS, decoy_table
from pgbalise.database import applied_policy, check_master_key, recipients
from pgbalise.decoy_rows import Batch, Place, Rows, Source, put_together, tie_columns
from pgbalise.decoy_tables import refuse_foreign_code, tables_with_decoys
from pgbalise.decoybook import enter, issued
from pgbalise.decoys.columns import Sample
from pgbalise.decoys.identity import Identity, Role
from pgbalise.decoys.issued import IssuedDecoy
from pgbalise.decoys.keys import Ints
from pgbalise.decoys.population import Population, fit_population
from pgbalise.decoys.texts import write_column
from pgbalise.decoys.traits import Spaces, TraitKind, person_trait
from pgbalise.errors import DatabaseProblem, InvalidInput, InvalidPolicy, InvalidRecipient
from pgbalise.free_keys import fresh_numbers, read_numbers, sequence_of, take_numbers
from pgbalise.install import installed
from pgbalise.marking.decoy_policy import MOST_DECOYS
from pgbalise.marking.policy import Policy, RecipientClass
from pgbalise.sampling import Member, Use, family, read_family
from pgbalise.stored_values import (
    broken_checks,
    collided,
    in_use,
    values_of,
    whole_column,
)

if TYPE_CHECKING:
    from pgbalise.decoys.identities import Site
    from pgbalise.marking.keys import MasterKey
    from pgbalise.session import Session

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done and how much there is."""


def _silent(_step: str, _done: int, _total: int) -> None:
    pass


BATCH: Final = 10_000
"""Decoys that are drawn at once."""

_ATTEMPTS: Final = 6
_ROUNDS: Final = 40

ALONE: Final = (Role.RECORD_NUMBER, Role.NIR, Role.NIR_13, Role.MAIL, Role.RPPS)
"""What no two decoys share, whoever has them. Of telephone numbers that nobody can have there are
too few for that."""

NOBODYS: Final = (*ALONE, Role.PHONE, Role.MOBILE)
"""What no decoy shares with a real row."""


@dataclass(frozen=True)
class _Wanted:
    """A decoy to be made."""

    recipient: str
    number: int


@dataclass
class _Run:
    """One making of decoys: what it learned, and what is in use."""

    session: Session
    key: MasterKey
    policy: Policy
    source: Source
    population: Population
    site: Site
    now: datetime
    taken: dict[Role, set[str]]
    persons: set[str]
    texts: dict[Place, set[str]]
    retired_keys: Mapping[Place, Mapping[str, list[int]]]
    fresh: dict[Place, list[int]] = field(default_factory=dict)
    rows: int = 0
    out_of_order: int = 0


@dataclass(frozen=True)
class Issue:
    """What one making of decoys gave."""

    decoys: list[IssuedDecoy]
    """The new ones, by recipient and number."""
    rows: int = 0
    """Their rows in all relations."""
    out_of_order: int = 0
    """Rows whose number does not go with their time as the real ones' do: by these an attacker
    who sorts by number could find decoys. ``reserve`` makes them fewer, next time."""
    retired: int = 0
    """Decoys taken back because a real row has got one of their keys."""


def make_decoys(
    session: Session,
    key: MasterKey,
    names: Sequence[str] | None,
    count: int | None,
    now: datetime,
) -> list[IssuedDecoy]:
    """Give recipients decoys, and return the new ones; as ``issue_decoys``."""
    return issue_decoys(session, key, names, count, now).decoys


def issue_decoys(
    session: Session,
    key: MasterKey,
    names: Sequence[str] | None,
    count: int | None,
    now: datetime,
    progress: Progress = _silent,
) -> Issue:
    """Give recipients decoys until each has ``count``, by default as many as the policy says.

    ``names``: only these recipients; None: all of class secondary who are not revoked. Decoys whose
    keys a real row has got since are retired first, and replaced. Must run inside one transaction.
    Raise InvalidPolicy when the policy says nothing of decoys or a column's
    values cannot be made, InvalidRecipient, InvalidInput for another master key or too few patients
    to learn from, DatabaseProblem when keys run out or somebody else makes decoys.
    """
    installed(session)
    _one_at_a_time(session)
    policy = applied_policy(session)
    if policy.decoys is None:
        raise InvalidPolicy(
            "the policy in force does not say which decoys to issue",
            hint="add [decoys] with entity, and apply it",
        )
    count = policy.decoys.per_recipient if count is None else count
    if not 1 <= count <= MOST_DECOYS:
        raise InvalidInput(f"count must be a whole number from 1 to {MOST_DECOYS}")
    check_master_key(session, key)
    roles = _chosen(session, names)
    members = family(session, policy)
    for member in members:
        refuse_foreign_code(session, member.relation)
    version = _policy_version(session)
    progress("looking at what is there", 0, 1)
    known = issued(session)
    clashing = collided(session, members, roles)
    if clashing:
        _retire(session, clashing, now)
    wanted = _wanted(known, roles, count, clashing)
    if not wanted:
        return Issue([], retired=len(clashing))
    run = _learn(session, key, policy, members, known, now, progress)
    if _policy_version(session) != version:
        raise DatabaseProblem("the policy changed meanwhile", hint="run it again")
    made: list[IssuedDecoy] = []
    progress("making decoys", 0, len(wanted))
    for batch in _batches(wanted):
        made += _issue(run, batch)
        progress("making decoys", len(made), len(wanted))
    enter(session, made, key.fingerprint())
    return Issue(made, run.rows, run.out_of_order, len(clashing))


def retire(session: Session, names: Sequence[tuple[str, int]], now: datetime) -> int:
    """Take decoys back, by recipient and number: out of the views, while the catalog keeps them.

    Must run inside one transaction. Those retired before stay as they are. Returns how many were
    taken back. Raise InvalidInput when there is no such decoy.
    """
    installed(session)
    _one_at_a_time(session)
    by_name = {(d.recipient, d.number): d for d in issued(session, [role for role, _ in names])}
    unknown = [f"{role}/{number}" for role, number in names if (role, number) not in by_name]
    if unknown:
        raise InvalidInput(
            f"there is no decoy {unknown[0]}", hint="pgbalise decoys list shows them"
        )
    active = [by_name[name] for name in dict.fromkeys(names) if by_name[name].retired_at is None]
    _retire(session, [decoy.decoy_id for decoy in active], now)
    return len(active)


def reserve(session: Session, count: int) -> dict[str, int]:
    """Take numbers from the sequences of all relations with decoys, for decoys to have later.

    When those are made, the numbers are holes among real ones, and so fit in time. Returns by
    ``schema.relation`` the last number taken. Raise InvalidPolicy without decoys in the policy.
    """
    installed(session)
    if not 1 <= count <= 1_000_000:
        raise InvalidInput("count must be a whole number from 1 to 1,000,000")
    taken = {}
    for member in family(session, applied_policy(session)):
        for name in member.using(Use.NUMBER):
            sequence = sequence_of(session, member, name)
            if sequence is not None:
                taken[member.relation.qualified] = take_numbers(session, sequence, count)[-1]
    return taken


def _one_at_a_time(session: Session) -> None:
    """Wait for whoever else makes or retires decoys; readers go on."""
    session.fetch("LOCK TABLE balise.decoy IN SHARE ROW EXCLUSIVE MODE")


def _policy_version(session: Session) -> int:
    [(version,)] = session.fetch(
        "SELECT max(version) FROM balise.policy WHERE applied_at IS NOT NULL"
    )
    return int(version)


def _chosen(session: Session, names: Sequence[str] | None) -> list[str]:
    """The recipients who are to have decoys."""
    known = {recipient.role: recipient for recipient in recipients(session)}
    able = [
        role
        for role, recipient in known.items()
        if recipient.revoked_at is None and recipient.recipient_class is RecipientClass.SECONDARY
    ]
    if names is None:
        if not able:
            raise InvalidRecipient(
                "nobody is enrolled for secondary use", hint="pgbalise recipient add ROLE"
            )
        return able
    for name in names:
        if name not in known:
            raise InvalidRecipient(f"role {name} is not enrolled")
        if known[name].revoked_at is not None:
            raise InvalidRecipient(f"role {name} is revoked")
        if name not in able:
            raise InvalidRecipient(f"role {name} is enrolled for care, and never gets a decoy")
    return list(dict.fromkeys(names))


def _wanted(
    known: Sequence[IssuedDecoy], roles: Sequence[str], count: int, clashing: Sequence[int]
) -> list[_Wanted]:
    active, last = dict.fromkeys(roles, 0), dict.fromkeys(roles, 0)
    gone = set(clashing)
    for decoy in known:
        if decoy.recipient in active:
            last[decoy.recipient] = max(last[decoy.recipient], decoy.number)
            active[decoy.recipient] += decoy.retired_at is None and decoy.decoy_id not in gone
    return [
        _Wanted(role, last[role] + more)
        for role in roles
        for more in range(1, count - active[role] + 1)
    ]


def _batches(wanted: Sequence[_Wanted]) -> Iterator[list[_Wanted]]:
    """Cut into parts of about BATCH decoys; those of one recipient stay together."""
    part: list[_Wanted] = []
    for one in wanted:
        if len(part) >= BATCH and one.recipient != part[-1].recipient:
            yield part
            part = []
        part.append(one)
    if part:
        yield part


def _retire(session: Session, decoys: Sequence[int], now: datetime) -> None:
    if not decoys:
        return
    ids = list(decoys)
    session.fetch(
        "UPDATE balise.decoy SET retired_at = $2::timestamptz WHERE decoy_id = ANY ($1::bigint[])",
        ids,
        now.isoformat(),
    )
    _remove(session, ids)


def _remove(session: Session, decoys: Sequence[int]) -> None:
    """Delete decoys' rows, found by their recipient and number."""
    for name in tables_with_decoys(session):
        session.run(
            "DELETE FROM %I.%I AS d USING balise.decoy AS b WHERE d.balise_recipient = b.role_name"
            " AND d.balise_decoy = b.decoy_id AND b.decoy_id = ANY (%L::bigint[])",
            DECOYS,
            name,
            "{" + ",".join(map(str, decoys)) + "}",
        )


def _learn(
    session: Session,
    key: MasterKey,
    policy: Policy,
    members: Sequence[Member],
    known: Sequence[IssuedDecoy],
    now: datetime,
    progress: Progress,
) -> _Run:
    """Read the real rows, and learn all that decoys are made from."""
    from pgbalise.decoys.identities import learn_site

    progress("reading real rows", 0, 1)
    readings = read_family(session, members)
    numbers = {
        (at, name): read_numbers(session, member, name, readings[at])
        for at, member in enumerate(members)
        for name in member.using(Use.NUMBER)
    }
    progress("learning from them", 0, 1)
    samples: list[Sample] = [reading.sample for reading in readings]
    population = fit_population(samples, key.derive("decoys", "population"))
    texts: dict[Role, list[str]] = {}
    taken: dict[Role, set[str]] = {role: set() for role in NOBODYS}
    for at, member in enumerate(members):
        for name, role in member.relation.identity.items():
            if role is Role.EMPTY or name not in readings[at].texts:
                continue
            found = readings[at].texts[name].fill_null("").to_pylist()
            texts.setdefault(role, found)
            if role in taken:
                taken[role] |= {text for text in found if text}
            if role is Role.RECORD_NUMBER:
                taken[role] |= whole_column(session, member.relation, name)
    persons = _persons(texts)
    for decoy in known:
        for role in ALONE:
            if role in decoy.identity:
                taken[role].add(decoy.identity[role])
        persons |= {t.value for t in decoy.traits if t.kind is TraitKind.PERSON}
    keys_in_text = {
        (at, name): whole_column(session, member.relation, name)
        | {d.key[name] for d in known if at == 0 and name in d.key}
        for at, member in enumerate(members)
        for name in member.using(Use.TEXT_KEY)
    }
    retired = {
        (0, name): _numbers_of([d for d in known if d.retired_at is not None], name)
        for name in members[0].using(Use.NUMBER)
    }
    source = Source(members, readings, numbers, tie_columns(members, readings))
    site = learn_site(texts)
    return _Run(
        session, key, policy, source, population, site, now, taken, persons, keys_in_text, retired
    )


def _persons(texts: Mapping[Role, Sequence[str]]) -> set[str]:
    """The person traits of the real patients that were read."""
    births = texts.get(Role.BIRTH_DATE, ())
    found = set()
    given = texts.get(Role.GIVEN_NAME, ())
    for role in (Role.FAMILY_NAME, Role.BIRTH_NAME, Role.FULL_NAME):
        names = texts.get(role, ())
        if role is not Role.FULL_NAME and len(given) == len(names):
            names = [
                f"{family_name} {first}" for family_name, first in zip(names, given, strict=True)
            ]
        if len(names) == len(births):
            traits = (
                person_trait(name, born[:10]) for name, born in zip(names, births, strict=True)
            )
            found |= {trait.value for trait in traits if trait is not None}
    return found


def _numbers_of(decoys: Sequence[IssuedDecoy], name: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for decoy in decoys:
        if name in decoy.key:
            found.setdefault(decoy.recipient, []).append(int(decoy.key[name]))
    return found


def _issue(run: _Run, wanted: Sequence[_Wanted]) -> list[IssuedDecoy]:
    """Make decoys and write their rows; those that break a constraint are drawn again."""
    made: list[IssuedDecoy] = []
    pending = list(wanted)
    for attempt in range(_ATTEMPTS):
        done, pending, why = _attempt(run, pending, attempt)
        made += done
        if not pending:
            return sorted(made, key=lambda decoy: decoy.decoy_id)
    raise InvalidPolicy(
        f"{why}: decoys drawn {_ATTEMPTS} times do not keep it",
        hint="write decoys = false for that relation, or give the column a role",
    )


def _attempt(
    run: _Run, wanted: Sequence[_Wanted], attempt: int
) -> tuple[list[IssuedDecoy], list[_Wanted], str]:
    """Draw and write decoys once; return those that hold, the others, and what one broke."""
    session, members = run.session, run.source.members
    again = (attempt,) if attempt else ()
    seeds = [run.key.derive("decoy", one.recipient, one.number, *again) for one in wanted]
    drawn = run.population.draw(seeds)
    identities = _identities(run, seeds, drawn[0])
    names = list(dict.fromkeys(one.recipient for one in wanted))
    places = {name: at for at, name in enumerate(names)}
    owners = np.array([places[one.recipient] for one in wanted], np.int64)
    batch = Batch(
        seeds, [identity for identity, _ in identities], owners, _used(run, places), run.texts
    )
    offsets = {place: len(numbers) if attempt else 0 for place, numbers in run.fresh.items()}
    rows = put_together(
        run.source, batch, drawn, lambda place, n: _fresh(run, place, offsets.get(place, 0), n)
    )
    bad, why = _malformed(members, rows, owners)
    ids = np.array(_decoy_ids(session, len(wanted)), np.int64)
    _write(session, members, rows, ids, [one.recipient for one in wanted], bad)
    broken, constraint = broken_checks(session, members, names, ids[~bad].tolist())
    if broken:
        _remove_rows(session, members, names, broken)
        bad |= np.isin(ids, broken)
        why = constraint
    run.rows += sum(len(part.decoys) for part in rows)
    run.out_of_order += sum(part.out_of_order for part in rows)
    keys = {
        name: rows[0].columns[name].cast(pa.string()).to_pylist()
        for name, _ in members[0].relation.key
    }
    decoys_policy = run.policy.decoys
    assert decoys_policy is not None
    done = [
        IssuedDecoy(
            int(ids[at]),
            one.recipient,
            one.number,
            decoys_policy.mode,
            identities[at][0],
            identities[at][1],
            {name: texts[at] for name, texts in keys.items()},
            run.now,
        )
        for at, one in enumerate(wanted)
        if not bad[at]
    ]
    return done, [one for at, one in enumerate(wanted) if bad[at]], why


def _identities(run: _Run, seeds: Sequence[bytes], entity: Sample) -> list[tuple[Identity, Spaces]]:
    """Draw who decoys are; nobody is somebody else, in the database or among the decoys."""
    from pgbalise.decoys.identities import draw_identities

    members = run.source.members
    roles = {
        role
        for member in members
        for role in member.relation.identity.values()
        if role is not Role.EMPTY
    }
    sexes, births = _sexes_and_births(run, entity)
    decoys = run.policy.decoys
    assert decoys is not None
    found: list[tuple[Identity, Spaces] | None] = [None] * len(seeds)
    pending = list(range(len(seeds)))
    for _ in range(_ROUNDS):
        drawn = draw_identities(
            [seeds[at] for at in pending],
            roles,
            [sexes[at] for at in pending],
            [births[at] for at in pending],
            run.site,
            decoys.mode,
            decoys.mail_domain,
            run.taken,
            run.persons,
        )
        held = _held(run, [identity for identity, _ in drawn])
        for role, texts in held.items():
            run.taken[role] |= texts
        lost = []
        for at, (identity, spaces) in zip(pending, drawn, strict=True):
            mine = {role: identity[role] for role in ALONE if role in identity}
            if any(text in run.taken[role] for role, text in mine.items()) or any(
                identity.get(role) in texts for role, texts in held.items()
            ):
                lost.append(at)
                continue
            for role, text in mine.items():
                run.taken[role].add(text)
            found[at] = identity, spaces
        pending = lost
        if not pending:
            return [one for one in found if one is not None]
    raise InvalidInput(
        "nearly every number of a column with a role is in use", hint="issue fewer decoys"
    )


def _sexes_and_births(run: _Run, entity: Sample) -> tuple[list[str], list[date | None]]:
    count = len(entity)
    sexes: list[str] = [""] * count
    births: list[date | None] = [None] * count
    forms = run.source.readings[0].forms
    for name, role in run.source.members[0].relation.identity.items():
        if name not in forms:
            continue
        values = write_column(entity.column(name), forms[name])
        if role is Role.SEX:
            sexes = [text or "" for text in values.cast(pa.string()).to_pylist()]
        elif role is Role.BIRTH_DATE:
            births = values.cast(pa.date32()).to_pylist()
    return sexes, births


def _held(run: _Run, identities: Sequence[Identity]) -> dict[Role, set[str]]:
    """Which of the drawn values real rows have."""
    held: dict[Role, set[str]] = {}
    for member in run.source.members:
        for name, role in member.relation.identity.items():
            if role in NOBODYS:
                texts = sorted({i[role] for i in identities if role in i})
                held.setdefault(role, set()).update(
                    in_use(run.session, member.relation, member.declared(name), name, texts)
                )
    return held


def _used(run: _Run, places: Mapping[str, int]) -> dict[Place, tuple[Ints, Ints]]:
    """What numbers the recipients' decoys have, and those retired had as patients."""
    found = {}
    for at, member in enumerate(run.source.members):
        for name in member.using(Use.NUMBER):
            rows = values_of(run.session, member.relation, name, list(places))
            rows += [
                (role, number)
                for role, numbers in run.retired_keys.get((at, name), {}).items()
                if role in places
                for number in numbers
            ]
            found[at, name] = (
                np.array([places[role] for role, _ in rows], np.int64),
                np.array([number for _, number in rows], np.int64),
            )
    return found


def _fresh(run: _Run, place: Place, offset: int, count: int) -> Ints:
    """New numbers, the same ones for every batch; they fit all recipients."""
    pool = run.fresh.setdefault(place, [])
    missing = offset + count - len(pool)
    if missing > 0:
        at, name = place
        member, numbers = run.source.members[at], run.source.numbers[place]
        pool += fresh_numbers(run.session, member, name, numbers, missing).tolist()
    return np.array(pool[offset : offset + count], np.int64)


def _malformed(
    members: Sequence[Member], rows: Sequence[Rows], owners: Ints
) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], str]:
    """Which decoys cannot be written: NULL where none may be, or two rows of one key."""
    bad, why = np.zeros(len(owners), np.bool_), ""
    for member, made in zip(members, rows, strict=True):
        for info in member.columns:
            array = made.columns.get(info.name)
            if info.not_null and array is not None and array.null_count:
                bad[made.decoys[np.asarray(array.is_null())]] = True
                why = f"{member.relation.qualified}: column {info.name} is NOT NULL"
        key = [name for name, _ in member.relation.key]
        if len(key) > 1 and len(made.decoys):
            table = pa.table(
                [pa.array(owners[made.decoys]), *(made.columns[name] for name in key)],
                names=["balise_recipient", *key],
            ).append_column("balise_row", pa.array(np.arange(len(made.decoys))))
            first = table.group_by(["balise_recipient", *key]).aggregate([("balise_row", "min")])
            doubles = np.setdiff1d(
                np.arange(len(made.decoys)), np.asarray(first.column("balise_row_min"))
            )
            if len(doubles):
                bad[made.decoys[doubles]] = True
                why = f"{member.relation.qualified}: the key is unique"
    return bad, why


def _decoy_ids(session: Session, count: int) -> list[int]:
    return [
        number
        for (number,) in session.fetch(
            "SELECT nextval('balise.decoy_decoy_id_seq'::regclass)"
            " FROM generate_series(1, $1::bigint)",
            count,
        )
    ]


def _write(
    session: Session,
    members: Sequence[Member],
    rows: Sequence[Rows],
    ids: Ints,
    names: Sequence[str],
    bad: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> None:
    owners = pa.array(names, pa.string())
    for member, made in zip(members, rows, strict=True):
        columns = {
            "balise_recipient": owners.take(pa.array(made.decoys)),
            "balise_decoy": pa.array(ids[made.decoys]),
            **made.columns,
        }
        table = pa.table(columns).filter(pa.array(~bad[made.decoys]))
        if table.num_rows:
            session.fill(DECOYS, decoy_table(member.relation), table)


def _remove_rows(
    session: Session, members: Sequence[Member], names: Sequence[str], decoys: Sequence[int]
) -> None:
    """Delete rows of decoys that are not in the book yet."""
    for member in members:
        session.run(
            "DELETE FROM %I.%I WHERE balise_recipient::text = ANY (%L::text[])"
            " AND balise_decoy = ANY (%L::bigint[])",
            DECOYS,
            decoy_table(member.relation),
            _listed(session, names),
            "{" + ",".join(map(str, decoys)) + "}",
        )


def _listed(session: Session, names: Sequence[str]) -> str:
    [(text,)] = session.fetch("SELECT $1::text[]::text", list(names))
    return str(text)
