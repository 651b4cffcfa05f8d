"""Several configurations at once on one frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from torch import nn
from transformers import PreTrainedModel

from autopeft.core.errors import AttachError
from autopeft.method import attention, beside, head, hook, insertion
from autopeft.method.member import Member
from autopeft.method.rows import Rows
from autopeft.method.sites import layers_of
from autopeft.method.text import Text


class Pack:
    """Members on one backbone, each on its own rows of every batch.

    A sole member owns all rows. A member's gradients, outputs and invalid numbers are those of
    training alone, as long as nothing in the backbone mixes rows. The backward pass of a forward
    pass comes before the next `split`, `join` or `leave`.

    Args:
        model: the backbone, on any device, also `meta`; every parameter is frozen.
        modules_to_save: paths of modules, such as the task head, of which every member has a copy.

    Attributes:
        members: in the order of joining, which is that of their rows.

    Raises:
        AttachError: a model that carries a pack already, or lacks one of the modules.
    """

    def __init__(self, model: PreTrainedModel, modules_to_save: Sequence[str] = ()) -> None:
        if hasattr(model, head.ORIGINALS):
            raise AttachError(f"{type(model).__name__} carries a configuration; detach it first")
        self.model = model
        self.members: tuple[Member, ...] = ()
        self._modules_to_save = tuple(modules_to_save)
        self._rows = Rows(0)
        self._frozen, self._laid = ExitStack(), ExitStack()
        setattr(model, head.ORIGINALS, head.originals(model, modules_to_save))
        self._frozen.callback(delattr, model, head.ORIGINALS)
        for parameter in model.parameters():
            self._frozen.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)

    @property
    def takes_several(self) -> bool:
        """Whether the architecture and the modules to save allow a second member."""
        try:
            self._check_shared()
        except AttachError:
            return False
        return True

    def join(self, member: Member) -> None:
        """Puts `member` on the backbone, behind the others; rows have to be split again.

        Raises:
            AttachError: one that is in already, saves other modules or stems from another
                backbone; a second one where the architecture or the modules to save take only one.
        """
        if member in self.members:
            raise AttachError("the member is in the pack already")
        if member.modules_to_save != self._modules_to_save:
            ours, theirs = list(self._modules_to_save), list(member.modules_to_save)
            raise AttachError(f"must be {ours} as for the pack, got {theirs}", "modules_to_save")
        self._check_backbone(member)
        if self.members:
            self._check_shared()
        self._lay((*self.members, member))

    def leave(self, member: Member) -> None:
        """Takes `member` off, whose tensors stay as they are; rows have to be split again.

        Raises:
            AttachError: it is not in the pack.
        """
        if member not in self.members:
            raise AttachError("the member is not in the pack")
        self._lay(tuple(other for other in self.members if other is not member))

    def split(self, sizes: Sequence[int]) -> None:
        """Says whose rows are whose in the coming forward passes.

        Args:
            sizes: rows of each member, in the order of `members`; their sum is the size of the
                batch; 0 for a member that sits out.

        Raises:
            AttachError: not one number a member, a negative one, or no rows at all. A forward pass
                with another number of rows raises it as well.
        """
        self._rows.split(sizes)

    def close(self) -> None:
        """Takes everyone off: the backbone is, bit for bit, what was given."""
        self._laid.close()
        self._frozen.close()
        self.members = ()

    def _lay(self, members: tuple[Member, ...]) -> None:
        self._laid.close()
        self.members, self._rows = members, Rows(len(members))
        sites = [member.sites for member in members]
        with ExitStack() as undo:
            everything = [trained for member_sites in sites for trained in member_sites]
            if any(trained.placed.method.in_attention for trained in everything):
                attention.route(self.model, undo)
            text = Text()
            layers = [trained.layer for trained in everything if trained.part.reads_text]
            text.watch(self.model, layers, undo)
            attention.put(sites, self._rows, text, undo)
            insertion.put(self.model, sites, self._rows, undo)
            beside.put(self.model, sites, self._rows, text, undo)
            hook.edit(sites, self._rows, text, undo)
            saved = [member.saved for member in members]
            head.install(self.model, self._modules_to_save, saved, self._rows, undo)
            self._laid = undo.pop_all()

    def _check_backbone(self, member: Member) -> None:
        modules = set(self.model.modules())
        if not all(trained.module in modules for trained in member.sites):
            raise AttachError("the member was drawn for another backbone")

    def _check_shared(self) -> None:
        attention.check_routes(self.model, "which several members need")
        inside = {
            module
            for path in self._modules_to_save
            for module in self.model.get_submodule(path).modules()
        }
        for layer in layers_of(self.model):
            sites: list[nn.Module] = [site.module for site in layer.linears.values()]
            if inside.intersection([*sites, *layer.norms.values()]):
                reason = f"several members cannot save modules that reach into {layer.path}"
                raise AttachError(reason, "modules_to_save")
