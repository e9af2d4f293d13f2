"""Unpadding: an encoder's layers run on the real tokens of a batch, one after the other, and on no padding.

Around the encoder everything stays as it is. Embeddings, pooling and heads keep the padded rectangle; two hooks put the
tokens together before the layers and apart after them, and between the two an attention function for sequences of
various lengths takes the place of the usual one. So bi-encoders and cross-encoders are unpadded by the same few lines,
and what a model makes of its hidden states is none of their business.

Which models this is right for is found out twice: by what they say of themselves, and by comparing results.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from winnow_inference.engines.torch_batch import Packing

if TYPE_CHECKING:
    import torch

    from winnow_inference.engines.torch_placement import Placement

# Under this name transformers finds our attention and our mask; a model's configuration says which name it uses.
_NAME = "winnow_unpadded"
# What some models hand to their attention beside queries, keys and values. Ours would leave it out.
_EXTRAS = ("position_bias", "sliding_window", "softcap", "s_aux")
# Flash attention is made for Ampere (8.0) and newer.
_LEAST_CAPABILITY = (8, 0)


class CannotUnpad(Exception):
    """Unpadding is not possible, or not right, for this model or here. The message says why, for a person."""


class VariableLengthAttention(Protocol):
    """Attention within each of several sequences that lie one after the other."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, packing: Packing, scale: float | None
    ) -> torch.Tensor:
        """[tokens, heads, head size], from three of that shape; `scale` None: one by the root of the head size."""
        ...


def flash_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, packing: Packing, scale: float | None
) -> torch.Tensor:
    """The variable-length kernel of torch: a GPU, float16 or bfloat16, head sizes up to 256 that divide by 8."""
    import torch
    from torch.nn.attention.varlen import varlen_attn

    attended = varlen_attn(
        query,
        key,
        value,
        packing.boundaries,
        packing.boundaries,
        packing.longest,
        packing.longest,
        scale=scale,
        # One split: with more, the order of additions would depend on the longest neighbour. AMD's build knows none.
        num_splits=None if torch.version.hip else 1,
    )
    assert isinstance(attended, torch.Tensor)
    return attended


def attention_by_runs(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, packing: Packing, scale: float | None
) -> torch.Tensor:
    """The same on any device and in any number format, run of equal lengths by run: the kernel is held to it."""
    import torch

    attended = torch.empty_like(query)
    begin = first = 0
    while first < len(packing.lengths):
        length = packing.lengths[first]
        last = first
        while last < len(packing.lengths) and packing.lengths[last] == length:
            last += 1
        span = slice(begin, begin + (last - first) * length)
        # [sequences, heads, length, head size]
        queries, keys, values = (
            tokens[span].reshape(last - first, length, *tokens.shape[1:]).transpose(1, 2)
            for tokens in (query, key, value)
        )
        result = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, scale=scale)
        attended[span] = result.transpose(1, 2).flatten(0, 1)
        begin, first = span.stop, last
    return attended


def attention_for(placement: Placement) -> VariableLengthAttention:
    """The kernel of this device. Raises CannotUnpad if there is none.

    There is none for a CPU. `attention_by_runs` would do, and with lengths from 20 to 128 takes two thirds of the time;
    but batches are made of like lengths, and there it is no clear gain. Time unpadded over padded, all-MiniLM-L6-v2 on
    2 shared cores: one thread 0.7 to 0.96 in float32, 0.9 to 1.07 in bfloat16; two threads 0.9 to 1.5 and 1.0 to 2.2.
    """
    import torch

    obstacle = flash_obstacle(
        on_gpu=placement.on_gpu,
        dtype=placement.dtype,
        built=torch.backends.cuda.is_flash_attention_available(),
        capability=torch.cuda.get_device_capability(placement.device) if placement.on_gpu else (0, 0),
        amd=torch.version.hip is not None,
    )
    if obstacle:
        raise CannotUnpad(obstacle)
    return flash_attention


def flash_obstacle(*, on_gpu: bool, dtype: str, built: bool, capability: tuple[int, int], amd: bool = False) -> str:
    """What stands in the way of the variable-length kernel; empty: nothing."""
    if not on_gpu:
        return "there is no variable-length attention for a CPU"
    if dtype not in ("float16", "bfloat16"):
        return f"there is no variable-length attention in {dtype}"
    if not built:
        return "this build of torch has no flash attention"
    if capability < _LEAST_CAPABILITY and not amd:
        return f"the GPU has compute capability {'.'.join(map(str, capability))}, flash attention needs 8.0"
    return ""


@dataclass(frozen=True, slots=True)
class Encoder:
    """The layers of a model, and what configures their attention."""

    layers: Any
    """The module that takes `hidden_states` and `attention_mask`."""
    config: Any
    """The configuration that its attention reads."""


def encoder_of(module: Any) -> Encoder:
    """The encoder of a sentence-transformers model. Raises CannotUnpad if it is not one that hooks can unpad."""
    transformer = module[0].model
    base = getattr(transformer, transformer.base_model_prefix, transformer)
    kind, config = type(base).__name__, base.config
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False):
        raise CannotUnpad(f"{kind} is a decoder")
    if not getattr(base, "_supports_attention_backend", False):
        raise CannotUnpad(f"{kind} computes attention in a way of its own")
    if config._attn_implementation != "sdpa":
        raise CannotUnpad(f"{kind} uses {config._attn_implementation} attention")
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        raise CannotUnpad(f"{kind} has {config.position_embedding_type} positions")
    if config.output_hidden_states or config.output_attentions:
        raise CannotUnpad(f"{kind} gives more than its last hidden states")
    layers = getattr(base, "encoder", None) or getattr(base, "transformer", None)
    if layers is None:
        raise CannotUnpad(f"{kind} has no encoder of its own between embeddings and results")
    parameters = inspect.signature(layers.forward).parameters
    if not {"hidden_states", "attention_mask"} <= parameters.keys() or not any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    ):
        raise CannotUnpad(f"{type(layers).__name__} passes nothing on to its attention")
    return Encoder(layers, config)


class Unpadding:
    """An encoder with the two hooks. As long as they are there, this object says whether a pass is packed."""

    def __init__(self, encoder: Encoder, attention: VariableLengthAttention) -> None:
        _register()
        self._attention = attention
        self._config = encoder.config
        self._implementation = encoder.config._attn_implementation
        encoder.config._attn_implementation = _NAME
        self._names = tuple(inspect.signature(encoder.layers.forward).parameters)
        self._hooks = (
            encoder.layers.register_forward_pre_hook(self._before, with_kwargs=True),
            encoder.layers.register_forward_hook(self._after),
        )
        self._packing: Packing | None = None
        self._shape: tuple[int, ...] = ()

    @contextmanager
    def packed(self, packing: Packing) -> Iterator[None]:
        """While it lasts, the encoder drops what `packing`, which is on its device, does not name."""
        self._packing = packing
        try:
            yield
        finally:
            self._packing = None

    def remove(self) -> None:
        """Leaves the model as it was."""
        for hook in self._hooks:
            hook.remove()
        self._config._attn_implementation = self._implementation

    def _before(self, _encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        named = {**dict(zip(self._names, args, strict=False)), **kwargs}
        hidden, mask, packing = named["hidden_states"], named.get("attention_mask"), self._packing
        if packing is None:
            # The mask as it came, [sequences, length]; keys alone need hiding, so it serves all heads and queries.
            return (), {**named, "attention_mask": None if mask is None else mask[:, None, None, :]}
        self._shape = tuple(hidden.shape)
        return (), {
            **named,
            "hidden_states": hidden.flatten(0, 1).index_select(0, packing.positions)[None],
            "attention_mask": None,
            "attend_packed": functools.partial(self._attention, packing=packing),
        }

    def _after(self, _encoder: Any, _args: Any, output: Any) -> Any:
        if self._packing is None:
            return None
        count, length, _ = self._shape
        tokens = output.last_hidden_state[0]
        # Zeros where padding was: pooling multiplies it by its mask, and 0 times whatever memory held may be NaN.
        rectangle = tokens.new_zeros(count * length, tokens.shape[-1])
        rectangle.index_copy_(0, self._packing.positions, tokens)
        output.last_hidden_state = rectangle.view(count, length, -1)
        return output


def unpad(
    encoder: Encoder,
    attention: VariableLengthAttention,
    *,
    compute: Callable[[], torch.Tensor],
    packing: Packing,
    check: Callable[[torch.Tensor, torch.Tensor], None],
) -> Unpadding:
    """Unpads an encoder, having seen that it makes no difference. Raises CannotUnpad and leaves it alone otherwise.

    `compute` gives the model's results for an example, [sequences, width], and `packing` is that example's; `check`
    raises if two results differ by more than rounding. Hidden states are compared too, token by token: a head may turn
    large differences into small ones.
    """
    unpadding: Unpadding | None = None
    try:
        hidden, results = _observed(encoder, compute)
        unpadding = Unpadding(encoder, attention)
        with unpadding.packed(packing):
            packed_hidden, packed_results = _observed(encoder, compute)
        for expected, found in ((hidden, packed_hidden), (results, packed_results)):
            rows = packing.positions if expected is hidden else slice(None)
            check(found.flatten(0, -2)[rows], expected.flatten(0, -2)[rows])
    except Exception as error:  # libraries below raise anything of a model that they do not expect
        if unpadding is not None:
            unpadding.remove()
        raise CannotUnpad(f"a trial failed, {type(error).__name__}: {error}".partition("\n")[0]) from error
    return unpadding


def _observed(encoder: Encoder, compute: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The encoder's hidden states [sequences, length, size] during a computation, and what came of that."""
    seen: list[torch.Tensor] = []
    hook = encoder.layers.register_forward_hook(lambda _encoder, _args, output: seen.append(output.last_hidden_state))
    try:
        result = compute()
    finally:
        hook.remove()
    if len(seen) != 1:
        msg = f"a forward pass went through the encoder {len(seen)} times"
        raise ValueError(msg)
    return seen[0], result


def _register() -> None:
    """Makes our attention and our mask known to transformers; once more does no harm."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, _padding_mask)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    attend_packed: Callable[..., torch.Tensor] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it; a packed batch comes as one sequence.

    [sequences, heads, length, head size] to [sequences, length, heads, head size].
    """
    if attend_packed is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if extras := [name for name in _EXTRAS if kwargs.get(name) is not None]:
        msg = f"attention with {', '.join(extras)} cannot be packed"
        raise NotImplementedError(msg)
    attended = attend_packed(*(states[0].transpose(0, 1) for states in (query, key, value)), scale=scaling)
    return attended[None], None


def _padding_mask(*_args: Any, attention_mask: torch.Tensor | None = None, **_kwargs: Any) -> torch.Tensor | None:
    """The mask as it is, bool [sequences, length]: the usual one would ask the device whether it hides anything."""
    return attention_mask
