import pytest

from pgbalise.decoys.mail import LocalPart, check_domain, learn_mail, reserved
from pgbalise.decoys.stream import Stream
from pgbalise.errors import InvalidInput


@pytest.mark.parametrize(
    "domain",
    ["example.org", "mail.example.com", "EXAMPLE.NET", "chu.example", "x.invalid", "a.test"],
)
def test_reserved_domains_are_those_of_rfc_2606_and_6761(domain: str) -> None:
    assert reserved(domain)
    assert check_domain(domain) == domain.lower()


@pytest.mark.parametrize("domain", ["chu-exemple.fr", "example.fr", "myexample.org", "org"])
def test_other_domains_are_not_reserved(domain: str) -> None:
    assert not reserved(domain)


@pytest.mark.parametrize(
    "domain", ["gmail.com", "orange.fr", "laposte.net", "Free.FR", "wanadoo.fr"]
)
def test_where_anybody_gets_an_address_is_refused(domain: str) -> None:
    with pytest.raises(InvalidInput, match="anybody"):
        check_domain(domain)


@pytest.mark.parametrize("domain", ["", "org", "a b.fr", "x@example.org", "-a.fr", "a..fr", "é.fr"])
def test_what_is_no_domain_is_refused(domain: str) -> None:
    with pytest.raises(InvalidInput, match="domain"):
        check_domain(domain)


@pytest.mark.parametrize(
    ("local", "pattern", "digits"),
    [
        ("marie.dupontel", "g.f", 0),
        ("dupontel.marie", "f.g", 0),
        ("m.dupontel", "i.f", 0),
        ("marie_dupontel85", "g_f", 2),
        ("mariedupontel", "gf", 0),
        ("bdupontel", "if", 0),
    ],
)
def test_local_parts_are_made_as_in_the_column(local: str, pattern: str, digits: int) -> None:
    learned = learn_mail([f"{local}@chu-exemple.fr"] * 5)
    assert learned.values == (LocalPart(pattern, digits),)


def test_a_local_part_is_plain_ascii() -> None:
    text = LocalPart("g.f", 2).write(Stream(b"", "x"), "Da Côsta-Léon", "Zoë")
    assert text[:-2] == "zoe.dacostaleon"
    assert text.isascii()


def test_an_initial_counts_for_nothing_in_the_space() -> None:
    families, givens = ("Petit", "Roux"), ("Anne", "Alice", "Zoé")
    assert LocalPart("i.f", 0).space(families, givens) == 2
    assert LocalPart("g.f", 1).space(families, givens) == 60
