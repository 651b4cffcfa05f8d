"""No message shows a password."""

import pytest

from autopeft.core.errors import StudyError, redacted

URLS = (
    "postgresql://u:geheim@h/db",
    "postgresql+psycopg2://u:geheim@h:5432/db",
    "postgresql://h/db?user=u&password=geheim&x=1",
    "u:geheim@h/db",
    "postgresql:/u:geheim@h/db",
    "['postgresql://u:geheim@h/db']",
    "{'url': 'postgresql://u:geheim@h/db'}",
)


@pytest.mark.parametrize("url", URLS)
def test_passwords_are_stars(url):
    assert redacted(url) == url.replace("geheim", "***")
    error = StudyError(f"cannot open {url!r}", "storage").inside(url)
    assert "geheim" not in str(error) + error.reason + error.where


@pytest.mark.parametrize("mark", "@:'/?#&")
def test_passwords_may_hold_anything(mark):
    assert redacted(f"'postgresql://u:ge{mark}heim@h/db'") == "'postgresql://u:***@h/db'"


@pytest.mark.parametrize(
    "text", ["sqlite:///a:b/c.db", "trial 3: 4 @ 5", "host:6379", "me@home.de"]
)
def test_all_else_stays(text):
    assert redacted(text) == text
