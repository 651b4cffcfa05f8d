import pytest

from autopeft.core import catalog
from autopeft.core.errors import AutoPeftError


@pytest.mark.parametrize("kind", catalog.FOLDERS)
def test_every_document_can_be_read_by_name(kind):
    assert catalog.names(kind)
    for name in catalog.names(kind):
        document, place = catalog.read(kind, name)
        assert document["name"] == name
        assert place == catalog.place(kind, name)
        assert place.endswith(f"{kind}/{name}.yaml")


def test_a_mapping_is_called_by_its_name():
    assert catalog.read("studies", {"name": "x", "a": 1}) == ({"name": "x", "a": 1}, "x")
    assert catalog.place("studies", {}) == ""


def test_a_name_without_a_suffix_is_never_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("place: []")
    assert catalog.read("search_spaces", "own.yaml")[0] == {"name": "own", "place": []}
    with pytest.raises(AutoPeftError, match="unknown space 'own'"):
        catalog.read("search_spaces", "own")


@pytest.mark.parametrize("reference", [7, None, ["a"]])
def test_a_reference_of_another_kind(reference):
    with pytest.raises(AutoPeftError, match="expected a name, a path or a mapping, got"):
        catalog.read("studies", reference)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("-2E5", -2e5), ("1.5e3", 1500.0), ("12", 12), ("e3", "e3"), ("", None)],
)
def test_numbers(text, value):
    assert catalog.parse(text, "here") == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2", "here: line 2: key 'a' stands twice"),
        ("a: [", "here: line 1: expected the node content, but found '<stream end>'"),
        ("\x01", "here: unacceptable character"),
        ("!!python/object:os.system {}", "here: line 1: could not determine a constructor"),
    ],
)
def test_what_is_not_yaml(text, says):
    with pytest.raises(AutoPeftError) as caught:
        catalog.parse(text, "here")
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
