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


AB = [1, {"b": 2}]
BOMB = "a0: &a0 [1]\n" + "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[2024-01-01, 2024-13-45]", ["2024-01-01", "2024-13-45"]),
        ("2024-13-45: x", {"2024-13-45": "x"}),
        ("{a: &a [1, {b: 2}], c: *a, d: [*a]}", {"a": AB, "c": AB, "d": [AB]}),
        ("[" * 64 + "1" + "]" * 64, None),
    ],
)
def test_dates_are_texts_and_aliases_stand_for_values(text, value):
    found = catalog.parse(text, "here")
    assert value is None or found == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2", "here: line 2: key 'a' stands twice"),
        ("a: [", "here: line 1: expected the node content, but found '<stream end>'"),
        ("\x01", "here: unacceptable character"),
        ("!!python/object:os.system {}", "here: line 1: could not determine a constructor"),
        ("a: !!float abc", "here: line 1: 'abc' is no float"),
        ("a: 1\nb: !!int abc", "here: line 2: 'abc' is no int"),
        ("!!bool abc", "here: line 1: 'abc' is no bool"),
        ("!!timestamp abc", "here: line 1: 'abc' is no timestamp"),
        ("!!map abc", "here: line 1: expected a mapping node"),
        ("0x_", "here: line 1: '0x_' is no int"),
        ("9" * 5000, "here: line 1: '9999"),
        ("5: x", "here: line 1: the key 5 is no text; write it in quotes"),
        ("a: {~: x}", "here: line 1: the key None is no text"),
        ("a: 1\ntrue: x", "here: line 2: the key True is no text"),
        (".nan: x", "here: line 1: the key nan is no text"),
        ("? [1, 2]\n: 3", "here: line 1: the key [1, 2] is no text"),
        ('name: "t\\ud800y"', "here: line 1: 't\\ud800y' is no text that can be written"),
        ('output: "a\\0b"', "here: line 1: 'a\\x00b' is no text that can be written"),
        ("[" * 1000, "here: line 1: more than 64 lists and mappings inside one another"),
        ("{a: " * 3000, "here: line 1: more than 64 lists"),
        ("\n".join(" " * i + "a:" for i in range(300)), "here: line 65: more than 64 lists"),
        ("place: &p [{choice: *p}]", "here: line 1: *p stands inside of what it stands for"),
        ("targets: &t [q, *t]", "here: line 1: *t stands inside of what it stands for"),
        ("a: " + "x" * 300_000, "here: expected at most 200,000 characters, got 300,003"),
        (BOMB, "here: line 6: more than 200,000 characters with what aliases stand for"),
        (f"a: &a {'x' * 100_000}\nb: [{'*a, ' * 9}]", "here: line 2: more than 200,000"),
    ],
)
def test_what_is_not_yaml(text, says):
    with pytest.raises(AutoPeftError) as caught:
        catalog.parse(text, "here")
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
