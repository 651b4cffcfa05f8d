"""Shows by running a model that its linears do what they are taken for."""

from __future__ import annotations

import copy
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from autopeft.core.errors import AttachError
from autopeft.core.shape import ATTENTIONS
from autopeft.method.sites import LINEARS, Layer, LinearSite, features, layers_of
from autopeft.model.cache import cached_folder, key_of
from autopeft.model.hub import quiet

_log = logging.getLogger("autopeft")

_FORMAT = 2
"""Of what is proved; a number that changes with it."""

_FILE = "wrong.json"
_TOKENS = 5
_SEEDS = 4
_SPREAD = 0.5
"""Standard deviation of what linears return; attentions of T5, which do not scale, stay soft."""

_NOTHING = 1e-5
"""By how much a gradient is smaller than another if it is none."""


def check_sites(model: PreTrainedModel) -> None:
    """Checks that the linears of every kind of layer do what their roles say.

    A model of the same architecture and sizes runs on a few tokens, without weights: its linears
    return random numbers. In front of the last linear of an attention a query acts on its own
    position alone, keys and values act on others too, and values, not keys, act linearly. In front
    of the last linear of a feed-forward network the others act on their own position alone, and
    `up`, not the gate beside it, acts linearly. What is found is kept in the cache for the
    configuration and the versions. A model that does not run so is taken as it is.

    Args:
        model: on the meta device.

    Raises:
        AttachError: some do not; says which, and in how many layers there are which roles.
    """
    wrong = _found(model)
    if wrong:
        layers = layers_of(model)
        counts = Counter(role for layer in layers for role in layer.linears)
        roles = ", ".join(f"{role} in {n}" for role, n in counts.items())
        reasons = "; ".join(f"{role} {why}" for role, why in wrong.items())
        has = f"of its {len(layers)} layers there is {roles}"
        raise AttachError(f"{type(model).__name__} is not understood: {reasons}; {has}", "model")


def _found(model: PreTrainedModel) -> dict[str, str]:
    """What `wrong_roles` says, from the cache if it has been asked before."""
    name, found = type(model).__name__, dict[str, str]()

    def write(folder: Path) -> None:
        found.update(wrong_roles(model))
        (folder / _FILE).write_text(json.dumps(found), encoding="utf-8")

    sites = [(layer.stack, role, site.path) for layer, role, site in _sites(layers_of(model))]
    key = key_of(_FORMAT, name, model.config.to_json_string(use_diff=False), sites)
    try:
        folder = cached_folder("sites", key, 1000, write)
        if folder is None:
            return found or wrong_roles(model)
        return dict(json.loads((folder / _FILE).read_text(encoding="utf-8")))
    except Exception as error:  # a model can raise anything
        _log.warning("what the linears of %s do is not proved: %s", name, error)
        return {}


def wrong_roles(model: PreTrainedModel) -> dict[str, str]:
    """Why roles are not what they are called, by role; empty if all are.

    Of a few random numbers an activation may be zero: what is wrong is so with several.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        imitation = _imitation(model)
        wrong: dict[str, str] = {}
        for seed in range(_SEEDS):
            wrong = _wrong_once(imitation, seed)
            if not wrong:
                break
        return wrong


def _wrong_once(model: PreTrainedModel, seed: int) -> dict[str, str]:
    """What `wrong_roles` finds with the random numbers of one seed."""
    layers = _one_of_each(layers_of(model))
    run = partial(_pass, model, layers, seed)
    plain = run({})
    linear = run(plain.negated(layers, ("v", "up")))
    curved = run(plain.negated(layers, ("k", "gate")))
    wrong: dict[str, str] = {}
    for layer in layers:
        for role, why in _faults(layer, plain, linear, curved):
            wrong.setdefault(role, why)
    return wrong


@dataclass
class _Pass:
    """A forward pass.

    Attributes:
        outputs: of the linears, as leaves of the graph, (…, positions, outputs).
        inputs: what enters them.
        blind: those that ran where no gradients are kept, and so show nothing.
        again: those that ran more than once, of which the first time is kept.
    """

    outputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    inputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    blind: set[nn.Module] = field(default_factory=set)
    again: set[nn.Module] = field(default_factory=set)

    def negated(self, layers: Sequence[Layer], roles: Sequence[str]) -> dict[nn.Module, Tensor]:
        """The outputs, those of some roles with the other sign."""
        given = {module: output.detach().clone() for module, output in self.outputs.items()}
        for layer in layers:
            for role, site in layer.linears.items():
                if role.rpartition(".")[2] in roles and site.module in given:
                    columns = slice(None) if site.columns is None else site.columns
                    given[site.module][..., columns] *= -1
        return given

    def effect(self, layer: Layer, role: str, last: str) -> Tensor:
        """How the outputs of a role act on the fifth position of what enters another's linear.

        Returns:
            The gradient of a random projection of it, (positions, outputs of the role).
        """
        entering = self.inputs[layer.linears[last].module].flatten(0, -2)
        entering = entering[min(_TOKENS, len(entering)) - 1]
        site, weights = layer.linears[role], torch.linspace(-1, 2, entering.shape[-1])
        output = self.outputs[site.module]
        found = torch.zeros_like(output)
        if entering.requires_grad:
            projected = (entering * weights).sum()
            (found,) = torch.autograd.grad(
                projected, [output], retain_graph=True, materialize_grads=True
            )
        columns = slice(None) if site.columns is None else site.columns
        return found.flatten(0, -2)[:, columns]


class _EnoughError(Exception):
    """All layers that are looked at have run."""


def _faults(layer: Layer, plain: _Pass, linear: _Pass, curved: _Pass) -> Iterator[tuple[str, str]]:
    """The roles of a layer that are not what they are called, and why."""
    if not any(site.module in plain.outputs for site in layer.linears.values()):
        return  # a tower that reads no texts
    for role, site in layer.linears.items():
        attention, _, part = role.rpartition(".")
        last = f"{attention}.o" if attention in ATTENTIONS else "down"
        ends = {site.module, layer.linears[last].module} if last in layer.linears else set()
        if site.module not in plain.outputs:
            yield role, "does not run"
        elif role != last and ends and not ends & plain.blind:
            effect = plain.effect(layer, role, last)
            sizes = effect.abs().amax(1)
            acts = sizes > _NOTHING * sizes.max()
            alone = bool(acts[min(_TOKENS, len(acts)) - 1]) and int(acts.sum()) == 1
            if not sizes.max():
                if not ends & plain.again:
                    yield role, f"does not act on {last}"
            elif alone != (part not in ("k", "v")):
                yield role, f"acts on {'its own position alone' if alone else 'other positions'}"
            elif part == "v" or (part == "up" and "gate" in layer.linears):
                if not _same(effect, linear.effect(layer, role, last)):
                    yield role, f"does not act linearly on {last}"
            elif part in ("k", "gate") and _same(effect, curved.effect(layer, role, last)):
                yield role, f"acts linearly on {last}"


def _same(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-3 * one.abs().max())


def _sites(layers: Sequence[Layer]) -> Iterator[tuple[Layer, str, LinearSite]]:
    """All linears with a role."""
    for layer in layers:
        for role, site in layer.linears.items():
            yield layer, role, site


def _one_of_each(layers: Sequence[Layer]) -> list[Layer]:
    """The first layer of every kind: of those with the same roles in the same places."""
    kinds: dict[Any, Layer] = {}
    for layer in layers:
        places = [(r, s.path.removeprefix(layer.path), s.shape) for r, s in layer.linears.items()]
        kinds.setdefault((layer.stack, tuple(places)), layer)
    return list(kinds.values())


def _imitation(model: PreTrainedModel) -> PreTrainedModel:
    """The model with weights that are one number each and take up no memory."""
    imitation = copy.deepcopy(model).eval()
    for module in imitation.modules():
        module._is_hf_initialized = False
        for name, weight in list(module.named_parameters(recurse=False)):
            values = nn.Parameter(torch.ones(()).expand(weight.shape), requires_grad=False)
            vars(values)["_is_hf_initialized"] = True
            setattr(module, name, values)
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = torch.zeros_like(buffer, device="cpu")
    imitation.initialize_weights()  # and with them what is in the buffers
    if imitation._can_set_experts_implementation():
        imitation.set_experts_implementation("eager")
    return imitation


def _inputs(model: PreTrainedModel, config: PreTrainedConfig) -> Mapping[str, Tensor]:
    """One short text, or one image."""
    if model.main_input_name == "pixel_values":
        size = getattr(config, "image_size", None) or config.vision_config.image_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return {"pixel_values": torch.randn(1, getattr(config, "num_channels", 3), height, width)}
    ids = torch.randint(config.get_text_config().vocab_size, (1, _TOKENS))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "decoder_input_ids" in signature(model.forward).parameters:
        inputs["decoder_input_ids"] = ids
    return inputs


def _pass(
    model: PreTrainedModel, layers: Sequence[Layer], seed: int, given: Mapping[nn.Module, Tensor]
) -> _Pass:
    """Runs a model without its head, and no further than to the last of its sites.

    No linear is computed: each returns random numbers, the same in every pass.

    Args:
        model: with weights that need not mean anything.
        layers: whose sites are looked at.
        seed: of the random numbers.
        given: what some of them return instead.
    """
    torch.manual_seed(seed)
    seen = _Pass()
    sites = {site.module for layer in layers for site in layer.linears.values()}

    def run(module: nn.Module, entering: Tensor) -> Tensor:
        output = _SPREAD * torch.randn(*entering.shape[:-1], features(module)[1])
        if module in seen.outputs:
            seen.again.add(module)
        if module not in sites or module in seen.outputs:
            return output
        if not torch.is_grad_enabled():
            seen.blind.add(module)
        leaf = given.get(module, output).detach().requires_grad_()
        seen.inputs[module], seen.outputs[module] = entering, leaf
        if len(seen.outputs) == len(sites):
            raise _EnoughError
        return leaf.clone()

    with ExitStack() as undo, torch.enable_grad():
        for module in model.modules():
            if isinstance(module, LINEARS):
                vars(module)["forward"] = partial(run, module)
                undo.callback(vars(module).pop, "forward")
        with suppress(_EnoughError):
            model.base_model(**_inputs(model.base_model, model.config))
    return seen
