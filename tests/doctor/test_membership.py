"""Which roles a role can act as, by each option of a membership."""

from __future__ import annotations

from pgbalise.doctor.membership import Membership, leaving, reaches


def member(name: str, group: str, how: str) -> Membership:
    """A membership with options i, s and a."""
    undo = f"REVOKE {group} FROM {name}"
    return Membership(name, group, "i" in how, "s" in how, "a" in how, undo)


def test_inherited_privileges_make_no_other_role() -> None:
    reach = reaches(["a"], [member("a", "b", "i"), member("b", "c", "i"), member("b", "d", "s")])
    assert reach["a"].become == {"a"}
    # SET ROLE goes by the session user's own memberships, so d stays out of reach
    assert reach["a"].privileges == {"a", "b", "c"}


def test_set_role_brings_what_that_role_inherits() -> None:
    reach = reaches(["a"], [member("a", "b", "s"), member("b", "c", "i"), member("b", "d", "s")])
    assert reach["a"].become == {"a", "b", "d"}
    assert reach["a"].privileges == {"a", "b", "c", "d"}


def test_admin_option_gives_the_rest() -> None:
    reach = reaches(["a"], [member("a", "b", "i"), member("b", "c", "a"), member("c", "d", "s")])
    assert reach["a"].become == {"a", "c", "d"}


def test_a_membership_without_options_is_none() -> None:
    assert reaches(["a"], [member("a", "b", "")])["a"].privileges == {"a"}


def test_leaving_ends_every_way_and_no_other() -> None:
    ways = [member("a", "b", "i"), member("b", "d", "i"), member("a", "c", "s")]
    ways += [member("c", "d", "s"), member("a", "e", "is")]
    assert leaving("a", "d", ways) == "REVOKE b FROM a; REVOKE c FROM a"
    assert leaving("a", "a", ways) == ""
