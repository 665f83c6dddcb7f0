"""Identities of people who do not exist, in the site's own look.

Sex and birth date are given; everything else of an identity is drawn to fit them. An identity hangs
on its own seed (and what is taken) only: not on the others drawn with it, nor on the other roles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date
from typing import Final

from pgbalise.decoys import mail, names, nir, numbers
from pgbalise.decoys.formats import Drawer, Format, learn_format
from pgbalise.decoys.identity import Identity, Mode, Role
from pgbalise.decoys.stream import Mixture, Stream
from pgbalise.decoys.traits import (
    Spaces,
    Trait,
    TraitKind,
    fold,
    mail_trait,
    nir_trait,
    person_trait,
    phone_trait,
    record_trait,
    rpps_trait,
)
from pgbalise.errors import InvalidInput

_TRIES: Final = 1_000
_FREQUENT_TRIES: Final = 20
_ENOUGH: Final = 20_000
_WOMEN_MARRIED: Final = 0.4

_SEXES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("f", "2", "femme", "feminin", "feminine", "female", "fille", "mme"), "F"),
    **dict.fromkeys(("m", "h", "1", "homme", "masculin", "male", "garcon", "mr"), "M"),
}


def read_sex(text: str) -> str:
    """Return F or M for what a database writes (F/M/H, 1/2 as INSEE, words); else an empty text."""
    return _SEXES.get(fold(text), "")


@dataclass(frozen=True)
class Site:
    """How an establishment's columns look; what a column does not show has a usual look."""

    record: Format | None
    family: names.Look
    birth: names.Look
    given: names.Look
    full: names.FullLook
    street: names.StreetLook
    married: tuple[float, float]
    """The share of women and of men whose name in use is not that of their birth."""
    sexes: Mapping[str, str]
    """How F and M are written."""
    places: nir.Places
    nir: numbers.Written
    nir_13: numbers.Written
    phone: numbers.PhoneLook
    mobile: numbers.PhoneLook
    mail: Mixture[mail.LocalPart]
    rpps: numbers.Written
    finess: numbers.Written
    departments: Mixture[str]


def learn_site(texts: Mapping[Role, Sequence[str]]) -> Site:
    """Learn how columns look from their texts, as PostgreSQL prints them; "" stands for NULL.

    Where the roles' texts are of the same rows in the same order, the share of those who took
    another name is learned too. All record numbers are looked at, of other columns some 20,000
    rows. Needs Faker and python-stdnum: EnvironmentProblem without.
    """
    column = {role: _thin(texts.get(role, ())) for role in Role}
    family = names.learn_look(column[Role.FAMILY_NAME], names.Look(names.Case.UPPER))
    record = [text for text in texts.get(Role.RECORD_NUMBER, ()) if text]
    places = column[Role.BIRTH_PLACE] or column[Role.NIR] or column[Role.NIR_13]
    return Site(
        record=learn_format(record) if record else None,
        family=family,
        birth=names.learn_look(column[Role.BIRTH_NAME], family),
        given=names.learn_look(column[Role.GIVEN_NAME]),
        full=names.learn_full_look(column[Role.FULL_NAME]),
        street=names.learn_street(column[Role.STREET]),
        married=_married(column),
        sexes=_sexes(column[Role.SEX]),
        places=nir.learn_places(places),
        nir=numbers.learn_written(column[Role.NIR], 15),
        nir_13=numbers.learn_written(column[Role.NIR_13], 13),
        phone=numbers.learn_phones(column[Role.PHONE], mobile=False),
        mobile=numbers.learn_phones(column[Role.MOBILE], mobile=True),
        mail=mail.learn_mail(column[Role.MAIL]),
        rpps=numbers.learn_written(column[Role.RPPS], 11),
        finess=numbers.learn_written(column[Role.FINESS], 9),
        departments=numbers.learn_departments(column[Role.FINESS]),
    )


def _thin(texts: Sequence[str]) -> Sequence[str]:
    """Return every n-th text: columns of the same rows stay so."""
    return texts[:: 1 + len(texts) // _ENOUGH]


def _married(column: Mapping[Role, Sequence[str]]) -> tuple[float, float]:
    used, born, sexes = (column[r] for r in (Role.FAMILY_NAME, Role.BIRTH_NAME, Role.SEX))
    if not used or len(used) != len(born) or len(used) != len(sexes):
        return _WOMEN_MARRIED, 0.0
    shares = []
    for sex in ("F", "M"):
        other = [
            fold(one) != fold(two)
            for one, two, text in zip(used, born, sexes, strict=True)
            if one and two and read_sex(text) == sex
        ]
        shares.append(sum(other) / len(other) if other else 0.0)
    return shares[0], shares[1]


def _sexes(texts: Sequence[str]) -> Mapping[str, str]:
    found: dict[str, Counter[str]] = {"F": Counter(), "M": Counter()}
    for text, count in Counter(texts).items():
        if sex := read_sex(text):
            found[sex][text] += count
    return {sex: c.most_common(1)[0][0] if c else sex for sex, c in found.items()}


def draw_identities(
    seeds: Sequence[bytes],
    roles: Collection[Role],
    sexes: Sequence[str],
    births: Sequence[date | None],
    site: Site,
    mode: Mode,
    mail_domain: str,
    taken: Mapping[Role, AbstractSet[str]],
    persons: AbstractSet[str] = frozenset(),
) -> list[tuple[Identity, Spaces]]:
    """Draw an identity for each seed, with the roles asked for and how likely each trait was.

    ``sexes`` are as the database writes them; where one says nothing, one is drawn, and the
    identity's SEX tells which, for the caller to write or to leave NULL. A birth date of None gives
    no BIRTH_DATE. EMPTY gives nothing. ``taken`` has the values in use by role (record numbers as
    they are written; NIR, telephones and mail as written or as the value of their trait): none is
    ever drawn. ``persons`` has the values of person traits that are real people's: nor is one of
    these.

    The spaces are low: PERSON counts names only, NIR the places and the last three digits only, as
    sex and birth date were drawn elsewhere. What is in use makes them lower.

    Raise InvalidInput for sequences of different lengths, a mail domain of a public provider, a
    record number that no column shows, and when all of a range is taken; EnvironmentProblem when
    Faker or python-stdnum is not installed.
    """
    if not len(seeds) == len(sexes) == len(births):
        raise InvalidInput("there must be a sex and a birth date for each seed")
    drawer = _Drawing(frozenset(roles), site, mode, mail_domain, taken, persons)
    return [drawer.draw(*row) for row in zip(seeds, sexes, births, strict=True)]


class _Drawing:
    """What all identities of a batch share."""

    def __init__(
        self,
        roles: AbstractSet[Role],
        site: Site,
        mode: Mode,
        mail_domain: str,
        taken: Mapping[Role, AbstractSet[str]],
        persons: AbstractSet[str],
    ) -> None:
        self.roles = roles
        self.site = site
        self.mode = mode
        self.lists = names.name_lists()
        self.persons = persons
        self.taken = {role: taken.get(role, frozenset()) for role in Role}
        self.domain = mail.check_domain(mail_domain) if Role.MAIL in roles else ""
        self.record: Drawer | None = None
        if Role.RECORD_NUMBER in roles:
            if site.record is None:
                raise InvalidInput(
                    "there is no record number to learn the site's format from",
                    hint="a column of record numbers that is empty has the role empty",
                )
            self.record = Drawer(site.record, self.taken[Role.RECORD_NUMBER])
        self._likely = {sex: self._spaces_of(sex) for sex in ("F", "M")}
        self._spent = _Spent(self.taken, persons, mode, self.domain)

    def draw(self, seed: bytes, sex_text: str, born: date | None) -> tuple[Identity, Spaces]:
        sex = read_sex(sex_text) or Stream(seed, "sex").pick(("F", "M"))
        identity: dict[Role, str] = {}
        if self.record is not None:
            identity[Role.RECORD_NUMBER] = self.record.draw(Stream(seed, "record"))
        if Role.SEX in self.roles:
            identity[Role.SEX] = sex_text if read_sex(sex_text) else self.site.sexes[sex]
        if Role.BIRTH_DATE in self.roles and born is not None:
            identity[Role.BIRTH_DATE] = born.isoformat()
        if self.roles & _OF_PERSON:
            self._person(identity, seed, sex, born)
        if self.roles & _OF_BIRTH:
            self._birth(identity, seed, sex, born)
        for role, look in ((Role.PHONE, self.site.phone), (Role.MOBILE, self.site.mobile)):
            if role in self.roles:
                identity[role] = self._phone(role, look, Stream(seed, role.value))
        if Role.STREET in self.roles:
            identity[Role.STREET] = self.site.street.draw(Stream(seed, "street"))
        if Role.RPPS in self.roles:
            identity[Role.RPPS] = self._professional(Stream(seed, "rpps"))
        if Role.FINESS in self.roles:
            identity[Role.FINESS] = self._establishment(Stream(seed, "finess"))
        spaces = self._spaces(sex, born)
        return identity, {kind: max(1.0, spaces[kind]) for kind in _kinds(identity)}

    def _person(self, identity: dict[Role, str], seed: bytes, sex: str, born: date | None) -> None:
        site, lists, stream = self.site, self.lists, Stream(seed, "person")
        for _ in range(_TRIES):
            given = names.draw_name(stream, lists.given(sex), site.given.compound)
            birth = names.draw_name(stream, lists.family, site.family.compound)
            other = names.draw_name(stream, lists.family, site.family.compound)
            used = other if stream.share() < site.married[sex == "M"] else birth
            if born is not None and self._is_somebody(given, (birth, used), born):
                continue
            if Role.MAIL in self.roles:
                address = f"{site.mail.pick(stream).write(stream, used, given)}@{self.domain}"
                if self._in_use(address, mail_trait, Role.MAIL):
                    continue
                identity[Role.MAIL] = address
            break
        else:
            raise InvalidInput(
                "nearly every name or mail address is in use", hint="retire decoys first"
            )
        written = {
            Role.FAMILY_NAME: site.family.write(used),
            Role.BIRTH_NAME: site.birth.write(birth),
            Role.GIVEN_NAME: site.given.write(given),
            Role.FULL_NAME: site.full.write(used, given, sex),
        }
        identity.update({role: text for role, text in written.items() if role in self.roles})

    def _is_somebody(self, given: str, families: Sequence[str], born: date) -> bool:
        if not self.persons:
            return False
        found = (person_trait(f"{family} {given}", born.isoformat()) for family in families)
        return any(trait is not None and trait.value in self.persons for trait in found)

    def _in_use(self, text: str, canonical: Callable[[str], Trait | None], *of: Role) -> bool:
        taken = [self.taken[role] for role in of if self.taken[role]]
        if not taken:
            return False
        trait = canonical(text)
        return any(text in texts or (trait and trait.value in texts) for texts in taken)

    def _birth(self, identity: dict[Role, str], seed: bytes, sex: str, born: date | None) -> None:
        stream = Stream(seed, "birth")
        if born is None:
            born = date(1930 + stream.below(75), 1 + stream.below(12), 1)
        for attempt in range(_TRIES):
            # Where few places are frequent, all their numbers of a month may be in use.
            places = self.site.places if attempt < _FREQUENT_TRIES else nir.Places()
            place = places.draw(stream, born)
            number = nir.nir_13(sex, born, place, nir.draw_order(stream, self.mode))
            whole = number + nir.nir_key(number)
            texts = {
                Role.NIR: self.site.nir.write(stream, whole),
                Role.NIR_13: self.site.nir_13.write(stream, number),
                Role.BIRTH_PLACE: place,
            }
            if not any(
                whole in self.taken[role] or self._in_use(texts[role], nir_trait, role)
                for role in (Role.NIR, Role.NIR_13)
            ):
                break
        else:
            raise InvalidInput(
                "nearly every NIR of that sex and month is in use", hint="retire decoys first"
            )
        identity.update({role: text for role, text in texts.items() if role in self.roles})

    def _phone(self, role: Role, look: numbers.PhoneLook, stream: Stream) -> str:
        for _ in range(_TRIES):
            text = look.draw(stream)
            if not self._in_use(text, phone_trait, Role.PHONE, Role.MOBILE):
                return text
        raise InvalidInput(
            f"nearly every number that nobody has is in use for {role.value}",
            hint="retire decoys first",
        )

    def _professional(self, stream: Stream) -> str:
        for _ in range(_TRIES):
            number = numbers.draw_rpps(stream, self.mode)
            if number not in self.taken[Role.RPPS]:
                return self.site.rpps.write(stream, number)
        raise InvalidInput("nearly every RPPS is in use", hint="retire decoys first")

    def _establishment(self, stream: Stream) -> str:
        for _ in range(_TRIES):
            number = numbers.draw_finess(stream, self.site.departments, self.mode)
            if number not in self.taken[Role.FINESS]:
                return self.site.finess.write(stream, number)
        raise InvalidInput("nearly every FINESS is in use", hint="retire decoys first")

    def _spaces_of(self, sex: str) -> dict[TraitKind, float]:
        families, givens = self.lists.family, self.lists.given(sex)
        people = names.least_people(families, givens)
        phones = [
            look.space
            for role, look in ((Role.PHONE, self.site.phone), (Role.MOBILE, self.site.mobile))
            if role in self.roles
        ]
        return {
            TraitKind.RECORD: self.record.space if self.record else 1.0,
            TraitKind.PHONE: min(phones, default=1.0),
            TraitKind.MAIL: min(part.space(families, givens) for part in self.site.mail.values),
            TraitKind.RPPS: float(numbers.RPPS_SPACE),
            TraitKind.PERSON: people,
        }

    def _spaces(self, sex: str, born: date | None) -> dict[TraitKind, float]:
        """Return the spaces, less what was in use."""
        # Passing over n values of at most 1 / space each leaves none above 1 / (space - n).
        likely, spent = self._likely[sex], self._spent
        people = spent.people[born.isoformat()] if born else 0
        passed = 2 * people / likely[TraitKind.PERSON] + spent.mail / likely[TraitKind.MAIL]
        start = f"{2 if sex == 'F' else 1}{born:%y%m}" if born else ""
        numbered = self.site.places.space(born) * nir.order_space(self.mode)
        return {
            **likely,
            TraitKind.NIR: numbered - (spent.nir[start] if born else spent.most_nir),
            TraitKind.PHONE: likely[TraitKind.PHONE] - spent.phones,
            TraitKind.RPPS: likely[TraitKind.RPPS] - spent.rpps,
            TraitKind.MAIL: likely[TraitKind.MAIL] * (1 - passed),
            TraitKind.PERSON: likely[TraitKind.PERSON] * (1 - passed),
        }


def _kinds(identity: Identity) -> Iterator[TraitKind]:
    """Yield the kinds of an identity's traits; the traits themselves take ten times as long."""
    if (record := identity.get(Role.RECORD_NUMBER)) and record_trait(record):
        yield TraitKind.RECORD
    if Role.NIR in identity or Role.NIR_13 in identity:
        yield TraitKind.NIR
    if any(phone_trait(identity[r]) for r in (Role.PHONE, Role.MOBILE) if r in identity):
        yield TraitKind.PHONE
    if Role.MAIL in identity:
        yield TraitKind.MAIL
    if rpps_trait(identity.get(Role.RPPS, "")):
        yield TraitKind.RPPS
    named = Role.GIVEN_NAME in identity and (
        Role.FAMILY_NAME in identity or Role.BIRTH_NAME in identity
    )
    if Role.BIRTH_DATE in identity and (named or Role.FULL_NAME in identity):
        yield TraitKind.PERSON


class _Spent:
    """How many of the values that could be drawn are in use."""

    def __init__(
        self,
        taken: Mapping[Role, AbstractSet[str]],
        persons: AbstractSet[str],
        mode: Mode,
        domain: str,
    ) -> None:
        self.people = Counter(value[:10] for value in persons)
        self.mail = sum(text.lower().endswith("@" + domain) for text in taken[Role.MAIL])
        self.phones = sum(
            numbers.for_fiction(text) for role in (Role.PHONE, Role.MOBILE) for text in taken[role]
        )
        self.rpps = len(taken[Role.RPPS])
        self.nir: Counter[str] = Counter()
        for role in (Role.NIR, Role.NIR_13):
            for text in taken[role]:
                bare = text if text.isalnum() else "".join(filter(str.isalnum, text))
                if nir.nobody_can_hold(bare) is (mode is Mode.SAFE):
                    self.nir[bare[:5]] += 1
        self.most_nir = max(self.nir.values(), default=0)


_OF_PERSON: Final = frozenset(
    (Role.FAMILY_NAME, Role.BIRTH_NAME, Role.GIVEN_NAME, Role.FULL_NAME, Role.MAIL)
)
_OF_BIRTH: Final = frozenset((Role.NIR, Role.NIR_13, Role.BIRTH_PLACE))
