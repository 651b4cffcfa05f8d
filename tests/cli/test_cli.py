"""Every command on one real, tiny study."""

import json
import signal
import subprocess
import sys
import time
from importlib import metadata

import pytest
import yaml

from autopeft.api.outcome import open_study
from autopeft.core.errors import StudyError
from tests import tiny
from tests.cli.conftest import ENTRY


def test_run_tells_all_on_stdout_as_json(ran):
    assert ran.err == ""
    assert ran.result["states"]["complete"] == 3
    assert ran.result["n_trials"] == 3
    assert ran.result["seconds_left"] == 0
    assert set(ran.result["best"]) == {"accuracy", "trainable_params", "peak_memory"}
    assert [o["name"] for o in ran.result["objectives"]] == list(ran.result["best"])


def test_run_again_trains_nothing(ran, autopeft):
    said = autopeft("run", ran.path)
    assert said.code == 0
    assert said.err == ""
    for command in ("pareto", "report", "export"):
        assert f"autopeft {command} {ran.path}" in said.out


def test_a_quiet_run_shows_the_end_alone(ran, autopeft):
    said = autopeft("run", ran.path, "--quiet", "--set", "name=quiet", "--n-trials", 1)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("Pareto front of quiet")


def test_run_shows_a_line_for_every_ended_trial(ran, autopeft):
    said = autopeft("run", ran.path, "--set", "name=lines", "--n-trials", 1)
    assert said.code == 0
    (line,) = said.err.splitlines()
    assert line.startswith("[1/1] trial 0 complete  accuracy ")
    assert line.endswith("head-only: head only")


@pytest.mark.filterwarnings("always::autopeft.core.errors.AutoPeftWarning")
def test_a_warning_is_one_line(ran, autopeft):
    changes = ("name=few", "fidelity.epochs=[1, 3]", "fidelity.stopper=halving")
    sets = [part for change in changes for part in ("--set", change)]
    said = autopeft("run", ran.path, "--n-trials", 1, *sets)
    told = "validation examples are too few to stop by; trials are ranked by training loss"
    assert [line.split(" ", 2)[2] for line in said.err.splitlines() if "few" in line] == [told]
    assert said.err.startswith("autopeft: ")


def test_status(ran, autopeft):
    shown = autopeft("status", ran.path)
    assert "tiny: 3 of 3 trials (3 complete" in shown.out
    assert "best peak memory ↓" in shown.out
    status = json.loads(autopeft("status", ran.path, "--json").out)
    assert status == {key: ran.result[key] for key in status}
    assert isinstance(status["best"]["peak_memory"]["value"], int)


def test_pareto_is_readable_at_80_columns(ran, autopeft):
    said = autopeft("pareto", ran.path)
    lines = said.out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].split() == ["trainable", "peak"]
    assert lines[2].split() == [
        "trial", "accuracy", "↑", "params", "↓", "memory", "↓", "configuration"
    ]  # fmt: skip
    (floor,) = (line for line in lines if "head-only" in line)
    assert floor.endswith("head-only: head only") or floor.rstrip().endswith("head only")


def test_pareto_json_holds_objectives_and_front(ran, autopeft, tmp_path):
    found = json.loads(autopeft("pareto", ran.path, "--json").out)
    assert list(found) == ["objectives", "front", "against_baselines"]
    assert found["against_baselines"] == []
    for point in found["front"]:
        assert list(point) == ["trial", "values", "config"]
        assert list(point["values"]) == ["accuracy", "trainable_params", "peak_memory"]
    assert found["front"] == ran.result["front"]
    path = tmp_path / "front.png"
    drawn = json.loads(autopeft("pareto", ran.path, "--plot", path, "--json").out)
    assert drawn == {**found, "plot": str(path)}
    assert path.read_bytes().startswith(b"\x89PNG")


def test_plot_as_a_page(ran, autopeft, tmp_path):
    path = tmp_path / "front.html"
    assert f"drawn into {path}" in autopeft("pareto", ran.path, "--plot", path).out
    assert "plotly" in path.read_text(encoding="utf-8")


def test_pareto_and_export_keep_limits(ran, autopeft, tmp_path):
    least = min(point["values"]["trainable_params"] for point in ran.result["front"])
    said = autopeft("pareto", ran.path, "--max-params", least + 1)
    assert said.out.startswith(f"Pareto front of tiny, trainable_params up to {least + 1}: ")
    found = json.loads(autopeft("pareto", ran.path, "--max-params", least + 1, "--json").out)
    assert {point["values"]["trainable_params"] for point in found["front"]} == {least}
    options = ["--pick", "best", "--max-params", least + 1, "--max-memory", "8GB"]
    said = autopeft("export", ran.path, *options, "--output", tmp_path / "out", "--json")
    told = json.loads(said.out)
    assert told["trial"] == found["front"][0]["trial"]
    assert told["reason"].endswith(f"up to {least + 1} and peak_memory up to 8GB")
    assert autopeft("pareto", ran.path, "--max-memory", "1MB").code == 2


def test_a_trial_is_trained_again(ran, autopeft):
    """In a study of its own, which is also compared with the first."""
    sets = ("--set", "name=again", "--set", f"storage=sqlite:///{ran.path.parent}/again.db")
    assert autopeft("run", ran.path, "--n-trials", 2, *sets).code == 0
    said = autopeft("rerun", ran.path, *sets, "--trial", 0, "--seeds", 2)
    assert said.code == 0, said.err
    assert "  2 fresh trainings" in said.out
    told = json.loads(autopeft("rerun", ran.path, *sets, "--trial", 0, "--seeds", 2, "--json").out)
    assert (told["trial"], told["seeds"]) == (0, 2)
    assert set(told["test"]["values"]) >= {"accuracy"}
    path = ran.path.parent / "again.yaml"
    changes = {"name": "again", "storage": f"sqlite:///{ran.path.parent}/again.db"}
    path.write_text(yaml.safe_dump({**yaml.safe_load(ran.path.read_text()), **changes}))
    said = autopeft("compare", ran.path, path)
    assert said.code == 0, said.err
    assert said.out.splitlines()[0].split() == ["tiny", "again"]
    assert all(len(line) <= 80 for line in said.out.splitlines()[:8])
    both = json.loads(autopeft("compare", ran.path, path, "--json").out)
    assert both["differing"] == []
    assert both["sentence"] in " ".join(said.out.split())


def test_a_study_is_written_and_looked_at(autopeft, tmp_path):
    path, data = tmp_path / "films.yaml", tiny.write_data(tmp_path)
    said = autopeft("init", "--model", tiny.MODEL, "--data", data, "--output", path)
    assert said.code == 0, said.err
    assert said.out.startswith("model ")
    assert f"autopeft run {path}" in said.out
    again = autopeft("init", "--model", tiny.MODEL, "--data", data, "--output", path)
    assert (again.code, again.err) == (
        2,
        f"autopeft: {path}: exists; --output names another file\n",
    )
    for wrong, reason in (("films", "must end in .yaml"), ("no/films.yaml", "no folder")):
        said = autopeft("init", "--model", tiny.MODEL, "--data", data, "--output", tmp_path / wrong)
        assert said.code == 2
        assert reason in said.err
    told = json.loads(autopeft("doctor", path, "--set", "engine.type=inline", "--json").out)
    assert told["study"]["examples"].startswith("24 train")
    ill = autopeft("doctor", path, "--set", "space=layer-mxi")
    assert ill.code == 2
    assert "error: " in ill.out
    assert "did you mean 'layer-mix'" in " ".join(ill.out.split())


def test_report(ran, autopeft, tmp_path):
    said = autopeft("report", ran.path, "--output", tmp_path / "report", "--json")
    page = tmp_path / "report" / "report.html"
    assert json.loads(said.out) == {"report": str(page)}
    assert "head-only" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("format", ["native", "peft", "merged"])
def test_export_of_a_trial(format, ran, autopeft, tmp_path):
    trials = open_study(ran.path).trials
    number = next(t.number for t in trials if t.state == "complete" and t.config.placements)
    options = ["--trial", number, "--format", format, "--output", tmp_path / "out"]
    said = autopeft("export", ran.path, *options, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out) == {
        "trial": number,
        "reason": "",
        "format": format,
        "output": str(tmp_path / "out"),
    }
    assert (tmp_path / "out" / "README.md").is_file()
    again = autopeft("export", ran.path, *options)
    assert again.code == 2
    assert "the folder is not empty" in again.err


def test_export_picks_from_the_front(ran, autopeft, tmp_path):
    options = ["--pick", "cheapest", "--within", "100%", "--output"]
    picked = json.loads(autopeft("export", ran.path, *options, tmp_path / "a", "--json").out)
    cheapest = min(ran.result["front"], key=lambda p: p["values"]["trainable_params"])
    assert picked["trial"] == cheapest["trial"]
    assert "has the least trainable params" in picked["reason"]
    assert f"Picked because {picked['reason']}." in (tmp_path / "a" / "README.md").read_text()
    first, last = autopeft("export", ran.path, *options, tmp_path / "b").out.splitlines()
    assert first == picked["reason"]
    assert last.startswith(f"trial {picked['trial']} written to ")


def test_plan_of_a_configuration(autopeft):
    command = ["plan", "lora", "--model", tiny.MODEL, "--device", "cpu"]
    plan = json.loads(autopeft(*command, "--json").out)
    assert plan["kind"] == "configuration"
    assert plan["trainable_params"] == 6 * 2 * 8 * (384 + 384)
    assert plan["stored_params"] == plan["trainable_params"] + plan["head_params"]
    assert plan["by_method"] == {"lora": plan["trainable_params"]}
    assert plan["peak_memory"] == sum(plan["peak_memory_parts"].values())
    shown = autopeft(*command).out
    assert f"peak memory {plan['peak_memory'] / 1e6:.4g} MB".split() in map(
        str.split, shown.splitlines()
    )
    assert "GFLOP" in shown


def test_plan_of_a_space(autopeft):
    command = ["plan", "layer-mix", "--model", tiny.MODEL]
    plan = json.loads(autopeft(*command, "--json").out)
    assert plan["kind"] == "space"
    assert plan["assignments"] > 10**9
    assert plan["samples"] > 0
    low, high = plan["ranges"]["peak_memory"]
    assert 1e8 < low < high < 1e9
    assert " MB to " in autopeft("plan", "lora-ranks", "--model", tiny.MODEL).out


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("spaces", "s4"),
        ("objectives", "accuracy-params"),
        ("studies", "quickstart"),
        ("methods", "lora"),
        ("samplers", "bayes"),
        ("proposers", "supernet"),
    ],
)
def test_lists_say_what_there_is(kind, name, autopeft):
    found = {e["name"]: e["description"] for e in json.loads(autopeft("list", kind, "--json").out)}
    assert name in found
    assert all(found.values())
    assert any(line.split()[0] == name for line in autopeft("list", kind).out.splitlines())


def test_version_and_help(autopeft):
    assert autopeft("--version").out == f"autopeft {metadata.version('autopeft')}\n"
    assert " export " in autopeft("--help").out
    bare = autopeft()
    assert (bare.code, "--help" in bare.out) == (2, True)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("autopeft.cli", {"torch", "transformers", "optuna", "ray"}),
        ("autopeft.cli.show", {"torch", "transformers", "ray", "scipy", "matplotlib"}),
        ("autopeft.api.plan", {"peft", "bitsandbytes", "ray"}),
    ],
)
def test_starting_is_quick(module, heavy):
    test = f"import sys, {module}; sys.exit(str({heavy} & set(sys.modules) or '') or 0)"
    done = subprocess.run([sys.executable, "-c", test], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_is_no_failure(tmp_path):
    path = tiny.write_study(tmp_path)
    changes = ["fidelity.epochs=[1, 60]", "search.baselines=[]", "objectives=accuracy-params"]
    options = [option for change in changes for option in ("--set", change)]
    process = subprocess.Popen(
        [*ENTRY, "run", str(path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not _runs(path) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)  # the training has begun
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    stops, ends = err.splitlines()
    assert stops.endswith("stops at the next rung; a second interrupt stops at once")
    assert ends == "autopeft: interrupted; `autopeft run` continues"
    study = {**tiny.study(tmp_path), "name": "tiny", "objectives": "accuracy-params"}
    (trial,) = open_study(study).trials
    assert trial.state == "interrupted"
    assert trial.reports
    assert list(tmp_path.rglob("checkpoint.safetensors"))


def _runs(path):
    try:
        return any(t.state == "running" and t.known for t in open_study(path).trials)
    except StudyError:
        return False
