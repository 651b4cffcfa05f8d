"""Runs the frozen layers below a depth once and starts later forward passes above them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from autopeft.core.config import PeftConfig
from autopeft.core.errors import AttachError
from autopeft.core.shape import Shape
from autopeft.method.registry import lowest_layer
from autopeft.method.sites import layers_of
from autopeft.model.kernels import Kernels

_ROWS, _TOKENS, _PADDING = 2, 7, 3  # seven, so that a model that pads by itself shows

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class _Stack:
    """What is known of a model whose layers run one after another.

    Attributes:
        layers: in the order in which they run.
        lengths: of the tuple that each layer returns; None for one that returns hidden states.
        early: modules outside the layers that run before the first of them and never after it.
    """

    layers: tuple[nn.Module, ...]
    lengths: tuple[int | None, ...]
    early: tuple[nn.Module, ...]


@dataclass(frozen=True)
class _Probe:
    """One forward pass on random tokens.

    Attributes:
        inputs: arguments of the model; the last row is padded where the model takes a mask.
        real: (rows, tokens), False for padding; None where there is none.
        outputs: what each layer returned, in the order of the calls, with the layer's index.
        logits: what the model returned.
    """

    inputs: Inputs
    real: Tensor | None
    outputs: Sequence[tuple[int, Any]]
    logits: Tensor


class _Reached(BaseException):
    """Ends a forward pass that has computed what was wanted; no `except Exception` holds it."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


_STACKS: WeakKeyDictionary[PreTrainedModel, _Stack | None] = WeakKeyDictionary()


def can_start_above(model: PreTrainedModel) -> bool:
    """Whether the layers of `model` need nothing from those below but their hidden states.

    Found out once per model, by running every layer on random tokens with and without the ones
    below it; the results must be equal bit for bit where tokens are real. A model on the meta
    device is judged by what its layers return. Models with two stacks do not qualify, and int8
    ones neither: their linears treat an example by the others in its batch.

    Args:
        model: without a configuration on it.
    """
    if model not in _STACKS:
        _STACKS[model] = _examined(model)
    return _STACKS[model] is not None


def starting_depth(model: PreTrainedModel, shape: Shape, configs: Sequence[PeftConfig]) -> int:
    """The layer at which the training of some configurations begins; 0 is the whole model.

    Args:
        model: without a configuration on it.
        shape: of the model.
        configs: those that train together.
    """
    depth = min(lowest_layer(config, shape) for config in configs)
    return depth if depth and can_start_above(model) else 0


def enter(model: PreTrainedModel, depth: int, inputs: Inputs) -> Tensor:
    """The hidden states that enter layer `depth`, (rows, tokens, width), without dropout.

    Only the layers below run. Where `depth` is the number of layers, it is what leaves the last.

    Args:
        model: one that `can_start_above`.
        depth: at least 1.
        inputs: arguments of the model, each (rows, tokens).

    Raises:
        AttachError: the model cannot start above a layer, or has no such depth.
    """
    stack = _stack(model, depth)
    with torch.no_grad(), in_eval(model.modules()):
        return _hidden(_until(model, stack.layers[depth - 1], inputs))


@contextmanager
def started_at(model: PreTrainedModel, depth: int, hidden: Tensor) -> Iterator[None]:
    """Inside the block the forward pass of `model` begins at layer `depth`.

    What precedes the first layer still runs, without dropout; its result is not used. Logits and
    gradients are those of the whole model with everything below `depth` in eval mode. Backward
    may run after the block, also through checkpointed layers.

    Args:
        model: one that `can_start_above`.
        depth: as in `enter`.
        hidden: (rows, tokens, width) for the very rows that the model is called on; values at
            padded positions do not matter.

    Raises:
        AttachError: as in `enter`.
    """
    stack = _stack(model, depth)
    with _fed(stack, depth, hidden), in_eval(stack.early):
        yield


def _stack(model: PreTrainedModel, depth: int) -> _Stack:
    stack = _STACKS[model] if can_start_above(model) else None
    if stack is None:
        raise AttachError(f"{type(model).__name__} cannot start above its lower layers")
    if not 1 <= depth <= len(stack.layers):
        raise AttachError(f"depth must be from 1 to {len(stack.layers)}, got {depth}")
    return stack


@contextmanager
def _fed(stack: _Stack, depth: int, hidden: Tensor) -> Iterator[None]:
    """Lets each layer below `depth` return `hidden` instead of running."""
    with ExitStack() as undo:
        for layer, length in zip(stack.layers[:depth], stack.lengths, strict=False):
            attributes = vars(layer)
            put_back = attributes.__setitem__ if "forward" in attributes else attributes.pop
            undo.callback(put_back, "forward", attributes.get("forward"))
            result = hidden if length is None else (hidden, *[None] * (length - 1))
            attributes["forward"] = _returning(result)
        yield


def _returning(result: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: result


@contextmanager
def in_eval(modules: Iterable[nn.Module]) -> Iterator[None]:
    """The modules in eval mode, each for itself, and back again."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _until(model: PreTrainedModel, layer: nn.Module, inputs: Inputs) -> Any:
    """What `layer` returns; nothing after it runs."""

    def end(module: nn.Module, args: Any, output: Any) -> None:
        raise _Reached(output)

    handle = layer.register_forward_hook(end)
    try:
        model(**inputs)
    except _Reached as reached:
        return reached.output
    finally:
        handle.remove()
    raise AttachError(f"{type(model).__name__} does not run its layers in order")


def _hidden(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def _examined(model: PreTrainedModel) -> _Stack | None:
    """The stack of a model that can start above each of its layers, else None."""
    two_stacks = getattr(model.config, "is_encoder_decoder", False)
    if two_stacks or any(p.dtype == torch.int8 for p in model.parameters()):
        return None
    layers = tuple(model.get_submodule(layer.path) for layer in layers_of(model))
    with in_eval(model.modules()):
        try:
            probe, early = _probed(model, layers)
        except Exception:  # it takes other inputs, or has no data where it looks into them
            return None
        outputs = [output for _, output in probe.outputs]
        in_order = [index for index, _ in probe.outputs] == list(range(len(layers)))
        if not in_order or not all(_is_hidden(_hidden(output), probe.real) for output in outputs):
            return None
        lengths = tuple(len(o) if isinstance(o, tuple) else None for o in outputs)
        stack = _Stack(layers, lengths, early)
        if model.device.type == "meta":
            starts = not any(map(_returns_more, outputs))
        else:
            starts = _starts(model, stack, probe)
    return stack if starts else None


def _probed(
    model: PreTrainedModel, layers: Sequence[nn.Module]
) -> tuple[_Probe, tuple[nn.Module, ...]]:
    """A run of the whole model, and the modules that are done before the first layer is."""
    inside = {id(part) for layer in layers for part in layer.modules()}
    outside = [module for module in model.modules() if id(module) not in inside]
    outputs: list[tuple[int, Any]] = []
    finished: dict[nn.Module, bool] = {}  # whether no layer had run when it ended last

    def note(index: int) -> Callable[..., None]:
        return lambda module, args, output: outputs.append((index, output))

    def end(module: nn.Module, args: Any, output: Any) -> None:
        finished[module] = not outputs

    inputs, real = random_inputs(model)
    with ExitStack() as undo:
        undo.enter_context(Kernels("cpu", padded=True))  # answers for meta tensors only
        for index, layer in enumerate(layers):
            undo.callback(layer.register_forward_hook(note(index)).remove)
        for module in outside:
            undo.callback(module.register_forward_hook(end).remove)
        logits = model(**inputs).logits
    early = tuple(module for module, before in finished.items() if before)
    return _Probe(inputs, real, outputs, logits), early


def random_inputs(model: PreTrainedModel, seed: int = 0) -> tuple[dict[str, Tensor], Tensor | None]:
    """Arguments of the model, and which of their tokens are real."""
    generator = torch.Generator().manual_seed(seed)
    images = image_shape(model, _ROWS)
    if images is not None:
        pixels = torch.randn(images, generator=generator, device="cpu")
        return {"pixel_values": pixels.to(model.device, model.dtype)}, None
    config = model.config.get_text_config()
    padding = getattr(config, "pad_token_id", None) or 0
    ids = torch.randint(config.vocab_size - 1, (_ROWS, _TOKENS), generator=generator, device="cpu")
    ids += ids >= padding  # any token but that one
    mask = torch.ones_like(ids)
    ids[-1, -_PADDING:], mask[-1, -_PADDING:] = padding, 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    on_device = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    return on_device, on_device["attention_mask"].bool()


def image_shape(model: PreTrainedModel, rows: int) -> tuple[int, int, int, int] | None:
    """(rows, channels, height, width) of what a model of images takes; None for other models."""
    if model.main_input_name != "pixel_values":
        return None
    size = model.config.image_size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return rows, model.config.num_channels, height, width


def _is_hidden(output: Any, real: Tensor | None) -> bool:
    """Whether it is a tensor (rows, tokens, width)."""
    if not isinstance(output, Tensor) or output.dim() != 3 or output.shape[0] != _ROWS:
        return False
    return real is None or output.shape[1] == real.shape[1]


def _returns_more(output: Any) -> bool:
    """Whether a layer returns anything beside hidden states."""
    return isinstance(output, tuple) and any(part is not None for part in output[1:])


def _starts(model: PreTrainedModel, stack: _Stack, probe: _Probe) -> bool:
    """Whether the model can start above each of its layers.

    Other tokens run first, and the depths go down, so that what a lower layer may have left
    somewhere is never of the tokens that are compared.
    """
    model(**random_inputs(model, seed=1)[0])
    return all(_same(model, stack, probe, depth) for depth in range(len(stack.layers), 0, -1))


def _same(model: PreTrainedModel, stack: _Stack, probe: _Probe, depth: int) -> bool:
    """Whether the layer at `depth`, or the head, does the same without what lies below it."""
    hidden = _hidden(probe.outputs[depth - 1][1])
    if probe.real is not None:
        hidden = hidden * probe.real[..., None]  # as if only real tokens had been kept
    try:
        with _fed(stack, depth, hidden):
            if depth == len(stack.layers):
                return _equal(probe, model(**probe.inputs).logits, probe.logits)
            alone = _hidden(_until(model, stack.layers[depth], probe.inputs))
    except Exception:  # whatever it misses, it does not run without
        return False
    return _equal(probe, alone, _hidden(probe.outputs[depth][1]))


def _equal(probe: _Probe, one: Tensor, other: Tensor) -> bool:
    """Whether both agree bit for bit where tokens are real."""
    if probe.real is not None and one.shape[:2] == probe.real.shape == other.shape[:2]:
        one, other = one[probe.real], other[probe.real]
    return torch.equal(one, other)
