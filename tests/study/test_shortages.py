"""What is not tried any more once a trial did not fit into memory."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autopeft.core.report import Failure, Shortage
from autopeft.engine.inline import Inline
from autopeft.objective.quantity import Known
from tests.contracts import engine as kit
from tests.contracts.curves import Curves, params

MEMORY, MOST = Known(lambda config: 1000 * params(config)), 100_000
CGROUP = Path("/sys/fs/cgroup/memory")
MODULE = f"tests.study.{Path(__file__).stem}"


class Bounded(Curves):
    """Has no memory for configurations above a bound."""

    tried = 0

    def reach(self, member, rung):
        config, _ = self.members[member]
        if MEMORY.value(config) <= MOST:
            return super().reach(member, rung)
        self.leave(member)
        type(self).tried += 1
        shortage = Shortage("cuda", 2 * MOST, 16)
        return Failure(member, "OutOfMemoryError: no", shortage=shortage)


def make_study(folder, n_trials=16, sampler="bayes", device_memory=None):
    more = {"known": {"peak_memory": MEMORY}, "device": "cuda", "device_memory": device_memory}
    return kit.make_study(folder, n_trials, sampler, **more)


def run(study, make=Bounded):
    with study:
        Inline().run(study, make, kit.make_halving())
        return study.trials()


def predicted(trials, *states):
    return [MEMORY.value(t.config) for t in trials if t.state in states]


@pytest.mark.parametrize("sampler", ["bayes", "random", "tpe"])
def test_larger_ones_are_not_tried(tmp_path, sampler):
    trials = run(make_study(tmp_path, sampler=sampler))
    failed = predicted(trials, "failed")
    assert failed == sorted(failed, reverse=True)
    assert len(set(failed)) == len(failed) > 0
    assert len([t for t in trials if t.state != "rejected"]) == 16
    assert max(predicted(trials, "complete", "stopped")) <= MOST
    rejected = [t.error for t in trials if t.state == "rejected"]
    assert sampler == "bayes" or any(error.startswith("peak_memory is") for error in rejected)
    (first, *_) = [t for t in trials if t.state == "failed"]
    amount = f"{MEMORY.value(first.config) / 1e3:.3g} kB predicted"
    assert first.error == f"OutOfMemoryError: no (batches of 16 on cuda: 200 kB in all, {amount})"


def test_another_run_knows_it_unless_it_has_more_memory(tmp_path):
    run(make_study(tmp_path, n_trials=6, sampler="random"))
    learned = make_study(tmp_path, sampler="random")
    assert not learned.terms.limits
    before = Bounded.tried
    again = run(learned)
    limits = predicted(again, "failed")
    assert learned.terms.limits["peak_memory"] == min(limits) - 1
    assert Bounded.tried - before < len(limits)
    larger = make_study(tmp_path, n_trials=20, sampler="random", device_memory=3 * MOST)
    run(larger, Curves)
    assert "peak_memory" not in larger.terms.limits


def test_without_a_prediction_nothing_is_ruled_out(tmp_path):
    with kit.make_study(tmp_path, sampler="random") as study:
        Inline().run(study, Bounded, kit.make_halving())
        states = [t.state for t in study.trials()]
    assert study.terms.limits == {}
    assert states.count("failed") > 1


def test_what_has_been_trained_is_trained_again_though_the_limit_has_fallen(tmp_path):
    run(make_study(tmp_path, n_trials=8, sampler="random"), Curves)
    runs = []
    for _ in range(2):
        study = make_study(tmp_path, n_trials=8, sampler="random")
        study.terms = replace(study.terms, n_finalists=2, n_seeds=2)
        study.terms.limits["peak_memory"] = 1.0
        runs.append(run(study, Curves))
    repeats = [t for t in runs[0] if t.repeat_of is not None]
    assert {t.state for t in repeats} == {"complete"}
    assert max(MEMORY.value(t.config) for t in repeats) > 1.0
    assert runs[1] == runs[0]


@pytest.mark.skipif(not os.access(CGROUP, os.W_OK), reason="needs a memory cgroup")
def test_a_process_that_the_kernel_kills_for_memory(tmp_path):
    """The second time its trial counts as too large, and the others go on."""
    group = CGROUP / f"autopeft-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(2 * 10**9))
        enter = f"echo $$ > {group}/cgroup.procs && exec {sys.executable} -m {MODULE} {tmp_path}"
        codes = [subprocess.run(["sh", "-c", enter], check=False).returncode for _ in range(3)]
    finally:
        group.rmdir()
    assert codes == [-9, -9, 0]
    with kit.make_study(tmp_path) as study:
        states = {t.number: (t.state, t.error) for t in study.trials()}
    state, error = states.pop(2)
    assert (state, error[:39]) == ("failed", "the kernel killed its process, the mach")
    assert {state for state, _ in states.values()} == {"complete", "stopped"}
    assert len(states) == 9


class Hungry(Curves):
    """Takes all memory for the third trial."""

    def advance(self):
        if 2 in self.members:
            held = [bytearray(b"1" * 10**8) for _ in range(60)]
            raise AssertionError(f"there is memory for {len(held)}")
        return super().advance()


if __name__ == "__main__":
    with kit.make_study(Path(sys.argv[1]), sampler="random") as hungry:
        Inline().run(hungry, Hungry, kit.make_halving())
