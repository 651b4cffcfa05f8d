from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from autopeft.task.delimited import read_csv, read_json, read_tsv

Reader = Callable[[Path], Dataset]
HEAD, TABBED = "text,label\n", "text\tlabel\n"
SURROGATE = '{"text": "\\ud83d\\ude00"}\n' * 2 + '{"text": "\\ud83d"}'

READ: dict[str, tuple[Reader, str, dict[str, list[Any]]]] = {
    "spellings": (
        read_csv,
        HEAD + "a,007\nb,1.0\nc,1e3\nd,true\ne,TRUE\nf,1 \n,NA\n",
        {"text": [*"abcdef", ""], "label": ["007", "1.0", "1e3", "true", "TRUE", "1 ", "NA"]},
    ),
    "quotes": (
        read_csv,
        HEAD + '"a ""b""\nc, d",1\n"",2\n\ne "f",3\n',
        {"text": ['a "b"\nc, d', "", 'e "f"'], "label": ["1", "2", "3"]},
    ),
    "a long text": (
        read_csv,
        HEAD + "a" * 200_000 + ",1",
        {"text": ["a" * 200_000], "label": ["1"]},
    ),
    "other breaks": (
        read_csv,
        "\ufefftext,label\r\na\u2028b\x85c,1\r\n",
        {"text": ["a\u2028b\x85c"], "label": ["1"]},
    ),
    "columns without a name": (read_csv, ",text,,\n0,a,,\n1,b,,\n", {"text": ["a", "b"]}),
    "names alone": (read_csv, HEAD, {"text": [], "label": []}),
    "quotation marks in a text": (
        read_tsv,
        TABBED + '"a film\t0\nb\t1\n"c" d\t007\n"e"\t1 \n',
        {"text": ['"a film', "b", '"c" d', '"e"'], "label": ["0", "1", "007", "1 "]},
    ),
    "a spreadsheet": (
        read_tsv,
        TABBED + '"a ""b"""\t0\r\n\r\nc\t"1"\r\n',
        {"text": ['a "b"', "c"], "label": ["0", "1"]},
    ),
    "lines": (
        read_json,
        '\ufeff{"text": "a\u2028\x85b", "label": 1}\r\n\n{"label": 2, "more": true}',
        {"text": ["a\u2028\x85b", None], "label": [1, 2], "more": [None, True]},
    ),
    "a list": (read_json, ' [{"text": ""},\n {"text": "\\ud83d\\ude00"}]', {"text": ["", "😀"]}),
}
REFUSED: dict[str, tuple[Reader, str, str]] = {
    "no content": (read_csv, "", "the file is empty"),
    "semicolons": (read_csv, "text;label\na;1", "the columns are separated by ';', expected ','"),
    "tabs": (read_csv, TABBED, r"the columns are separated by '\\t', expected ','"),
    "commas": (read_tsv, HEAD, r"the columns are separated by ',', expected '\\t'"),
    "nul": (read_csv, "te\0xt,label\na,b", "line 1: the name of a column holds a byte 0: 'te"),
    "nul in json": (read_json, '{"a": 1}\n{"b\\u0000": 1}', "line 2: the name of a column holds a"),
    "twice": (read_csv, "text,text\na,b", "line 1: two columns are called 'text'"),
    "too few": (read_csv, HEAD + '"a\nb",1\nc\n', "line 4: 1 fields, but 2 columns are named"),
    "too many": (read_csv, HEAD + "a,b,1\n", "line 2: 3 fields, but 2 columns"),
    "open": (read_csv, HEAD + 'a,1\n"b,2\nc,3\n', "line 3: a quotation mark opens and does not"),
    "after a quotation": (read_csv, HEAD + '"a" b,1', "line 2: ',' expected after '\"'"),
    "over two lines": (
        read_tsv,
        TABBED + 'a\t0\n"b\nc"\t1\n',
        "line 3: 1 fields, but 2 columns are named; a quoted text with tabs or line breaks needs",
    ),
    "half a record": (read_json, '{"a": 1}\n\n{"a": ', "line 3, column 7: Expecting value"),
    "half a list": (read_json, '[{"a": 1},\n\n{"a": ', "line 3, column 7: Expecting value"),
    "no record": (read_json, '{"a": 1}\n[1]', r"line 2: expected a record such as .*, got \[1\]"),
    "no record in a list": (read_json, '[{"a": 1}, 2]', "record 2: expected a record .*, got 2"),
    "kinds": (read_json, '{"a": 1}\n{"a": "b"}', "line 2: 'b' does not do as 'a': Could not conv"),
    "half a character": (read_json, SURROGATE, r"line 3: '\\ud83d' does not do as 'text'"),
    "large": (read_json, '{"a": 1}\n{"a": 1%s}' % ("0" * 25), "line 2: 10{25} does not do as 'a'"),
    "depth": (read_json, '{"a": 1}\n{"a": ' + "[" * 100_000, "line 2: .* nested too deeply"),
    "depth of a list": (read_json, "[" * 100_000, "line 1: its brackets are nested too deeply"),
}


@pytest.mark.parametrize("case", READ)
def test_nothing_is_rewritten(tmp_path: Path, case: str) -> None:
    read, content, columns = READ[case]
    (tmp_path / "data").write_bytes(content.encode())
    assert read(tmp_path / "data").to_dict() == columns


@pytest.mark.parametrize("case", REFUSED)
def test_the_first_wrong_line_is_named(tmp_path: Path, case: str) -> None:
    read, content, reason = REFUSED[case]
    (tmp_path / "data").write_bytes(content.encode())
    with pytest.raises(ValueError, match=f"^{reason}"):
        read(tmp_path / "data")


@pytest.mark.parametrize("read", [read_csv, read_tsv, read_json])
def test_another_encoding_is_refused_with_the_line(tmp_path: Path, read: Reader) -> None:
    (tmp_path / "data").write_bytes(f"{HEAD}a,1\ncafé,2\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"^line 3: byte 0xe9 is not UTF-8; save it as UTF-8"):
        read(tmp_path / "data")
