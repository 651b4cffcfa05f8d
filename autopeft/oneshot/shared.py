"""Weights that all configurations of a space share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from autopeft.core.config import PeftConfig
from autopeft.core.errors import AttachError, SpaceError
from autopeft.method.hook import TrainedSite
from autopeft.method.member import Member
from autopeft.method.method import Weight
from autopeft.oneshot.course import NOTHING
from autopeft.train.lent import Lent


class Shared:
    """One tensor for every size of a placement; each size has its first rows and columns.

    Placements share where nothing but numbers tells their options apart; those of methods that do
    not nest, such as VeRA's, where sizes are equal, too. The task head is the same for all.

    Args:
        lent: what it is trained on.
        configs: some of the space, the largest among them.
        seed: of the tensors.

    Attributes:
        groups: what is trained, by learning rate.

    Raises:
        SpaceError: none can be trained.

    References:
        Zhang et al., "Neural Prompt Search", 2022, section 3.2 (weights at the largest size).
    """

    def __init__(self, lent: Lent, configs: Iterable[PeftConfig], seed: int) -> None:
        self._lent, self._seed = lent, seed
        self._tensors: dict[str, nn.Parameter] = {}
        self._rates: dict[str, float] = {}
        for config in configs:
            with suppress(AttachError):  # it cannot be trained here
                self._take(config)
        if not self._tensors:
            raise SpaceError(NOTHING)

    @property
    def groups(self) -> dict[float, list[nn.Parameter]]:
        groups: dict[float, list[nn.Parameter]] = {}
        for name, tensor in self._tensors.items():
            groups.setdefault(self._rates[name], []).append(tensor)
        return groups

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by name, sharing their memory."""
        return {name: tensor.detach() for name, tensor in self._tensors.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state_dict` gave."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])

    def member(self, config: PeftConfig) -> Member:
        """A configuration whose tensors are parts of the shared ones.

        What it has beyond them stays as it is drawn, and is not trained.

        Raises:
            AttachError: it starts from training examples, or does not fit the backbone.
        """
        drawn = self._lent.drawn(config, self._seed)
        sites = [
            replace(site, weights={}, frozen={**site.frozen, **self._parts(site)})
            for site in drawn.sites
        ]
        saved = {
            name: replace(each, copy=self._tensors[name]) for name, each in drawn.saved.items()
        }
        return Member(config, drawn.modules_to_save, sites, saved)

    def _take(self, config: PeftConfig) -> None:
        drawn = self._lent.drawn(config, self._seed)
        rates = {id(t): rate for rate, group in drawn.groups.items() for t in group}
        fresh = {
            shared_name(s, w): s.weights[w.name] for s in drawn.sites for w in trained_weights(s)
        }
        fresh |= {name: each.copy for name, each in drawn.saved.items()}
        for name, tensor in fresh.items():
            known = self._tensors.get(name)
            if known is None or known.numel() < tensor.numel():
                self._tensors[name], self._rates[name] = tensor, rates[id(tensor)]

    def _parts(self, site: TrainedSite) -> dict[str, Tensor]:
        """The tensors of a site: the corner of each shared one that it has room for."""
        parts: dict[str, Tensor] = {}
        for weight in trained_weights(site):
            part = site.weights[weight.name].detach()
            whole = self._tensors.get(shared_name(site, weight))
            if whole is not None:
                common = tuple(map(slice, map(min, part.shape, whole.shape)))
                fits = part.shape == whole[common].shape
                part = whole[common] if fits else part.index_put(_grid(common), whole[common])
            parts[weight.name] = part
        return parts


def trained_weights(site: TrainedSite) -> list[Weight]:
    """Those of a site, whoever trains them."""
    return [weight for weight in site.placed.site.weights if weight.trained]


def shared_name(site: TrainedSite, weight: Weight) -> str:
    """What a tensor has in common with those of other sizes, or with what has its shape."""
    placed = site.placed
    words = [f"{k}={v}" for k, v in placed.placement.options if isinstance(v, str | bool)]
    at = placed.common if weight.shared else placed.key
    sizes = () if placed.method.nests and not weight.shared else weight.shape
    return " ".join([*words, at, weight.name, *map(str, sizes)])


def _grid(corner: tuple[slice, ...]) -> tuple[Tensor, ...]:
    """The places of a corner, for `index_put`."""
    return torch.meshgrid(*(torch.arange(each.stop) for each in corner), indexing="ij")
