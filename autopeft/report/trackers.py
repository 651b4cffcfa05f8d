"""Trackers of experiments: each shows a trial of a study as one of its runs."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path

Config = Mapping[str, str | float]


@dataclass(frozen=True)
class Entry:
    """A trial as a tracker lists it.

    Attributes:
        study: its name, which is that of the project.
        folder: of the study.
        number: of the trial.
        key: what no trial of another study is called.
        config: what is trained, by name.
    """

    study: str
    folder: str
    number: int
    key: str
    config: Config

    @property
    def name(self) -> str:
        """Of the run."""
        return f"trial {self.number}"

    @property
    def own_name(self) -> str:
        """Of the run where names tell runs apart."""
        return f"{self.name} {self.key.partition('-')[0]}"


class Run(ABC):
    """A trial that a tracker shows; making one starts it, or goes on with it."""

    @abstractmethod
    def __init__(self, entry: Entry) -> None: ...

    @abstractmethod
    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Adds a point of the learning curve."""

    @abstractmethod
    def end(self, state: str, values: Mapping[str, float]) -> None:
        """Ends the run with the state of its trial and the values of the objectives."""


class TensorBoard(Run):
    """A folder of events below that of the study, written by tensorboardX."""

    def __init__(self, entry: Entry) -> None:
        from tensorboardX import SummaryWriter

        folder = Path(entry.folder) / "tensorboard" / entry.own_name.replace(" ", "_")
        self._entry, self._writer = entry, SummaryWriter(str(folder))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, state: str, values: Mapping[str, float]) -> None:
        metrics = {f"hparam/{name}": value for name, value in values.items()}
        self._writer.add_hparams({**self._entry.config, "state": state}, metrics, name="values")
        self._writer.close()


class WandB(Run):
    """A run of Weights & Biases; its environment says where it goes, and whether it goes now."""

    def __init__(self, entry: Entry) -> None:
        import wandb

        Path(entry.folder).mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=entry.study,
            name=entry.name,
            id=entry.key,
            config=dict(entry.config),
            dir=entry.folder,
            reinit="create_new",
            resume="allow",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                x_disable_meta=True,  # arguments of the command may hold the storage's password
            ),
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.log(dict(metrics), step=step)

    def end(self, state: str, values: Mapping[str, float]) -> None:
        self._run.summary.update({**values, "state": state})
        self._run.finish(exit_code=int(state == "failed"))


class MLflow(Run):
    """A run of MLflow; `MLFLOW_TRACKING_URI` says where."""

    def __init__(self, entry: Entry) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        experiment = self._experiment(entry.study)
        told = self._client.search_runs([experiment], f"tags.autopeft = '{entry.key}'")
        if told:
            self._id = told[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        tags = {"autopeft": entry.key}
        run = self._client.create_run(experiment, tags=tags, run_name=entry.name)
        self._id = run.info.run_id
        for name, value in entry.config.items():
            self._client.log_param(self._id, name, value)

    def _experiment(self, name: str) -> str:
        """That of a study; another process may be making it at the same moment."""
        try:
            return str(self._client.create_experiment(name))
        except Exception:
            there = self._client.get_experiment_by_name(name)
            if there is None:
                raise
            return str(there.experiment_id)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._client.log_metric(self._id, name, value, step=step)

    def end(self, state: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, name, value)
        self._client.set_tag(self._id, "state", state)
        states = {"complete": "FINISHED", "failed": "FAILED"}
        self._client.set_terminated(self._id, states.get(state, "KILLED"))


class Trackio(Run):
    """A run of Trackio; its environment says where it goes."""

    def __init__(self, entry: Entry) -> None:
        import trackio

        self._run = Context().run(  # elsewhere `init` ends the run before
            trackio.init,
            entry.study,
            name=entry.own_name,
            config=dict(entry.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.log(dict(metrics), step=step)

    def end(self, state: str, values: Mapping[str, float]) -> None:
        self._run.log({**values, "state": state})
        self._run.finish()


TRACKERS: dict[str, tuple[str, type[Run]]] = {
    "tensorboard": ("tensorboardX", TensorBoard),
    "wandb": ("wandb", WandB),
    "mlflow": ("mlflow", MLflow),
    "trackio": ("trackio", Trackio),
}
"""By the name in a study file: the module that it needs, and its runs."""


def may_log() -> bool:
    """Whether W&B would take a run without asking who logs it."""
    import wandb

    mode = os.environ.get("WANDB_MODE", "online")
    return mode != "online" or bool(wandb.api.api_key)
