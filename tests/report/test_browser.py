"""The page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from autopeft.report import plot, write_report
from tests.report.browser import (
    NEEDS_BROWSER,
    complaints,
    every,
    one,
    open_browser,
    wait_for_figures,
)
from tests.report.trials import OBJECTIVES, STUDY, again

pytestmark = [NEEDS_BROWSER, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    driver = open_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: webdriver.Chrome, tmp_path: Path) -> webdriver.Chrome:
    """The page of the small study, of which some trials have repeats."""
    fresh = [again(12 + i, 4, 0.84 + i / 100, 0.83) for i in range(2)]
    fresh += [again(14 + i, 0, 0.80 + i / 100, 0.80) for i in range(2)]
    fresh += [again(16 + i, 5, 0.79 + i / 100, 0.79) for i in range(2)]
    timed = [replace(t, began=1e9 + 60 * t.number, ended=1e9 + 60 * t.number + 30) for t in STUDY]
    path = write_report("study", {}, [*timed, *fresh], OBJECTIVES, tmp_path, ["my study.yaml"])
    open_file(browser, path)
    return browser


def open_file(browser: webdriver.Chrome, path: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.set_window_size(1200, 1000)
    browser.get(path.as_uri())
    wait_for_figures(browser)


def test_it_is_drawn_without_a_complaint(page: webdriver.Chrome) -> None:
    """What is folded away is drawn when it is opened."""
    assert len(every(page, ".figure[data-drawn] .main-svg")) >= 2 * 4
    folded = [d for d in every(page, "details") if d.find_elements(By.CSS_SELECTOR, ".figure")]
    assert [d.text for d in folded] == ["In three dimensions", "Over hours"]
    for details in folded:
        assert not details.find_elements(By.CSS_SELECTOR, ".main-svg")
        details.find_element(By.TAG_NAME, "summary").click()
        WebDriverWait(page, 20).until(
            lambda _, d=details: d.find_elements(By.CSS_SELECTOR, ".main-svg")
        )
    assert complaints(page) == []


def test_pointing_at_a_trial_tells_it_and_a_click_chooses_it(page: webdriver.Chrome) -> None:
    figure = one(page, ".figure")
    front = page.execute_script(
        "const t = arguments[0].data.find(t => t.name === 'Pareto front');"
        "return [t.customdata, t.error_y && t.error_y.array.length]",
        figure,
    )
    assert {4, 5} <= {*front[0]} <= {0, 4, 5}
    assert front[1] == len(front[0])
    point = figure.find_elements(By.CSS_SELECTOR, ".scatterlayer .trace .points path")[-1]
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
    ActionChains(page).move_to_element(point).pause(0.3).perform()
    told = WebDriverWait(page, 10).until(lambda b: every(b, ".hoverlayer .hovertext"))[0].text
    number = int(told.split("trial ")[1].split()[0])
    ActionChains(page).move_to_element(point).click().perform()
    chosen = WebDriverWait(page, 10).until(lambda b: every(b, ".chosen"))
    assert {each.get_attribute("data-trial") for each in chosen} == {str(number)}
    drawn = [each for each in chosen if each.tag_name == "details"]
    assert all(each.get_attribute("open") for each in drawn)
    assert "tr" in {each.tag_name for each in chosen}


def numbers(browser: webdriver.Chrome, rows: str, column: int) -> list[float]:
    """Those of a column that are told."""
    cells = [row.find_elements(By.TAG_NAME, "td")[column] for row in every(browser, rows)]
    told = [cell.get_attribute("data-value") for cell in cells]
    return [float(text) for text in told if text]


def test_trials_are_filtered_and_sorted_by_mouse_and_keyboard(page: webdriver.Chrome) -> None:
    rows = "#trials tbody tr:not([hidden])"
    n_trials = len(STUDY) + 6
    assert len(every(page, rows)) == n_trials
    field = one(page, "input[type=search]")
    field.send_keys("lora complete")
    left = every(page, rows)
    assert 0 < len(left) < n_trials
    assert all("lora" in row.text and "complete" in row.text for row in left)
    assert f"{len(left)} of {n_trials}" in one(page, "input[type=search] + small").text
    field.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    assert len(every(page, rows)) == n_trials
    heads = every(page, "#trials th button")
    heads[2].click()
    values = numbers(page, rows, 2)
    assert values == sorted(values)
    heads[2].send_keys(Keys.ENTER)
    assert numbers(page, rows, 2) == values[::-1]
    assert every(page, "#trials th")[2].get_attribute("aria-sort") == "descending"


def test_the_front_is_drawn_as_networks_with_commands(page: webdriver.Chrome) -> None:
    details = one(page, "details[data-trial='4']")
    details.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    network = details.find_element(By.CSS_SELECTOR, "table.network")
    cells = network.find_elements(By.CSS_SELECTOR, "td.on")
    assert [cell.text for cell in cells] == ["32"] * 3
    assert "adapter/ffn 32" in str(cells[0].get_attribute("title"))
    command = details.find_element(By.TAG_NAME, "code")
    assert "autopeft export 'my study.yaml' --trial 4 --output study-4" in details.text
    assert command.is_displayed()
    button = details.find_element(By.CSS_SELECTOR, ".copy")
    button.click()
    WebDriverWait(page, 5).until(lambda _: button.text == "copied")


def test_it_goes_with_dark_and_narrow_screens(page: webdriver.Chrome) -> None:
    light = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    page.refresh()
    wait_for_figures(page)
    dark = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert light != dark
    ink = page.execute_script("return document.querySelector('.figure').layout.font.color")
    assert ink == "#e4e7eb"
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.refresh()
    wait_for_figures(page)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_number_in_the_table_chooses_its_trial(page: webdriver.Chrome) -> None:
    one(page, "tr[data-trial='4'] button.number").send_keys(Keys.ENTER)
    chosen = every(page, ".chosen")
    assert {(each.tag_name, each.get_attribute("data-trial")) for each in chosen} == {
        ("tr", "4"),
        ("details", "4"),
    }


def test_a_plot_of_its_own_is_drawn(browser: webdriver.Chrome, tmp_path: Path) -> None:
    open_file(browser, plot(STUDY, OBJECTIVES, tmp_path / "front.html"))
    assert every(browser, ".figure .scatterlayer .trace")
    assert complaints(browser) == []
