"""The reference engine: one trial after another in this process."""

from __future__ import annotations

from contextlib import closing

from autopeft.engine.engine import Engine, Evaluator, MakeEvaluator, Watch, described, judge
from autopeft.search.stopping import Stopper
from autopeft.study.study import Study, Ticket


class Inline(Engine):
    """Runs trials in this process."""

    def run(
        self, study: Study, make: MakeEvaluator, stopper: Stopper, watch: Watch = lambda _: None
    ) -> None:
        """Runs the study to its end."""
        if not study.n_left:
            return
        evaluator = make()
        while (ticket := study.ask()) is not None:
            watch(study)
            _run_one(study, evaluator, stopper, ticket)
            watch(study)


def _run_one(study: Study, evaluator: Evaluator, stopper: Stopper, ticket: Ticket) -> None:
    try:
        with closing(evaluator([ticket.config], ticket.budget)) as reports:
            decisions = (judge(study, stopper, ticket, report) for report in reports)
            stopped = next((decision for decision in decisions if not decision.goes_on), None)
    except Exception as error:
        study.fail(ticket, described(error))
        return
    if stopped is None:
        study.finish(ticket)
    else:
        study.stop(ticket, stopped.reason)
