"""Bad input ends with code 2 and one line that names file, key, what came and what is known."""

import json
import shlex
import shutil
import sqlite3

import pytest

from autopeft.api.outcome import open_study
from autopeft.cli.show import show_next
from autopeft.study.record import open_storage
from autopeft.study.spec import load_spec
from tests import tiny

LORA = "{method: lora}"


def space(text):
    return f"space={text}"


SETTINGS = [
    ("serch.seed=1", "tiny.yaml: unknown key 'serch'", "(did you mean 'search'?)"),
    ("search.smpler=tpe", "search: unknown key 'smpler'", "(did you mean 'sampler'?)"),
    ("search.sampler=nsga", "search.sampler: unknown sampler 'nsga'", "(did you mean 'nsga3'?)"),
    ("search.n_trials=many", "search.n_trials: should be a valid integer, got 'many'", ""),
    ("search=3", "search: expected a mapping, got 3", ""),
    ("search.baselines=[loora]", "search.baselines: unknown space 'loora'", "'lora'?"),
    ("search.baselines=[s4]", "search.baselines: ", "s4.yaml: is a space with choices"),
    ("search.baselines=[7]", "search.baselines: expected a name, a path or a mapping", "got 7"),
    ("search.baselines=[{place: []}, {place: []}]", "two are called 'inline'", ""),
    ("space=layer-mx", "space: unknown space 'layer-mx'", "(did you mean 'layer-mix'?)"),
    ("space=7", "space: expected a name, a path or a mapping, got 7", ""),
    (space("{place: [{method: lorra}]}"), "space: place[0].method: unknown", "'lora'?"),
    (space("{place: [{method: [lora]}]}"), "space: place[0].method: unknown method", "lora"),
    (space("{place: [{method: lora, r: eight}]}"), "place[0].r: must be", "got 'eight'"),
    (space("{place: [{method: lora, r: {int: [8, 4]}}]}"), "place[0].r.int: the range", "empty"),
    (space("{place: [{method: lora, r: {float: [1, 3]}}]}"), "place[0].r.float[0]: must be", ""),
    (space("{layers: {groups: 9}, place: []}"), "layers.groups: 9 groups do not fit 6", ""),
    (space(f"{{place: [{LORA[:-1]}, where: g9}}]}}"), "place[0].where: unknown group 'g9'", ""),
    (space(f"{{place: [{LORA}], limits: {{trainable_params: 10}}}}"), "no configuration", "73,728"),
    (
        space(f"{{place: [{LORA}], limits: {{peak_memory: 1MB}}}}"),
        "limits.peak_memory: no conf",
        "",
    ),
    (space(f"{{place: [{LORA}], limits: {{trainable_param: 1%}}}}"), "unknown limit", "params'?"),
    ("task.metric=acuracy", "tiny.yaml: task.metric: unknown metric", "'accuracy'?"),
    ("task.type=text-clasification", "task.type: unknown type", "'text-classification'?"),
    ("objectives=acuracy", "objectives: unknown objectives 'acuracy'", "accuracy-memory"),
    ("objectives=7", "objectives: expected a name, a path or a mapping, got 7", ""),
    ("objectives=[{name: acc, goal: maximize, reference: 0}]", "unknown metric 'acc'", "accuracy"),
    ("engine.type=dask", "engine.type: unknown type 'dask'; known: inline, ray", ""),
    ("engine.concurrency=x", "engine.concurrency: should be a valid integer or 'auto'", "'x'"),
    ("engine.pack=0", "engine.pack: must be auto or a positive number up to", "got 0"),
    ("engine.pack=all", "engine.pack: should be a valid integer or 'auto', got 'all'", ""),
    ("engine.resources.cpu=0", "engine.resources.cpu: must be auto or a number of cores", "got 0"),
    ("engine.resources.cpu=.inf", "engine.resources.cpu: should be a finite number or", "got inf"),
    ("engine.resources.gpu=1.5", "engine.resources.gpu: must be auto, a part of 1", "got 1.5"),
    ("engine.resources.gpu=-1", "engine.resources.gpu: must be auto, a part of 1", "got -1"),
    ("engine.resources.gpu=all", "engine.resources.gpu: should be a valid number or 'auto'", ""),
    ("engine.device_memory=80", "engine.device_memory: is in bytes", "such as 80GB, got 80"),
    ("engine.device_memory=80XB", "engine.device_memory: expected a positive amount", "'80XB'"),
    ("fidelity.epochs=[3, 1]", "fidelity.epochs: expected a number or [first, last]", ""),
    ("fidelity.epochs=abc", "fidelity.epochs: should be a valid number or a valid list", "'abc'"),
    ("fidelity.stopper=halve", "fidelity.stopper: unknown stopper", "'halving'?"),
    ("fidelity.signal=train_los", "fidelity.signal: unknown signal", "'train_loss'?"),
    ("device=tpu", "device: unknown device 'tpu'; known: auto, cpu, cuda", ""),
    ("model=/missing", "model: no such file or folder: '/missing'", ""),
    ("model=package:missing/model", "model: the package 'missing' is not installed", ""),
    ("task.text_column=txt", "task.text_column: unknown column 'txt'", "(did you mean 'text'?)"),
    ("task.data=missing.csv", "task.data: no such file or folder: 'missing.csv'", ""),
    ("storage=nonsense", "storage: cannot open 'nonsense'", ""),
    ("storage=sqlite:////dev/null/x.db", "storage: cannot open", ""),
    ("name=../x", "name: must be a name without / and", "got '../x'"),
    ("name=..", "name: must be a name without / and", "not of dots only"),
    ("name=''", "name: must be a name", "got ''"),
    ('name="a\\tb"', "name: must be at most 200 bytes of printable text", ""),
    (f"name={300 * 'a'}", "name: must be at most 200 bytes of printable text", ""),
    ("search.n_trials=99999999999", "search.n_trials: should be less than or equal", ""),
    ("search.n_seeds=1000000000", "search.n_seeds: should be less than or equal to 1000", ""),
    ("search.seed=-1", "search.seed: should be greater than or equal to 0", ""),
    ("engine.resources.gpu=.inf", "engine.resources.gpu: should be a finite number", ""),
    ("engine.pack=1000000000", "engine.pack: must be auto or a positive number up to", ""),
    ("fidelity.epochs=1.0e+30", "fidelity.epochs: expected epochs from 0.0001 to 100000", ""),
    ("fidelity.reduction=1.0000000001", "fidelity.reduction: should be greater than or equal", ""),
    ("storage=[postgresql://u:geheim@h/db]", "storage: should be a valid string", "u:***@h"),
    ("name.x=3", "name.x: 'tiny' has no keys to set", ""),
    ("nonsense", "--set: expected key=value, got 'nonsense'", ""),
    ("search=[}", "--set search: line 1: expected the node content, but found '}'", ""),
]


def refused(said, *parts):
    assert said.code == 2, said.err
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("autopeft: ")
    for part in parts:
        assert part in line


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A study that is never run."""
    return tiny.write_study(tmp_path_factory.mktemp("fresh"))


@pytest.mark.parametrize(("change", "says", "hint"), SETTINGS)
def test_a_wrong_value_in_a_study(change, says, hint, fresh, autopeft):
    parts = (says, hint) if "--set" in says else (f"{fresh}: ", says, hint)
    refused(autopeft("run", fresh, "--set", change), *parts)


def test_a_wrong_key_in_the_file_of_a_space_names_that_file(fresh, autopeft, tmp_path):
    path = tmp_path / "nine.yaml"
    path.write_text("layers: {groups: 9}\nplace:\n  - {method: lora}\n")
    says = f"{path}: layers.groups: 9 groups do not fit 6 layers"
    refused(autopeft("run", fresh, "--set", f"space={path}"), f"{fresh}: space: {says}")
    refused(autopeft("run", fresh, "--set", f"search.baselines=[{path}]"), "baselines: " + says)
    refused(autopeft("plan", path, "--model", tiny.MODEL), f"autopeft: {says}")


DATA = [
    ((), ("text", "label"), "task.data: ", "has no training examples"),
    ([("a", "x"), ("b", "x")], ("text", "label"), "task.label_column: the only label is 'x'", ""),
    ([("a", "x"), ("b", "y")], ("foo", "bar"), "task.text_column: ", "foo, bar"),
]


@pytest.mark.parametrize(("rows", "columns", "says", "hint"), DATA)
def test_data_that_cannot_be_used(rows, columns, says, hint, fresh, autopeft, tmp_path):
    path = tiny.write_table(tmp_path / "data.csv", rows, columns)
    refused(autopeft("run", fresh, "--set", f"task.data={path}"), f"{fresh}: {says}", hint)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the file is empty"),
        ("[1, 2]", "expected a mapping, got list"),
        ("a:\n\t- b", "line 2: found character"),
        ("model: x", "task: is missing"),
    ],
)
def test_a_file_that_is_no_study(content, says, autopeft, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    refused(autopeft("run", path), f"{path}: {says}")


def test_a_folder_without_weights_serves_a_plan_and_no_run(fresh, autopeft, tmp_path):
    plan = json.loads(autopeft("plan", "lora", "--model", tiny.MODEL, "--json").out)
    folder = tmp_path / "model"
    folder.mkdir()
    refused(autopeft("plan", "lora", "--model", folder), "holds no config.json")
    config = tiny.folder_of(tiny.MODEL) / "config.json"
    (folder / "config.json").write_text("{")
    refused(autopeft("plan", "lora", "--model", folder), f"model: {str(folder)!r} cannot be used")
    (folder / "config.json").write_bytes(config.read_bytes())
    bare = json.loads(autopeft("plan", "lora", "--model", folder, "--json").out)
    assert bare["peak_memory"] == plan["peak_memory"]
    refused(autopeft("run", fresh, "--set", f"model={folder}"), f"{fresh}: model: ", "no weights")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (
            ["run", "quickstar"],
            "unknown study 'quickstar'; known: answer-questions, chat-quickstart",
        ),
        (["run", "no.yaml"], "no.yaml: no such file"),
        (["plan", "no.yaml", "--model", tiny.MODEL], "no.yaml: no such file"),
        (["plan", "lora", "--model", "/missing"], "model: no such file or folder: '/missing'"),
        (["plan", "lora", "--model", tiny.MODEL, "--device", "tpu"], "device: unknown device"),
        (["plan", "lora", "--model", tiny.MODEL, "--batch-size", 0], "batch_size: must be"),
        (["plan", "lora", "--model", tiny.MODEL, "--sequence-length", 999], "takes 512 tokens"),
        (["plan", "lora", "--model", tiny.MODEL, "--task", "x"], "task.type: unknown task type"),
        (["plan", "lora"], "model: is missing; without a model there is a plan of a study"),
        (["plan", "quickstart", "--batch-size", 4], "model: is missing; without a model"),
        (["plan", "lora", "--model", tiny.MODEL, "--set", "a=b"], "changes: are of a study"),
        (
            ["list", "space"],
            "unknown kind 'space'; known: methods, objectives, proposers, samplers, spaces",
        ),
        (["pareo"], "No such command 'pareo'"),
        (["run", "quickstart", "--n-trials", "x"], "Invalid value for '--n-trials'"),
    ],
)
def test_a_wrong_command(command, says, autopeft):
    refused(autopeft(*command), says)


@pytest.mark.parametrize("command", ["status", "pareto", "report", "export"])
def test_looking_before_a_run(command, fresh, autopeft, tmp_path):
    output = ["--output", tmp_path / "out"] if command in {"report", "export"} else []
    refused(autopeft(command, fresh, *output), f"{fresh}: storage: 'tiny' has no record yet")


def test_wrong_options_of_a_finished_study(ran, autopeft, tmp_path):
    out = ["--output", tmp_path / "out"]
    refused(autopeft("pareto", ran.path, "--plot", "x.txt"), "unknown suffix '.txt'")
    refused(autopeft("report", ran.path, "--output", ran.path), "exists and is no folder")
    for options, says in [
        (["--trial", 99], "there is no trial 99"),
        (["--pick", "kne"], "unknown rule 'kne'; known: best, cheapest, knee (did you mean"),
        (["--format", "gguf"], "format 'gguf'; known: adapters, merged, native, onnx, peft"),
        (["--trial", 0, "--pick", "best"], "--trial: excludes --pick"),
        (["--pick", "best", "--within", "1%"], "--within: goes with --pick cheapest"),
        (["--pick", "cheapest", "--within", "x"], "within: must be a percentage"),
    ]:
        refused(autopeft("export", ran.path, *out, *options), says)


def test_a_storage_of_another_space(ran, autopeft):
    said = autopeft("run", ran.path, "--set", "space=lora-ranks")
    refused(said, f"{ran.path}: space: ", "'ranks' there, 'lora-ranks' here")
    said = autopeft("run", ran.path, "--set", "space.place=[{method: bitfit}]")
    refused(said, "another space: place is ", " there, ")


def test_a_study_whose_trials_fail(fresh, autopeft, tmp_path):
    diverging = "space={place: [{method: lora}], train: {learning_rate: 1e30}}"
    changes = ["search.baselines=[]", "search.n_trials=1", diverging, "name=diverging"]
    arguments = [argument for change in changes for argument in ("--set", change)]
    said = autopeft("run", fresh, *arguments)
    assert (said.code, said.out) == (1, "")
    assert "Traceback" not in said.err
    assert said.err.splitlines()[-1].startswith("autopeft: no trial is complete: ")
    study = {**tiny.study(fresh.parent), "name": "diverging"}
    (failed,) = (t.number for t in open_study(study).trials if t.state == "failed")
    path = tmp_path / "diverging.yaml"
    path.write_text(json.dumps(study))
    refused(
        autopeft("export", path, "--trial", failed, "--output", tmp_path / "out"),
        f"trial {failed} is failed",
    )
    refused(autopeft("export", path, "--output", tmp_path / "out"), "no trial is complete")


def test_every_verb_finds_a_study_under_settings_of_its_run(ran, autopeft):
    """As the commands say that a run prints at its end."""
    path = ran.path.with_name("renamed.yaml")
    document = ran.path.read_text(encoding="utf-8")
    path.write_text(f"{document}\nname: 'a name'\n", encoding="utf-8")
    refused(autopeft("status", path), "unknown study 'a name'")
    assert autopeft("status", path, "--set", "name=tiny").code == 0


def test_a_record_that_cannot_be_read_is_a_sentence(ran, autopeft, tmp_path):
    database = tmp_path / "study.db"
    storage = ["--storage", f"sqlite:///{database}"]
    shutil.copy(ran.path.with_name("study.db"), database)
    assert autopeft("status", ran.path, *storage).code == 0
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE trial_user_attributes SET value_json = '{' WHERE key = 'known'")
    refused(autopeft("status", ran.path, *storage), "storage: the record is damaged: JSONDecode")
    content = database.read_bytes()
    database.write_bytes(content[:4096] + bytes(len(content) - 4096))
    refused(autopeft("status", ran.path, *storage), "storage: ")


def test_commands_to_try_next_are_quoted_and_show_no_password(capsys):
    study = ["a b.yaml", "--set", "name=x y", "--storage", "postgresql://u:geheim@h/db"]
    show_next(study, "x y")
    said = capsys.readouterr().out
    assert "geheim" not in said
    plot = shlex.split(said.splitlines()[1])
    assert plot[:5] == ["autopeft", "pareto", "a b.yaml", "--set", "name=x y"]
    assert plot[-2:] == ["--plot", "x y.png"]


def test_a_folder_may_be_called_like_a_piece_of_a_url(tmp_path):
    folder = str(tmp_path / "a?b#c%20d")
    document = {**tiny.study(tmp_path), "name": "a?b", "storage": "", "output": folder}
    spec = load_spec(document)
    open_storage(spec.storage_url)
    assert (tmp_path / "a?b#c%20d" / "study.db").is_file()
