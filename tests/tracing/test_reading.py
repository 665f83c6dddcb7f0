"""A leaked column is read as it was written, whatever wrote it."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbalise.marking.policy import Carrier, parse_policy
from pgbalise.marking.types import SqlType
from pgbalise.tracing.inference import infer_format
from pgbalise.tracing.reading import canonical, seen_units
from pgbalise.tracing.written import Format

MONTHS = "janvier février mars avril mai juin juillet août septembre octobre novembre décembre"


def carrier(**settings: object) -> Carrier:
    document = {"relation": {"d.r": {"key": {"id": "bigint"}, "carrier": {"c": settings}}}}
    return parse_policy(document).relations[0].carriers[0]


def read(declared: str, texts: list[str | None], like: list[str] | None = None) -> list[str | None]:
    """The texts of a column in the format inferred from them."""
    kind, array = SqlType.parse(declared), pa.array(texts, pa.string())
    found = infer_format(array, kind, None if like is None else pa.array(like))
    return canonical(array, kind, found).to_pylist()


@pytest.mark.parametrize(
    ("declared", "texts", "shown"),
    [
        ("bigint", ["17.0", " +17", "x", "1" * 19, "9" * 19], ["17", "17", None, "1" * 19, None]),
        ("smallint", ["32767", "32768", "-32768"], ["32767", None, "-32768"]),
        ("bigint", ["1 234", "12", "1\u202f234\u00a0567"], ["1234", "12", "1234567"]),
        ("integer", ["1,234", "2,345"], ["1234", "2345"]),
        ("integer", ["1e3", "1.5", "٣", "12e400"], ["1000", None, None, None]),
        ("numeric(7,2)", ["12,5", "1 234,5", "−3", "NA"], ["12.50", "1234.50", "-3.00", None]),
        ("numeric(7,2)", ["1.234,5", "12,5"], ["1234.50", "12.50"]),
        ("numeric(7,2)", ["1,234.5", "12.5", "1,000"], ["1234.50", "12.50", "1000.00"]),
        ("numeric(4,1)", ["72 kg", "71,5 kg", "158 lb", "1e9"], ["72.0", "71.5", None, None]),
        ("numeric", ["12 %", "7,50%"], ["12", "7.5"]),
        ("numeric", ["1e2", "1e-7", "007.50", "+3", ".5", "5.", "-0.0", "<5"],
         ["100", "0.0000001", "7.5", "3", "0.5", "5", "0", None]),
        ("numeric(12,8)", ["0.00000001", "12"], ["0.00000001", "12.00000000"]),
        ("double precision", ["1e15", "123456789012345", "1E-5", "12.0", "1e400"],
         ["1e+15", "123456789012345", "1e-05", "12", None]),
        ("real", ["1000000", "1234567", "0.1", "999999"],
         ["1e+06", "1.234567e+06", "0.1", "999999"]),
        ("date", ["2021-02-03 00:00", "2021-02-30", "NULL"], ["2021-02-03", None, None]),
        ("date", ["03/02/2021", "3/2/21", "03-02-2021", "03.02.2021", "3 février 2021",
                  "1er août 20", "mer. 3 févr. 2021", "Feb 3, 2021", "03-FEB-21", "2021/02/03",
                  "30/02/2021"],
         ["2021-02-03"] * 5 + ["2020-08-01"] + ["2021-02-03"] * 4 + [None]),
        ("date", ["02/13/2021", "02/03/2021"], ["2021-02-13", "2021-02-03"]),
        ("date", ["20210203", "20210230"], ["2021-02-03", None]),
        ("date", ["44230", "44231,5"], ["2021-02-03", "2021-02-04"]),
        ("date", ["1612325106", "-1612325106"], ["2021-02-03", "1918-11-28"]),
        ("timestamptz", ["2021-02-03 04:05:06+01", "2021-02-30 00:00:00", "2021-02-03T04:05:06Z"],
         ["2021-02-03 03:05:06+00", None, "2021-02-03 04:05:06+00"]),
        ("timestamp", ["03/02/2021 14h05", "03/02/2021 à 14:05:06,5", "03/02/2021 02:05 PM",
                       "2021-02-03", "2021-02-03T04:05:06.123456789", "03/02/2021 24:00"],
         ["2021-02-03 14:05:00", "2021-02-03 14:05:06.5", "2021-02-03 14:05:00",
          "2021-02-03 00:00:00", "2021-02-03 04:05:06.123456", None]),
        ("timestamptz", ["1612325106.25", "1612325107"],
         ["2021-02-03 04:05:06.25+00", "2021-02-03 04:05:07+00"]),
        ("timestamp", ["1612325106000"], ["2021-02-03 04:05:06"]),
        ("timestamp", ["44230.5", "44230.170208333"],
         ["2021-02-03 12:00:00", "2021-02-03 04:05:06"]),
        ("timestamp", ["20210203T040506", "20210203 0405"],
         ["2021-02-03 04:05:06", "2021-02-03 04:05:00"]),
        ("time", ["14:05", "14h05", "2:05 pm", "14:05:06.50", "25:00"],
         ["14:05:00", "14:05:00", "14:05:00", "14:05:06.5", None]),
        ("time", ["0.5", "0,25"], ["12:00:00", "06:00:00"]),
        ("boolean", ["t", "FAUX", "1", "oui", "non", "perhaps", ""],
         ["t", "f", "t", "t", "f", None, None]),
        ("uuid", ["A" * 8 + "-0000-0000-0000-" + "0" * 12, "{" + "1" * 32 + "}", "17"],
         ["a" * 8 + "-0000-0000-0000-" + "0" * 12, "1" * 8 + "-1111-1111-1111-" + "1" * 12, None]),
        ("character(4)", ["a  ", "a"], ["a", "a"]),
        ("text", [" A b ", "e\u0301", "NULL", None], ["A b", "é", "NULL", None]),
    ],
)  # fmt: skip
def test_values_are_read_as_postgresql_prints_them(
    declared: str, texts: list[str | None], shown: list[str | None]
) -> None:
    assert read(declared, texts) == shown


def test_what_the_texts_leave_open_the_stored_values_decide() -> None:
    days = [f"2021-{month:02d}-{day:02d}" for month in (3, 4, 5) for day in range(6, 13)]
    american = [f"{d[5:7]}/{d[8:]}/{d[:4]}" for d in days]
    assert read("date", american, like=days) == days
    assert read("date", american) != days
    born = [f"{day}/03/21" for day in range(10, 29)]
    assert read("date", born, like=["1921-03-10", "1950-01-01", "1999-12-31"])[0] == "1921-03-10"
    large = [str(n) for n in range(1000, 9000, 100)]
    points = [f"{int(n):,}" for n in large]
    assert read("numeric", points, like=large) == large
    small = [f"{n / 1000:.3f}" for n in range(1001, 9000, 101)]
    commas = [n.replace(".", ",") for n in small]
    assert read("numeric(6,3)", commas, like=small) == small


def test_local_times_of_the_hospital_are_found_by_the_stored_ones() -> None:
    stamps = [datetime(2021, 1, 1, 6, tzinfo=UTC) + timedelta(minutes=n * 5003) for n in range(200)]
    stored = [f"{s:%Y-%m-%d %H:%M:%S}+00" for s in stamps]
    # the last Sundays of March and October
    summer = [timedelta(hours=1 + ("0328" <= f"{s:%m%d}" < "1031")) for s in stamps]
    local = [f"{s + more:%d/%m/%Y %H:%M}" for s, more in zip(stamps, summer, strict=True)]
    found = read("timestamptz", local, like=stored)
    assert np.mean([a == f"{b[:17]}00+00" for a, b in zip(found, stored, strict=True)]) > 0.99


stamps_read = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))
numbers_read = st.decimals(-(10**6), 10**6, places=2)


def french(number: Decimal, thousands: str) -> str:
    return f"{number:,}".replace(",", "_").replace(".", ",").replace("_", thousands)


@pytest.mark.parametrize(
    ("declared", "plain", "written", "form"),
    [
        ("bigint", st.integers(-(2**63), 2**63 - 1), str, Format()),
        ("bigint", st.integers(-(10**17), 10**17), lambda v: f"{v}.0", Format()),
        ("bigint", st.integers(-(10**17), 10**17), lambda v: f"{v:,}", Format(thousands=",")),
        ("numeric(9,2)", numbers_read, lambda v: french(v, ""), Format(decimal=",")),
        ("numeric(9,2)", numbers_read, lambda v: french(v, "\u202f"), Format(decimal=",")),
        ("numeric(9,2)", numbers_read, lambda v: french(v, "."), Format(",", ".")),
        ("numeric(9,2)", numbers_read, lambda v: f"{v:,}", Format(".", ",")),
        ("numeric(9,2)", numbers_read, lambda v: f"{v} mg/dL", Format(unit="mg/dL")),
        ("numeric(9,2)", numbers_read, lambda v: f"{v:E}", Format()),
        ("numeric(9,2)", numbers_read, lambda v: f"{v * 10:.3f}", Format(factor=10.0)),
        ("double precision", st.floats(allow_nan=False, allow_infinity=False), repr, Format()),
        ("date", st.dates(), str, Format()),
        ("date", st.dates(), lambda v: f"{v:%d/%m/}{v.year:04d}", Format()),
        ("date", st.dates(), lambda v: f"{v:%m/%d/}{v.year:04d}", Format(calendar="mdy")),
        ("date", st.dates(), lambda v: f"{v.year:04d}{v:%m%d}", Format(calendar="compact")),
        ("date", st.dates(),
         lambda v: f"{v.day} {MONTHS.split()[v.month - 1]} {v.year:04d}", Format()),
        ("date", st.dates(date(1922, 1, 1), date(2021, 12, 31)), lambda v: f"{v:%d.%m.%y}",
         Format(pivot=2021)),
        ("date", st.dates(date(1900, 1, 1)), lambda v: str((v - date(1899, 12, 30)).days),
         Format(calendar="excel")),
        ("timestamp", stamps_read, lambda v: v.isoformat(), Format()),
        ("timestamp", stamps_read, lambda v: f"{v:%d/%m/%Y %H:%M:%S,%f}", Format()),
        ("timestamp", stamps_read, lambda v: f"{v:%m-%d-%Y %I:%M:%S.%f %p}",
         Format(calendar="mdy")),
        ("timestamp", stamps_read,
         lambda v: str((v - datetime(1970, 1, 1)) // timedelta(microseconds=1)),
         Format(calendar="unix us")),
        ("time", st.times(), lambda v: f"{v:%Hh%Mm%S,%f}", Format()),
        ("boolean", st.booleans(), lambda v: "oui" if v else "NON", Format()),
        ("uuid", st.uuids(), lambda v: "{" + v.hex.upper() + "}", Format()),
        ("text", st.text(), lambda v: f" {v}\u00a0", Format()),
    ],
)  # fmt: skip
def test_what_was_written_in_a_format_is_read_back(
    declared: str, plain: Any, written: Any, form: Format
) -> None:
    kind = SqlType.parse(declared)

    @settings(deadline=None, max_examples=40)
    @given(st.lists(plain, min_size=1, max_size=8))
    def check(values: list[Any]) -> None:
        texts = pa.array([str(v) for v in values], pa.string())
        if kind.name == "double precision":
            texts = pa.array([np.format_float_scientific(v) for v in values])
        expected = canonical(texts, kind)
        assert expected.null_count == 0
        leaked = pa.array([written(v) for v in values])
        assert canonical(leaked, kind, form).to_pylist() == expected.to_pylist()

    check()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(st.none(), st.text(), st.from_regex(r"[0-9 .,/:eE+-]{1,12}"))))
def test_no_text_is_an_error_in_any_type(values: list[str | None]) -> None:
    texts = pa.array(values, pa.string())
    names = "smallint bigint numeric numeric(5,-2) real date timestamptz time boolean uuid text"
    for kind in map(SqlType.parse, names.split()):
        found = canonical(texts, kind, infer_format(texts, kind))
        assert canonical(found, kind).to_pylist() == found.to_pylist()


def stored_sample(name: str, size: int = 5_000) -> tuple[str, np.ndarray, int]:
    rng = np.random.default_rng(5)
    return {
        "weight": ("numeric(5,1)", rng.normal(80, 17, size).clip(30), 1),
        "height": ("numeric(5,1)", rng.normal(168, 10, size), 1),
        "glucose": ("numeric(5,2)", rng.lognormal(1.7, 0.25, size), 2),
        "cholesterol": ("integer", rng.normal(200, 40, size), 0),
        "creatinine": ("integer", rng.lognormal(4.4, 0.3, size), 0),
        "temperature": ("numeric(4,1)", rng.normal(37, 0.7, size), 1),
        "pressure": ("integer", rng.normal(130, 20, size), 0),
        "age": ("smallint", rng.uniform(0, 100, size), 0),
    }[name]


@pytest.mark.parametrize(
    ("name", "factor", "offset", "places"),
    [
        ("weight", 2.20462, 0, 1),
        ("weight", 1000, 0, 0),
        ("height", 1 / 2.54, 0, 1),
        ("height", 0.01, 0, 2),
        ("glucose", 18.016, 0, 0),
        ("glucose", 0.18016, 0, 2),
        ("cholesterol", 1 / 38.67, 0, 2),
        ("creatinine", 1 / 88.42, 0, 2),
        ("temperature", 1.8, 32, 1),
        ("pressure", 1 / 7.50062, 0, 1),
        ("age", 12, 0, 0),
    ],
)
def test_another_unit_is_found_and_divided_out(
    name: str, factor: float, offset: float, places: int
) -> None:
    declared, numbers, scale = stored_sample(name)
    kind = SqlType.parse(declared)
    stored = [f"{n:.{scale}f}" for n in numbers]
    some = np.random.default_rng(6).choice(np.array(stored, dtype=float), 300)
    leaked = pa.array([f"{n * factor + offset:.{places}f}" for n in some])
    form = infer_format(leaked, kind, pa.array(stored))
    assert (form.factor, form.offset) == pytest.approx((factor, offset), rel=1e-3)
    quantum = 10.0**-scale
    units, known, extra = seen_units(leaked, carrier(type=declared, quantum=str(quantum)), form)
    assert known.all()
    assert extra == 3
    off = units / 10.0 ** (scale + extra) - some
    assert np.abs(off).max() <= 0.51 * 10.0**-places / factor


@pytest.mark.parametrize("name", ["weight", "height", "glucose", "cholesterol", "age"])
def test_a_choice_of_rows_is_no_change_of_unit(name: str) -> None:
    declared, numbers, scale = stored_sample(name)
    stored = np.sort(np.round(numbers, scale))
    texts = pa.array([f"{n:.{scale}f}" for n in stored])
    for share in (0.02, 0.05, 0.1, 0.18, 0.25, 0.4, 0.7):
        few = int(share * len(stored))
        for some in (texts[:few], texts[-few:], texts[few : 2 * few]):
            form = infer_format(some, SqlType.parse(declared), texts)
            assert (form.factor, form.offset) == (1.0, 0.0), (share, form)


def test_keys_given_anew_are_no_change_of_unit() -> None:
    stored = pa.array([str(n) for n in range(1, 6000)])
    for step in (10, 60, 1000):
        fresh = pa.array([str(n) for n in range(step, 5000 * step, 13 * step)])
        assert not infer_format(fresh, SqlType("integer"), stored).converted


def test_numbers_are_read_with_the_decimals_the_thief_left() -> None:
    texts = pa.array([" 12.1 ", "12.1049", "1e2", "+3", ".5", "12,5", "abc", None, "9" * 30])
    units, known, extra = seen_units(texts, carrier(type="numeric(7,2)", quantum="0.1"))
    assert extra == 3
    assert units[:5].tolist() == [1_210_000, 1_210_490, 10_000_000, 300_000, 50_000]
    assert known.tolist() == [True] * 5 + [False] * 4


def test_integers_have_the_same_decimals_in_every_part_of_a_column() -> None:
    whole, halves = pa.array(["12", "13"]), pa.array(["12.5", "13"])
    age = carrier(type="integer", quantum=1)
    for sample, extra in ((whole, 0), (halves, 3)):
        form = infer_format(sample, age.type)
        for part in (whole, halves):
            units, known, decimals = seen_units(part, age, form)
            assert decimals == extra
            assert known.all()
            assert units[1] == 13 * 10**extra


def test_times_are_read_with_and_without_a_zone() -> None:
    texts = pa.array(
        [
            "2021-02-03 04:05:06",
            "2021-02-03T04:05:06Z",
            "2021-02-03 05:05:06.5+01",
            "2021-02-30 00:00:00",
            "?",
        ]
    )
    units, known, _ = seen_units(texts, carrier(type="timestamptz", quantum="1 second"))
    assert known.tolist() == [True, True, True, False, False]
    assert (units[:3] - units[0]).tolist() == [0, 0, 500_000]
    assert units[0] == np.datetime64("2021-02-03T04:05:06", "us").astype(np.int64)


def test_dates_are_read_when_they_exist() -> None:
    texts = pa.array(["2021-02-03", "2021-02-03 00:00:00", "2021-02-30", "03/02/2021"])
    units, known, _ = seen_units(texts, carrier(type="date", quantum="1 day"))
    assert known.tolist() == [True, True, False, True]
    assert set(units[known]) == {np.datetime64("2021-02-03", "D").astype(np.int64)}


def test_white_space_counts_in_an_equivalent_only_where_it_tells_two_apart() -> None:
    title = carrier(type="text", equivalents=[["Dr", "Dr "], ["e\u0301", "é"], ["M.", "Mr"]])
    codes, known, extra = seen_units(
        pa.array(["Dr", "Dr ", "é", "e\u0301", " Mr ", "Mme", None]), title
    )
    assert codes[:5].tolist() == [0, 1, 3, 2, 5]
    assert codes[5] == -1
    assert known.tolist() == [True] * 6 + [False]
    assert extra == 0


def test_a_million_values_of_any_layout_take_a_second() -> None:
    days = np.datetime64("1950-01-01") + np.random.default_rng(1).integers(0, 20_000, 200_000)
    shown = days.astype(str).tolist()
    columns = {
        "numeric(7,1)": [f"{n % 977},{n % 10} kg" for n in range(200_000)],
        "bigint": [f"{n:,}".replace(",", " ") for n in range(200_000)],
        "date": [f"{d[8:]}/{d[5:7]}/{d[:4]}" for d in shown],
        "timestamptz": [f"{d} 0{n % 10}:0{n % 7}:00+02" for n, d in enumerate(shown)],
    }
    columns["timestamptz"][7] = "2021-02-30 00:00:00"
    for declared, texts in columns.items():
        array = pa.array(texts)
        kind = SqlType.parse(declared)
        form = infer_format(array[:2000], kind)
        start = time.process_time()
        found = canonical(array, kind, form)
        # a fifth of a million, on a machine that may be busy
        assert time.process_time() - start < 0.9
        assert found.null_count == (declared == "timestamptz")
