"""Random queries over the small hospital, each valid, the same for the same seed.

A query is written twice at once: as a client of the proxy writes it, with the stored relations'
names in one of the many spellings that SQL allows, and with the names of the marked views.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

RELATIONS: dict[str, dict[str, str]] = {
    "patient": {
        "patient_id": "int", "ipp": "text", "family_name": "text", "given_name": "text",
        "birth_date": "date", "sex": "text", "age": "int", "height_cm": "num", "weight_kg": "num",
        "included_on": "date", "last_seen_on": "date", "deceased": "bool",
    },
    "lab_result": {
        "result_id": "int", "patient_id": "int", "test": "text", "value": "num",
        "taken_at": "time", "recorded_at": "time",
    },
    "diagnosis": {
        "diagnosis_id": "int", "patient_id": "int", "event": "text", "diagnosed_on": "date",
    },
    "Hospital Stay": {"Stay Id": "int", "patient_id": "int", "from": "date", "Ward": "text"},
    # not protected: its name stays
    "ward_list": {"ward": "text", "beds": "int"},
}  # fmt: skip
CONSTANTS = {
    "int": ("7", "42", "-1", "(2 + 3)", "length('été')"),
    "num": ("71.5", "1e2", "0", "'70'::numeric"),
    "text": ("'M'", "'hdl'", "$$it's$$", "U&'d\\00e9j\\00e0'", "E'a\\\\b'", "'été' /* t' */"),
    "date": ("date '1950-01-01'", "'2001-06-30'::date", "CAST('1980-02-29' AS date)"),
    "time": ("timestamptz '2001-01-01 00:00Z'", "to_timestamp(900000000)"),
    "bool": ("true", "false", "(1 < 2)"),
}
FUNCTIONS = {
    "int": ("({} % 7)", "abs({})", "coalesce({}, 0)", "(- {})"),
    "num": ("round({}, 1)", "coalesce({}, 0.0)", "({} * 2)", "greatest({}, 50.0)"),
    "text": ("upper({})", "left({}, 3)", "({} || '!')", "md5({})", "coalesce({}, 'none')"),
    "date": ("({} + 30)", "coalesce({}, date '1900-01-01')", "date_trunc('month', {})::date"),
    "time": ("date_trunc('day', {})", "({} + interval '1 ms')"),
    "bool": ("(NOT {})", "({} IS TRUE)"),
}
AGGREGATES = {
    "int": ("count({})", "sum({}) FILTER (WHERE {} > 5)", "max({})", "count(DISTINCT {})"),
    "num": ("sum({})", "avg({})::numeric(20,6)", "min({})", "count({})"),
    "text": ("min({})", "string_agg({0}, ',' ORDER BY {0})", "count(DISTINCT {})"),
    "date": ("max({})", "array_agg(DISTINCT {0} ORDER BY {0})"),
    "time": ("max({})", "min({})"),
    "bool": ("bool_or({})", "every({})"),
}
WINDOWS = {
    "int": ("sum({})", "first_value({})"),
    "num": ("lag({})", "avg({})", "last_value({})"),
    "text": ("lead({})", "first_value({})"),
    "date": ("max({})", "lag({}, 2)"),
    "time": ("min({})",),
    "bool": ("count({})",),
}


@dataclass(frozen=True)
class Query:
    """One query, as sent to the proxy and as it is for the marked views."""

    proxied: str
    direct: str


@dataclass
class Item:
    """What FROM offers: a text, and columns by the text that refers to each."""

    text: str
    columns: dict[str, str]
    patient: str | None = None
    """The column that identifies the patient, to join by."""


@dataclass
class Writer:
    """Writes queries; names of relations stand as ⟨name⟩ or ‹name› until the end."""

    rng: random.Random
    bare: bool
    """Whether both sessions have the schema in their search_path, so that names need none."""
    ctes: dict[str, dict[str, str]] = field(default_factory=dict)
    number: int = 0
    hidden: str = ""
    """The relation of which a CTE has the name: the relation's must be qualified."""

    def query(self) -> Query:
        """Write one query in both forms."""
        text = self.rng.choice(
            (self.selection, self.selection, self.grouping, self.union, self.windowing, self.whole)
        )(2)
        text = self.wrapped(text)
        return Query(self.spelled(text, "dpi"), self.spelled(text, "marked"))

    def fresh(self, prefix: str) -> str:
        self.number += 1
        return f"{prefix}{self.number}"

    # what stands in FROM

    def item(self, depth: int) -> Item:
        kinds = [self.table, self.table, self.table]
        if depth:
            kinds += [self.derived, self.lateral_values]
        if self.ctes:
            kinds.append(self.cte)
        return self.rng.choice(kinds)(depth)

    def table(self, depth: int) -> Item:
        name = self.rng.choice(list(RELATIONS))
        alias = self.fresh("t")
        shape = self.rng.randrange(4)
        # a name twice without aliases would be ambiguous
        if name == "ward_list" or shape:
            star = self.rng.choice(("", "", " *"))
            form = self.rng.choice(("{}{} AS {}", "{}{} {}", '{}{} AS "{}"'))
            text = form.format(f"⟨{name}⟩", star, alias)
            return self.aliased(text, alias, RELATIONS[name])
        renamed = [self.fresh("c") for _ in RELATIONS[name]][:3]
        text = f"⟨{name}⟩ AS {alias} ({', '.join(renamed)})"
        kinds = list(RELATIONS[name].items())
        columns = {new: kind for new, (_, kind) in zip(renamed, kinds, strict=False)}
        columns |= dict(kinds[3:])
        found = self.aliased(text, alias, columns)
        for new, (old, _) in zip(renamed, kinds, strict=False):
            if old == "patient_id":
                found.patient = f"{alias}.{new}"
        return found

    def derived(self, depth: int) -> Item:
        alias, columns = self.fresh("d"), self.columns()
        text = f"({self.select(depth - 1, columns)}) AS {alias}"
        return self.aliased(text, alias, columns)

    def cte(self, depth: int) -> Item:
        name = self.rng.choice(list(self.ctes))
        alias = self.fresh("w")
        return self.aliased(f"{name} AS {alias}", alias, self.ctes[name])

    def lateral_values(self, depth: int) -> Item:
        alias = self.fresh("v")
        text = f"(VALUES (1, 'a'), (7, 'é'), (42, NULL)) AS {alias} (n, word)"
        return self.aliased(text, alias, {"n": "int", "word": "text"})

    def aliased(self, text: str, alias: str, columns: dict[str, str]) -> Item:
        named = {f"{alias}.{quoted(column)}": kind for column, kind in columns.items()}
        patient = f"{alias}.patient_id" if "patient_id" in columns else None
        return Item(text, named, patient)

    def source(self, depth: int) -> Item:
        """A FROM list of one to three items, joined so that it stays small."""
        first = self.item(depth)
        text, columns, patient = first.text, dict(first.columns), first.patient
        for _ in range(self.rng.choice((0, 0, 1, 1, 2))):
            other = self.item(0)
            join = self.rng.choice(("JOIN", "LEFT JOIN", "INNER JOIN", "FULL JOIN"))
            if patient and other.patient:
                text = f"{text} {join} {other.text} ON {patient} = {other.patient}"
            elif patient and self.rng.random() < 0.6:
                alias, wanted = self.fresh("l"), {"most": "num", "n": "int"}
                inner = (
                    f"SELECT max(i.value) AS most, count(*) AS n FROM ⟨lab_result⟩ AS i"
                    f" WHERE i.patient_id = {patient}"
                )
                text = f"{text} CROSS JOIN LATERAL ({inner}) AS {alias}"
                columns |= self.aliased("", alias, wanted).columns
                continue
            else:
                kinds = set(columns.values()) & set(other.columns.values()) & {"int", "text"}
                if not kinds:
                    continue
                kind = self.rng.choice(sorted(kinds))
                left, right = (
                    self.rng.choice([name for name, k in side.items() if k == kind])
                    for side in (columns, other.columns)
                )
                text = f"{text} {join} {other.text} ON {left} = {right} AND {self.little(right)}"
                if join == "FULL JOIN":
                    text = text.replace(f" AND {self.little(right)}", "")
            columns |= other.columns
            patient = patient or other.patient
        return Item(text, columns, patient)

    def little(self, column: str) -> str:
        return f"{column} IS NOT NULL"

    # expressions

    def columns(self) -> dict[str, str]:
        """The columns that a subquery is to have."""
        count = self.rng.randint(1, 4)
        kinds = [self.rng.choice(("int", "num", "text", "date")) for _ in range(count)]
        return {self.fresh("c"): kind for kind in kinds}

    def value(self, item: Item, kind: str, depth: int) -> str:
        fitting = [name for name, found in item.columns.items() if found == kind]
        chance = self.rng.random()
        if depth and chance < 0.12:
            return self.scalar(item, kind)
        if not fitting or chance < 0.15:
            return self.rng.choice(CONSTANTS[kind])
        text = self.rng.choice(fitting)
        if self.rng.random() < 0.35:
            text = self.rng.choice(FUNCTIONS[kind]).format(text)
        return text

    def scalar(self, item: Item, kind: str) -> str:
        """A subquery of one value, correlated when it can be."""
        name = self.rng.choice(
            [name for name, found in RELATIONS.items() if kind in found.values()] or ["patient"]
        )
        if kind not in RELATIONS[name].values():
            return self.rng.choice(CONSTANTS[kind])
        column = self.rng.choice([c for c, k in RELATIONS[name].items() if k == kind])
        order = next(iter(RELATIONS[name]))
        where = ""
        if item.patient and "patient_id" in RELATIONS[name]:
            where = f" WHERE s.patient_id = {item.patient}"
        return (
            f"(SELECT s.{quoted(column)} FROM ⟨{name}⟩ AS s{where}"
            f" ORDER BY s.{quoted(order)} DESC NULLS LAST LIMIT 1)"
        )

    def condition(self, item: Item, depth: int) -> str:
        kind = self.rng.choice(sorted(set(item.columns.values())))
        left = self.value(item, kind, depth)
        right = self.value(item, kind, 0)
        forms = ["{} = {}", "{} <> {}", "{} IS DISTINCT FROM {}"]
        if kind != "bool":
            forms += ["{} < {}", "{} >= {}", "{} BETWEEN {} AND NULL IS NULL"]
        choice = self.rng.random()
        if depth and choice < 0.15:
            return (
                f"EXISTS (SELECT 1 FROM ⟨diagnosis⟩ AS e WHERE e.event {self.rng.choice('<>')} 'd'"
                + (f" AND e.patient_id = {item.patient})" if item.patient else ")")
            )
        if depth and choice < 0.3 and item.patient:
            negated = self.rng.choice(("", " NOT"))
            return f"{item.patient}{negated} IN (SELECT patient_id FROM ⟨diagnosis⟩)"
        if depth and choice < 0.4 and kind in ("int", "num"):
            return f"{left} > ALL (SELECT beds - 30 FROM ⟨ward_list⟩)"
        if choice < 0.5:
            return f"({self.rng.choice(forms).format(left, right)} OR {left} IS NULL)"
        return self.rng.choice(forms).format(left, right)

    def where(self, item: Item, depth: int) -> str:
        wanted = [self.condition(item, depth) for _ in range(self.rng.choice((0, 1, 1, 2)))]
        return " WHERE " + self.rng.choice((" AND ", "\n  AND ")).join(wanted) if wanted else ""

    # selects

    def select(self, depth: int, columns: dict[str, str]) -> str:
        """A SELECT of columns of these names and kinds."""
        item = self.source(depth)
        shown = ", ".join(
            f"{self.value(item, kind, depth)} AS {name}" for name, kind in columns.items()
        )
        distinct = self.rng.choice(("", "", "", "DISTINCT "))
        text = f"SELECT {distinct}{shown} FROM {item.text}{self.where(item, depth)}"
        # by every column, so that which rows are first is certain
        order = ", ".join(str(at) for at in range(1, len(columns) + 1))
        return f"{text} ORDER BY {order} LIMIT {self.rng.choice((5, 40, 300))}"

    def selection(self, depth: int) -> str:
        return self.select(depth, self.columns())

    def union(self, depth: int) -> str:
        columns = self.columns()
        word = self.rng.choice(("UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL"))
        parts = [f"({self.select(depth - 1, columns)})" for _ in range(self.rng.choice((2, 2, 3)))]
        order = ", ".join(str(at) for at in range(1, len(columns) + 1))
        return f"\n{word}\n".join(parts) + f"\nORDER BY {order}"

    def grouping(self, depth: int) -> str:
        item = self.source(depth)
        kind = self.rng.choice(sorted(set(item.columns.values())))
        by = self.rng.choice([name for name, found in item.columns.items() if found == kind])
        shown = []
        for _ in range(self.rng.randint(1, 3)):
            column = self.rng.choice(list(item.columns))
            form = self.rng.choice(AGGREGATES[item.columns[column]])
            shown.append(form.replace("{0}", "{}").replace("{}", column))
        how = self.rng.choice(("{}", "ROLLUP ({})", "CUBE ({})", "GROUPING SETS (({}), ())"))
        having = self.rng.choice(("", "", " HAVING count(*) > 1"))
        return (
            f"SELECT {by} AS k, {', '.join(shown)}, count(*) FROM {item.text}"
            f"{self.where(item, depth)} GROUP BY {how.format(by)}{having} ORDER BY 1, count(*)"
        )

    def windowing(self, depth: int) -> str:
        name = self.rng.choice([name for name in RELATIONS if name != "ward_list"])
        key = quoted(next(iter(RELATIONS[name])))
        column = self.rng.choice(list(RELATIONS[name]))
        form = self.rng.choice(WINDOWS[RELATIONS[name][column]]).format(f"p.{quoted(column)}")
        frame = self.rng.choice(("", " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW"))
        part = self.rng.choice(
            ("", f"PARTITION BY p.{quoted(self.rng.choice(list(RELATIONS[name])))} ")
        )
        return (
            f"SELECT p.{key}, row_number() OVER w, {form} OVER (w{frame}) FROM ⟨{name}⟩ AS p"
            f" WINDOW w AS ({part}ORDER BY p.{key}) ORDER BY 1 LIMIT 300"
        )

    def whole(self, depth: int) -> str:
        """Rows as a whole, and relations without an alias."""
        one, two = self.rng.sample(("patient", "lab_result", "diagnosis"), 2)
        key = next(iter(RELATIONS[one]))
        return self.rng.choice(
            (
                f"SELECT * FROM ⟨{one}⟩ ORDER BY {key} LIMIT 50",
                f"TABLE ⟨{one}⟩ ORDER BY {key} LIMIT 50",
                f"SELECT {one}.* FROM ⟨{one}⟩ ORDER BY {one}.{key} DESC LIMIT 50",
                f"SELECT ⟨{one}⟩.{key}, ⟨{one}⟩.* FROM ⟨{one}⟩ ORDER BY ⟨{one}⟩.{key} LIMIT 50",
                f"SELECT x FROM ⟨{one}⟩ x ORDER BY x.{key} LIMIT 50",
                f"SELECT {one} FROM ⟨{one}⟩ ORDER BY {key} LIMIT 50",
                (
                    f"SELECT row_to_json(x), to_jsonb(x.*) ->> 'patient_id' FROM ⟨{one}⟩ AS x"
                    f" ORDER BY x.{key} LIMIT 50"
                ),
                (
                    f"SELECT * FROM ⟨{one}⟩ JOIN ⟨{two}⟩ USING (patient_id)"
                    f" ORDER BY {key}, {next(iter(RELATIONS[two]))} LIMIT 200"
                ),
                (
                    f"SELECT * FROM ⟨{one}⟩ NATURAL JOIN (SELECT patient_id FROM ⟨{two}⟩) AS q"
                    f" ORDER BY {key} LIMIT 200"
                ),
                (
                    f"SELECT * FROM ⟨{one}⟩ AS a, ⟨{one}⟩ AS b WHERE a.patient_id = b.patient_id"
                    f" AND a.{key} < 60 ORDER BY a.{key}, b.{key}"
                ),
                (
                    f"SELECT (SELECT count(*) FROM ⟨{two}⟩ WHERE ⟨{two}⟩.patient_id ="
                    f" ⟨{one}⟩.patient_id), {key} FROM ⟨{one}⟩ ORDER BY {key} LIMIT 60"
                ),
                (
                    f"SELECT DISTINCT ON (patient_id) * FROM ⟨{one}⟩ ORDER BY patient_id, {key}"
                    " FETCH FIRST 30 ROWS ONLY"
                ),
                (
                    'SELECT "Hospital Stay"."from", ⟨Hospital Stay⟩."Ward" FROM ⟨Hospital Stay⟩'
                    ' ORDER BY "Stay Id"'
                ),
            )
        )

    def wrapped(self, text: str) -> str:
        """Put WITH, comments or a subquery around a query, or nothing."""
        choice = self.rng.random()
        if choice < 0.12:
            # it hides the relation of the same name from what follows, not from itself
            self.hidden = "patient"
            return (
                "WITH patient AS (SELECT patient_id, weight_kg FROM ‹patient› WHERE age > 40)\n"
                f"SELECT q.*, (SELECT round(sum(weight_kg), 1) FROM patient)\nFROM ({text}) AS q"
            )
        if choice < 0.24:
            word = self.rng.choice(("MATERIALIZED", "NOT MATERIALIZED", ""))
            return (
                f"WITH one AS {word} ({text}), two (n) AS (SELECT count(*) FROM one)\n"
                "SELECT * FROM one, two"
            )
        if choice < 0.32:
            return (
                "WITH RECURSIVE up (id, n) AS (SELECT min(patient_id), 1 FROM ⟨patient⟩ UNION ALL"
                " SELECT p.patient_id, n + 1 FROM up JOIN ⟨patient⟩ AS p"
                f" ON p.patient_id > up.id AND p.patient_id <= up.id + 3 WHERE n < 5)\n"
                f"SELECT q.*, (SELECT count(*) FROM up) FROM ({text}) AS q"
            )
        if choice < 0.42:
            return f'-- it\'s "FROM dpi.patient"\n{text} -- ; done'
        if choice < 0.5:
            return f"/* a /* nested */ ' comment */ SELECT q.* FROM ({text}) AS q"
        return text

    def spelled(self, text: str, schema: str) -> str:
        """Put names in; the spelling is the query's own, so that seeds stay comparable."""
        rng = random.Random(text)

        def spelling(found: re.Match[str]) -> str:
            name = found[2]
            bare = self.bare and (name != self.hidden or found[1] == "‹")
            place = "dpi" if name == "ward_list" else schema
            if schema == "marked":
                return f"{place}.{quoted(name)}"
            if bare and name != "ward_list" and rng.random() < 0.6:
                return quoted(name)
            if name == name.lower() and " " not in name:
                upper = name.upper()
                forms = ("dpi.{0}", "dpi . {0}", 'DPI."{0}"', "dpi.{1}", '"dpi".{0}',
                         "dpi/* . */.{0}", 'dpi.U&"{2}"', "dpi.\n{0}")  # fmt: skip
                escaped = f"\\{ord(name[0]):04x}{name[1:]}"
                return rng.choice(forms).format(name, upper, escaped)
            return rng.choice(("dpi.{}", '"dpi" . {}')).format(quoted(name))

        return re.sub("([⟨‹])([^⟩›]+)[⟩›]", spelling, text)


def quoted(name: str) -> str:
    """An identifier as it is written in SQL."""
    return f'"{name}"' if name != name.lower() or " " in name or name == "from" else name


def generated(count: int, seed: int) -> list[Query]:
    """The first ``count`` queries of a seed; every third is for sessions with a search_path."""
    rng = random.Random(seed)
    return [Writer(rng, bare=number % 3 == 2).query() for number in range(count)]
