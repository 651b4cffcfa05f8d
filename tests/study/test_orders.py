"""What is kept of a trial that was broken off, and who goes on from there."""

from pathlib import Path

from autopeft.core.report import Failure, Report
from tests.contracts import engine as kit
from tests.contracts.curves import Curves


def begun(folder, rungs):
    """The first trial of a study, broken off after some rungs, each with its file."""
    with kit.make_study(folder, n_trials=1) as study:
        trial = study.ask()
        for rung in rungs:
            kept = trial.order.kept_at(rung)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(str(rung))
            study.report(trial, Report(1, rung, {"accuracy": 0.5, "validation_loss": 1.0}))
    return trial


def went_on(folder, make=Curves):
    with kit.make_study(folder, n_trials=1) as study:
        kit.ENGINES["inline"]().run(study, make, kit.make_halving())
        return study.trials()


def test_a_trial_goes_on_from_its_last_rung(tmp_path):
    first = begun(tmp_path, [1.0])
    broken_off, trial = went_on(tmp_path)
    assert (broken_off.state, trial.state) == ("interrupted", "complete")
    assert [(r.member, r.fidelity) for r in trial.reports] == [(0, 1.0), (1, 3.0)]
    assert trial.reports[0] == broken_off.reports[0]
    assert not Path(first.order.folder).exists()
    assert {path.name for path in Path(trial.folder).iterdir()} == {"peft.safetensors"}


def test_a_trial_that_has_reported_all_is_complete(tmp_path):
    begun(tmp_path, [1.0, 3.0])
    broken_off, trial = went_on(tmp_path)
    assert trial.state == "complete"
    assert trial.reports == broken_off.reports
    assert trial.values["accuracy"] == 0.5


def test_a_trial_whose_state_is_gone_begins_anew(tmp_path):
    first = begun(tmp_path, [1.0])
    first.order.kept_at(1.0).unlink()
    _, trial = went_on(tmp_path)
    assert [(r.member, r.fidelity) for r in trial.reports] == [(1, 1.0), (1, 3.0)]


def test_a_folder_that_vanishes_between_is_no_failure(tmp_path):
    begun(tmp_path, [1.0])
    for folder in tmp_path.glob("trials/*/0"):
        folder.rename(tmp_path / "elsewhere")
    _, trial = went_on(tmp_path)
    assert [(r.member, r.fidelity) for r in trial.reports] == [(1, 1.0), (1, 3.0)]


def test_a_state_that_nobody_can_go_on_from_is_given_up(tmp_path):
    """Each attempt is lost where it would go on; the third one begins anew."""
    begins = []

    class Unreadable(Curves):
        def join(self, member, config, order):
            begins.append(order.reached)
            super().join(member, config, order)

        def advance(self):
            if begins[-1]:
                return [
                    Failure(member, "OSError: cannot be read", fault="machine")
                    for member in self.members
                ]
            return super().advance()

    begun(tmp_path, [1.0])
    trials = went_on(tmp_path, Unreadable)
    assert begins == [1.0, 1.0, 0.0]
    assert [t.state for t in trials] == ["interrupted"] * 3 + ["complete"]
