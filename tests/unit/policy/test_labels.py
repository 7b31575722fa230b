"""Labels and selectors."""

import pytest

from hostwarden.policy.labels import Selector, is_key, is_value, parse_label, parse_selector

BILLING = {"team": "billing", "stage": "prod"}


@pytest.mark.parametrize(
    ("terms", "labels", "expected"),
    [
        ((), {}, True),
        ((), BILLING, True),
        ((("team", "billing"),), BILLING, True),
        ((("team", "billing"),), {}, False),
        ((("team", "sales"),), BILLING, False),
        ((("team", "billing"), ("stage", "prod")), BILLING, True),
        ((("team", "billing"), ("stage", "test")), BILLING, False),
        # "*" is any value, but the key must be there; in a label's value it is no wildcard
        ((("team", "*"),), BILLING, True),
        ((("region", "*"),), BILLING, False),
        ((("team", "billing"),), {"team": "*"}, False),
    ],
)
def test_matches(terms: tuple[tuple[str, str], ...], labels: dict[str, str], expected: bool) -> None:
    assert Selector(terms).matches(labels) is expected


@pytest.mark.parametrize("text", ["team", "a", "example.com/team", "a-b_c", "9", "a" * 63])
def test_keys(text: str) -> None:
    assert is_key(text)


@pytest.mark.parametrize("text", ["", "-a", "a=b", "a b", "ä", "a\n", "a" * 64, "*"])
def test_no_keys(text: str) -> None:
    assert not is_key(text)


def test_values() -> None:
    assert is_value("v1.2+build:3@x/y") and not is_value("*") and not is_value("") and not is_value("a b\n")


def test_parse_label() -> None:
    assert parse_label("team=billing") == ("team", "billing")
    for text in ("team", "=x", "team=", "te am=x", "team=*", "a=b=c"):
        with pytest.raises(ValueError, match="label"):
            parse_label(text)


def test_parse_selector() -> None:
    assert parse_selector(["team=billing", "stage=*"]) == Selector((("team", "billing"), ("stage", "*")))
    assert parse_selector([]) == Selector()
    for texts in (["team"], ["team=a", "team=b"], ["=*"], ["te am=*"]):
        with pytest.raises(ValueError, match="label"):
            parse_selector(texts)


def test_a_selector_is_shown_as_it_is_written() -> None:
    assert str(Selector((("team", "billing"), ("stage", "*")))) == "{team: billing, stage: *}"
    assert str(Selector()) == "{}"
