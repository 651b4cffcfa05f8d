"""What a configuration costs, or what a space holds, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from autopeft.api.configurations import configuration, on_backbone
from autopeft.api.run import Prepared, prepare
from autopeft.core.catalog import Reference, names
from autopeft.core.config import PeftConfig, freeze, thaw
from autopeft.core.errors import StudyError, inside
from autopeft.core.extent import cut_told
from autopeft.core.quantity import parse_quantity
from autopeft.core.settings import BackboneSettings, TrainSettings
from autopeft.memory.fit import fit as fitted
from autopeft.memory.flops import count_flops
from autopeft.memory.quantities import Setting, head_params, known_quantities
from autopeft.method.count import count
from autopeft.model.backbone import Backbone, meta_backbone
from autopeft.model.positions import positions
from autopeft.model.proof import check_sites
from autopeft.search.candidates import least
from autopeft.space.bound import BoundSpace
from autopeft.space.space import SearchSpace

N_SAMPLES = 12
"""Random configurations that the ranges of a space are over, beside its ends."""


def plan(  # noqa: PLR0913
    file: Reference,
    model: str | None = None,
    *,
    batch_size: int | None = None,
    sequence_length: int | None = None,
    new_tokens: int | None = None,
    device: str | None = None,
    task: str | None = None,
    fit: str | int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a configuration costs, what a space holds, or what a study is about to do.

    Counts are in elements, memory is in bytes. The plan of a study, which says by itself all that
    the options say, has the examples of its data and what is cut of them.

    The plan of a configuration that is to fit has the key `fit`: the cheapest settings with which
    its predicted peak keeps the limit (`fits`), or those that need least; `changes` holds, by
    dotted key, what they change of the file, `train` and `backbone` the whole sections.

    Args:
        file: a configuration, a space or a study: name of the catalog, path or mapping.
        model: hub id, `package:NAME/FOLDER` or folder; `config.json` is enough. None of a study.
        batch_size: sequences of one training step; None means what the configuration says.
        sequence_length: tokens of a sequence; None means 128.
        new_tokens: of the longest answer that evaluations ask for; None means that they ask for
            none.
        device: `cuda` or `cpu`, for which memory is predicted; None means `cuda`.
        task: such as `text-classification`; None means what the checkpoint was made for.
        fit: memory of the device, such as `16GB`, into which a configuration is to fit.
        changes: values by dotted key that replace those of the file of a study.

    Raises:
        AutoPeftError: bad input.
    """
    if model is None:
        options = (batch_size, sequence_length, new_tokens, device, task, fit)
        if file in names("search_spaces") or any(option is not None for option in options):
            reason = "is missing; without a model there is a plan of a study alone, by its file"
            raise StudyError(reason, "model")
        return _plan_study(prepare(file, changes))
    if changes:
        raise StudyError("are of a study, which names its model", "changes")
    sizes = {
        "batch_size": batch_size,
        "sequence_length": 128 if sequence_length is None else sequence_length,
        "new_tokens": new_tokens,
    }
    space = SearchSpace.load(file)
    setting = _setting(meta_backbone(model, BackboneSettings(), head=task), device, sizes)
    backbone = setting.backbone
    about = {"name": space.name, "model": model, "device": setting.device}
    limit = None if fit is None else parse_quantity(fit, "fit")
    if space.is_configuration:
        config = configuration(file, backbone)
        costs = _costs(config, setting)
        fitted = {} if limit is None else {"fit": _fit(config, setting, limit)}
        return {"kind": "configuration", **about, **costs, **fitted}
    if limit is not None:
        raise StudyError("goes with a configuration; a space has `limits`", "fit")
    bound = on_backbone(file, backbone)
    return {"kind": "space", **about, **_extent(bound, setting)}


def _setting(backbone: Backbone, device: str | None, sizes: Mapping[str, int | None]) -> Setting:
    """The training that a plan is of.

    Raises:
        StudyError: a size is none or more than the model takes.
    """
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise StudyError(f"must be a positive integer, got {size}", name)
    check_sites(backbone.model)
    length, new = sizes["sequence_length"] or 0, sizes["new_tokens"] or 0
    if new and backbone.modules_to_save:
        raise StudyError("are of a model that writes text", "new_tokens")
    most = positions(backbone.model)
    for name, size in (("sequence_length", length), ("new_tokens", new)):
        if size > most:
            raise StudyError(f"the model takes {most} tokens, got {size}", name)
    return Setting(backbone, length, device or "cuda", sizes["batch_size"], new)


def _plan_study(prepared: Prepared) -> dict[str, Any]:
    """The examples of a study, how many of them are cut, its trials, its space."""
    with inside(prepared.spec.place):
        extent = prepared.examples(prepared.task.load()).extent
    return {
        "kind": "study",
        "name": prepared.spec.name,
        "model": prepared.spec.model,
        "device": prepared.setting.device,
        "n_trials": prepared.spec.search.n_trials,
        "epochs": list(prepared.rungs),
        "baselines": list(prepared.baselines),
        "deploy": prepared.spec.deploy,
        "lost": list(prepared.lost),
        "limits": prepared.limits,
        "splits": extent,
        "cut": cut_told(extent.get("train", {})) or "nothing",
        **_extent(prepared.space, prepared.setting),
    }


def _costs(config: PeftConfig, setting: Setting) -> dict[str, Any]:
    backbone = setting.backbone
    counts = count(config, backbone.shape)
    batch_size = setting.batch_size or TrainSettings(**dict(config.train)).batch_size
    memory = setting.memory(config)
    flops = count_flops(backbone, config, batch_size, setting.sequence_length)
    head = head_params(backbone)
    return {
        "trainable_params": counts.trainable,
        "head_params": head,
        "stored_params": counts.stored + head,
        "changed_params": counts.changed,
        "backbone_params": backbone.shape.parameters,
        "by_method": dict(counts.by_method),
        "batch_size": batch_size,
        "sequence_length": setting.sequence_length,
        "dtype": _dtype(config, backbone),
        "peak_memory": memory.peak,
        "peak_memory_parts": dict(memory.parts),
        "flops": asdict(flops),
        "config": config.to_dict(),
    }


def _fit(config: PeftConfig, setting: Setting, limit: float) -> dict[str, Any]:
    """How the training of a configuration fits into `limit` bytes."""
    size = {} if setting.batch_size is None else {"batch_size": setting.batch_size}
    sized = replace(config, train=freeze({**thaw(config.train), **size}))
    fit = fitted(replace(setting, batch_size=None), sized, limit)
    before, after = config.to_dict(), fit.config.to_dict()
    sections = {name: after.get(name, {}) for name in ("train", "backbone")}
    changes = {
        f"{name}.{key}": value
        for name, section in sections.items()
        for key, value in section.items()
        if before.get(name, {}).get(key) != value
    }
    return {
        "limit": int(limit),
        "fits": fit.fits,
        "peak_memory": fit.memory.peak,
        "changes": changes,
        **sections,
    }


def _dtype(config: PeftConfig, backbone: Backbone) -> str:
    dtype = BackboneSettings(**dict(config.backbone)).dtype
    return str(backbone.dtype).removeprefix("torch.") if dtype == "auto" else dtype


def _extent(space: BoundSpace, setting: Setting) -> dict[str, Any]:
    """Size of the space and the range of each known objective over non-empty configurations.

    The range is that of the cheapest and the dearest configuration, by trainable parameters, that
    walks find, and of `samples` random ones.
    """
    known = known_quantities(setting)
    params, rng = known["trainable_params"].value, np.random.default_rng(0)
    ends = [least(space, rng, params), least(space, rng, lambda config: -params(config))]
    samples = [space.draw(rng).config for _ in range(N_SAMPLES)]
    ranges = {}
    for name, quantity in known.items():
        values = [quantity.value(c) for c in (*ends, *samples) if c.placements or c in ends]
        ranges[name] = [min(values), max(values)]
    return {
        "n_layers": space.n_layers,
        "dimensions": len(space.dimensions),
        "continuous": space.continuous,
        "assignments": space.assignments,
        "ranges": ranges,
        "samples": N_SAMPLES,
        "sequence_length": setting.sequence_length,
    }
