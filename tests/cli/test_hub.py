"""Pushing to the hub, with its own client, to a server on this machine that answers as it does."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Hub(ThreadingHTTPServer):
    """Keeps what is committed; takes every file whole, as the hub takes small ones."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.made, self.files, self.has_login = [], {}, True


class _Answers(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/api/whoami-v2" and self.server.has_login:
            self.answer({"type": "user", "name": "me", "auth": {"accessToken": {}}})
        elif self.path.startswith("/api/whoami"):
            self.answer({"error": "Invalid username or password."}, 401)
        else:
            self.answer({"id": "me/winner", "sha": "0" * 40, "siblings": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            self.answer({"url": f"http://{self.headers['Host']}/me/winner"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self.answer({"files": modes})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[line["value"]["path"]] = content
            url = f"http://{self.headers['Host']}/me/winner/commit/{'1' * 40}"
            self.answer({"commitUrl": url, "commitOid": "1" * 40, "hookOutput": ""})
        else:
            self.answer({}, 404)


@pytest.fixture
def hub(monkeypatch):
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        with pointed_at(address, monkeypatch):
            yield server
        server.shutdown()
        thread.join()


@contextmanager
def pointed_at(address, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", address, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    yield


def test_an_export_is_pushed_whole(ran, autopeft, hub, tmp_path):
    words = ["export", ran.path, "--output", tmp_path / "out", "--push-to-hub", "me/winner"]
    said = autopeft(*words, "--private")
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1].startswith("pushed to http://127.0.0.1:")
    (made,) = hub.made
    assert (made["name"], made["organization"]) == ("winner", "me")
    assert made.get("private") or made.get("visibility") == "private"
    written = {
        str(path.relative_to(tmp_path / "out")): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert "README.md" in written
    assert {n: c for n, c in hub.files.items() if n != ".gitattributes"} == written


def test_what_cannot_be_pushed_is_told_before_anything_is_written(ran, autopeft, hub, tmp_path):
    words = ["export", ran.path, "--output", tmp_path / "out", "--push-to-hub"]
    bad = autopeft(*words, "a name/of/nothing")
    assert (bad.code, bad.err.count("\n")) == (2, 1)
    assert "autopeft: --push-to-hub: Repo id must" in bad.err
    hub.has_login = False
    refused = autopeft(*words, "me/winner")
    assert refused.code == 2
    assert "--push-to-hub: the hub does not take it" in refused.err
    assert not (tmp_path / "out").exists()
