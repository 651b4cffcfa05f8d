"""The page of a study on this machine, by requests and in a browser."""

import json
import shutil
import threading
import urllib.error
import urllib.request

import optuna
import pytest
import yaml
from selenium.webdriver.support.ui import WebDriverWait

from autopeft.api.outcome import open_study
from autopeft.api.run import run
from autopeft.api.steer import propose
from autopeft.core.errors import StudyError
from autopeft.dashboard.server import dashboard
from autopeft.study.spec import load_spec
from tests.report import browser as web

CONFIG = "place: [{{method: lora, r: {}, targets: [q]}}]"


@pytest.fixture
def spec(ran, tmp_path):
    """The tiny study with a record that only one test changes."""
    shutil.copy(ran.path.parent / "study.db", tmp_path / "study.db")
    return load_spec(str(ran.path), {"storage": f"sqlite:///{tmp_path}/study.db"})


@pytest.fixture
def address(spec):
    with dashboard(spec, [spec.place], port=0) as (address, server):
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield address
        server.shutdown()
        thread.join()


def ask(address, sent=None, **headers):
    """Status and text of an answer."""
    data = None if sent is None else sent.encode()
    request = urllib.request.Request(address, data, {k.title(): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def asked(address, sent=None):
    return json.loads(ask(address, sent)[1])


def test_the_page_is_the_report_and_tells_when_it_changes(spec, address):
    status, page = ask(address)
    assert status == 200
    assert "<h2>Pareto front</h2>" in page
    assert "All trials" in page
    whole = asked(f"{address}/body?seen=other")
    assert whole["body"] in page
    assert ask(f"{address}/body?seen={whole['version']}") == (204, "")
    trial = asked(f"{address}/trials", CONFIG.format(1))["trial"]
    later = asked(f"{address}/body?seen={whole['version']}")
    assert later["version"] != whole["version"]
    assert f'data-trial="{trial}"' in later["body"]
    assert f'data-trial="{trial}"' not in whole["body"]


def test_what_is_wanted_is_checked_before_it_is_written(address):
    assert asked(f"{address}/trials/0", "stop") == {"error": "trial 0 is complete"}
    assert "there is no trial 9" in asked(f"{address}/trials/9", "stop")["error"]
    assert "did you mean 'stop'?" in asked(f"{address}/trials/0", "stopp")["error"]
    assert "configuration: line" in asked(f"{address}/trials", "place: [")["error"]
    assert "expected a configuration" in asked(f"{address}/trials", "lora")["error"]
    assert "did you mean 'lora'?" in asked(f"{address}/trials", "place: [{method: lara}]")["error"]
    choice = "place: [{method: lora, r: {choice: [1, 2]}}]"
    assert "is a space with choices" in asked(f"{address}/trials", choice)["error"]
    there = asked(f"{address}/trials/1")["config"]
    assert "trial 1 is this configuration" in asked(f"{address}/trials", there)["error"]
    assert ask(f"{address}/trials", "x" * 200_000)[0] == 400
    assert ask(f"{address}/nothing")[0] == 404


def test_a_trial_without_a_rung_before_its_end_is_not_said_to_stop(spec, address):
    number = optuna.load_study(study_name=spec.name, storage=spec.storage).ask().number
    told = asked(f"{address}/trials/{number}", "stop")
    assert f"trial {number} has no rung before its end" in told["error"]


def test_optunas_dashboard_changes_nothing(address):
    pytest.importorskip("optuna_dashboard")
    for method in ("DELETE", "POST", "PUT"):
        request = urllib.request.Request(f"{address}/api/studies/1", b"{}", method=method)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request)
    with urllib.request.urlopen(f"{address}/dashboard/") as answer:
        assert answer.headers["X-Frame-Options"] == "DENY"


def test_pages_of_others_are_refused(address):
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        for place in ("", "/body", "/trials/0", "/dashboard", "/api/studies"):
            assert ask(f"{address}{place}", **headers)[0] == 403
        assert ask(f"{address}/trials", "place: []", **headers)[0] == 403


def test_what_is_wanted_is_done_by_the_next_run(spec, address):
    first, second = (asked(f"{address}/trials", CONFIG.format(r)) for r in (1, 3))
    assert (first["state"], first["wanted"]) == ("waiting", None)
    assert yaml.safe_load(first["config"])["place"][0]["r"] == 1
    assert asked(f"{address}/trials/{second['trial']}", "stop")["wanted"] == "stop"
    trained, stopped = run(spec).trials[-2:]
    assert (trained.number, trained.state) == (first["trial"], "complete")
    assert trained.values["trainable_params"] == 6 * 2 * 384
    assert (stopped.number, stopped.state) == (second["trial"], "stopped")


def test_optunas_dashboard_is_beside_it(address):
    pytest.importorskip("optuna_dashboard")
    studies = asked(f"{address}/api/studies")["study_summaries"]
    (study,) = (each for each in studies if each["study_name"] == "tiny")
    assert f'"dashboard/studies/{study["study_id"]}"' in ask(address)[1]
    assert ask(f"{address}/dashboard/studies/{study['study_id']}")[0] == 200


def test_a_port_that_is_taken_is_told(spec, address):
    port = int(address.rsplit(":", 1)[1])
    with (
        pytest.raises(StudyError, match=f"--port: cannot listen at {port}"),
        dashboard(spec, [], port),
    ):
        pass
    assert open_study(spec).trials


@pytest.fixture
def browser(address, tmp_path):
    """The page, filtered and sorted by its user, with the first complete trial chosen."""
    browser = web.open_browser(tmp_path / "profile")
    browser.get(address)
    web.wait_for_figures(browser)
    web.one(browser, "input[type=search]").send_keys("complete")
    web.every(browser, "#trials th button")[0].click()
    web.one(browser, "#trials tbody tr:not([hidden]) button.number").click()
    wait(browser, lambda b: "is complete" in web.one(b, "#trial").text)
    yield browser
    assert [told for told in web.complaints(browser) if "400 (Bad Request)" not in told] == []
    browser.quit()


def wait(browser, condition):
    WebDriverWait(browser, 60).until(condition)


def try_config(browser, config):
    text = web.one(browser, "#live textarea")
    text.clear()
    text.send_keys(config)
    web.one(browser, "#try").click()


@web.NEEDS_BROWSER
def test_a_browser_asks_for_what_its_user_wants(spec, browser):
    assert not any(button.is_displayed() for button in web.every(browser, "[data-wish]"))
    web.one(browser, "#vary").click()
    assert "place:" in web.one(browser, "#live textarea").get_attribute("value")
    try_config(browser, "place: [{method: lara}]")
    wait(browser, lambda b: "did you mean 'lora'?" in web.one(b, "#told").text)
    try_config(browser, CONFIG.format(1))
    wait(browser, lambda b: "waits for the next free worker" in web.one(b, "#told").text)
    web.one(browser, "[data-wish=stop]").click()
    wait(browser, lambda b: "waiting, stops at its next rung" in web.one(b, "#trial").text)
    assert run(spec).trials[-1].state == "stopped"


@web.NEEDS_BROWSER
def test_what_is_set_on_the_page_outlives_its_content(spec, browser):
    number = propose(spec, yaml.safe_load(CONFIG.format(1)))
    wait(browser, lambda b: web.every(b, f"tr[data-trial='{number}']"))
    assert web.one(browser, "input[type=search]").get_attribute("value") == "complete"
    assert not web.one(browser, f"tr[data-trial='{number}']").is_displayed()
    assert web.one(browser, "#trials th").get_attribute("aria-sort") == "ascending"
    chosen = web.one(browser, "tr.chosen").get_attribute("data-trial")
    assert f"trial {chosen} is complete" in web.one(browser, "#trial").text
    web.wait_for_figures(browser)
