"""The decoder loop, the same for all DETRs.

Letters: ``B`` batch, ``Q`` queries, ``C`` channels, ``N`` layers.
"""

from __future__ import annotations

import copy
from itertools import islice
from typing import Any, cast

from torch import nn

from detrex.layers import BaseTransformerLayer
from detrex.layers.checkpointing import checkpointed
from detrex.modeling.memory import Memory
from detrex.modeling.predictor import LayerOutput
from detrex.modeling.queries import Queries


class Decoder(nn.Module):
    """Gives the queries a position, runs a layer, asks the predictor; ``N`` times.

    Args:
        layer: a transformer layer that takes the keyword arguments below; copied.
        num_layers: number of copies ``N``.
        query_pos: gives the queries a position in each layer (seam 2).
        predictor: says what a layer predicts, and where the queries look next
            (:mod:`detrex.modeling.predictor`). Its modules are named as the decoder's own, as in
            published checkpoints: ``decoder.class_embed``, not ``decoder.predictor.class_embed``.
        eval_layers: how many layers run at evaluation; all if not given. A model whose layers are
            all trained gives up a little accuracy for speed.
        activation_checkpointing: in training compute each layer twice rather than keep what it
            holds.

    Raises:
        ValueError: ``eval_layers`` are not among the layers, or the predictor has tensors of its
            own or a module of the same name as the decoder.
    """

    predictor: nn.Module

    def __init__(
        self,
        layer: nn.Module,
        num_layers: int,
        query_pos: nn.Module,
        predictor: nn.Module,
        eval_layers: int | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if eval_layers is not None and not 1 <= eval_layers <= num_layers:
            raise ValueError(
                f"decoder.eval_layers is {eval_layers}, but must be from 1 to num_layers="
                f"{num_layers}, or null for all."
            )
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.query_pos = query_pos
        self.eval_layers = eval_layers
        self.activation_checkpointing = activation_checkpointing
        self.predictor = predictor

    def __setattr__(self, name: str, value: Any) -> None:
        """A predictor, or one of its modules, may be replaced at any time."""
        predictor = vars(self).get("predictor")
        if name == "predictor":
            self._adopt(value)
        else:
            super().__setattr__(name, value)
            if predictor is not None and name in predictor._modules:
                setattr(predictor, name, value)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """As an assignment: some of torch's conversions replace modules by this."""
        setattr(self, name, module)

    def _adopt(self, predictor: nn.Module) -> None:
        """Registers the predictor's modules here, and keeps the predictor beside them."""
        before = vars(self).get("predictor", nn.Module())
        own = [name for name, _ in (*predictor.named_parameters(), *predictor.named_buffers())]
        tensors = [name for name in own if "." not in name]
        free = dict(before.named_children())
        names = [name for name, _ in predictor.named_children()]
        taken = [name for name in names if hasattr(self, name) and name not in free]
        if tensors or taken:
            raise ValueError(
                f"{type(predictor).__name__} can't be named as a part of the decoder: put its "
                f"tensors {tensors} into a module of their own, and give its modules other names "
                f"than {taken}."
            )
        for name in free:
            delattr(self, name)
        for name, module in predictor.named_children():
            super().add_module(name, module)
        object.__setattr__(self, "predictor", predictor)

    def train(self, mode: bool = True) -> Decoder:
        """The predictor is told too, as it isn't registered.

        Raises:
            RuntimeError: a module of the predictor was set on it alone, where nobody trains it.
        """
        for name, module in self.predictor._modules.items():
            if module is not self._modules.get(name):
                raise RuntimeError(
                    f"decoder.predictor.{name} was replaced behind the decoder, which trains and "
                    f"saves its modules: assign to decoder.{name}."
                )
        self.predictor.train(mode)
        return super().train(mode)

    def reset_parameters(self) -> None:
        """The predictor's start, where it has one; see :mod:`detrex.modeling.initialization`."""
        reset = getattr(self.predictor, "reset_parameters", None)
        if reset is not None:
            reset()

    def forward(self, queries: Queries, memory: Memory) -> list[LayerOutput]:
        """The predictions of each layer that runs."""
        x, anchors, mask = queries.content, queries.anchors, queries.mask()
        state: Any = None
        outputs = []
        num_layers = len(self.layers) if self.training else self.eval_layers or len(self.layers)
        for i, layer in enumerate(islice(self.layers, num_layers)):
            pos = self.query_pos(i, x, queries.pos, anchors)
            x = checkpointed(
                layer,
                x,
                enabled=self.activation_checkpointing,
                key=memory.tokens,
                value=memory.tokens,
                query_pos=pos.embed,
                query_sine_embed=pos.sine,
                key_pos=memory.pos,
                attn_masks=[mask, None],
                key_padding_mask=memory.padding,
                reference_points=None if anchors is None else memory.per_level(anchors),
                spatial_shapes=memory.shapes,
                is_first_layer=i == 0,
            )
            output, anchors, state = self.predictor(i, x, anchors, memory, state)
            outputs.append(output)
        return outputs


class ConditionalDecoder(Decoder):
    """A decoder whose cross-attention uses the learned position in the first layer alone, where
    the content says nothing yet; later layers have no projection for it.

    Source: "Conditional DETR", arXiv:2108.06152. Arguments as for :class:`Decoder`; ``layer`` is a
    :func:`~detrex.modeling.transformer.conditional_decoder_layer`.
    """

    def __init__(self, layer: nn.Module, num_layers: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(layer, num_layers, *args, **kwargs)
        for later in self.layers[1:]:
            cross_attention = cast(BaseTransformerLayer, later).attentions[1]
            cross_attention.register_module("query_pos_proj", None)
