"""Finds what each layer of a language model attends to, by recording the arguments with which the model calls its layers.

Some layers see all places, others a window; some rotate positions by one table of angles, others by another. Models
decide that by the number of a layer, in settings of many names, and build masks and angles outside the layers. The
halves must call the layers with the same arguments. So the model runs once with recorders in place of its layers, on a
sequence as long as any that its halves will take, without the cost of the layers; the recorded arguments are kept, or
the model is refused.

Shapes: B sequences, T places, E width of the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from contracts.errors import BadInput

_OURS = ("hidden_states", "attention_mask", "position_embeddings", "position_ids")  # what a layer may be handed


@dataclass(frozen=True, kw_only=True)
class LayerPattern:
    """What one layer attends to.

    Attributes:
        window: how many places back it sees, its own included; None is all of them.
        rotary: the model's name for its table of angles; None where the model has one for all layers.
    """

    window: int | None = None
    rotary: str | None = None


def run_layers(
    layers: nn.ModuleList,
    hidden_BTE: Tensor,
    mask_BT: Tensor,
    rotary: nn.Module | None,
    patterns: Sequence[LayerPattern],
) -> Tensor:
    """Runs hidden states through layers, each of which sees the places that its pattern allows: B x T x E.

    Args:
        layers: some of the model's, in order.
        hidden_BTE: hidden states before the first of them.
        mask_BT: which places are not padding.
        rotary: the decoder's table of angles; None of an encoder, whose layers see later places too.
        patterns: one for each layer.
    """
    length = hidden_BTE.shape[1]
    masks = {
        window: allowed_places(mask_BT, causal=rotary is not None, window=window)
        for window in {of.window for of in patterns}
    }
    angles, more = {}, {}
    if rotary is not None:
        position_ids = torch.arange(length, device=hidden_BTE.device)[None]
        angles = {kind: angles_of(rotary, hidden_BTE, position_ids, kind) for kind in {of.rotary for of in patterns}}
        more = {"position_ids": position_ids}
    for layer, pattern in zip(layers, patterns, strict=True):
        own = more | ({"position_embeddings": angles[pattern.rotary]} if angles else {})
        output = layer(hidden_BTE, attention_mask=masks[pattern.window], **own)
        hidden_BTE = output[0] if isinstance(output, tuple) else output
    return hidden_BTE


def allowed_places(mask_BT: Tensor, *, causal: bool, window: int | None) -> Tensor:
    """B x 1 x T x T: which places (last) each place sees. A place of padding sees at least itself, so that no sum is over nothing."""
    length = mask_BT.shape[1]
    own = torch.eye(length, dtype=torch.bool, device=mask_BT.device)
    allowed = mask_BT[:, None, None, :] | own
    if causal:
        allowed = allowed & torch.ones_like(own).tril()
    if window is not None and window < length:
        allowed = allowed & torch.ones_like(own).triu(1 - window)
    return allowed.expand(len(mask_BT), 1, length, length)


def angles_of(rotary: nn.Module, hidden_BTE: Tensor, position_ids: Tensor, kind: str | None) -> Any:
    """A table of angles for some positions, as the layers take it."""
    return rotary(hidden_BTE, position_ids) if kind is None else rotary(hidden_BTE, position_ids, kind)


def digest_of(patterns: Sequence[LayerPattern]) -> bytes:
    """Names what layers attend to; nothing where all see all places, as it was before windows were kept."""
    return repr(list(patterns)).encode() if any(of != LayerPattern() for of in patterns) else b""


def learn_patterns(
    model: Any, layers: nn.ModuleList, rotary: nn.Module | None, token_ids_1T: Tensor
) -> list[LayerPattern]:
    """The pattern of each layer.

    Args:
        model: the whole model; its layers are replaced while this runs.
        layers: where it keeps them.
        rotary: the decoder's table of angles; None of an encoder.
        token_ids_1T: a sequence as long as the halves will ever be handed. Its last place counts as padding, since a
            model makes no mask for a sequence without any.

    Raises:
        BadInput: a layer is handed what the halves would not hand it.
    """
    returns_tuple = _returns_tuple(model, layers, token_ids_1T[:, :2])
    mask_1T = torch.ones_like(token_ids_1T)
    mask_1T[0, -1] = 0
    with _listening(layers, returns_tuple) as calls:
        _run(model, token_ids_1T, mask_1T)
    position_ids = torch.arange(token_ids_1T.shape[1], device=token_ids_1T.device)[None]
    kinds = _kinds_of_angles(model, rotary)
    seen = _Seen(causal=rotary is not None, mask_1T=mask_1T.bool())
    patterns = []
    for number, handed in enumerate(calls):
        others = [name for name, value in handed.items() if name not in _OURS and _has_tensor(value)]
        if others:
            raise _refusal(model, number, f"{', '.join(others)} as well")
        patterns.append(
            LayerPattern(
                window=seen.window(model, number, handed.get("attention_mask")),
                rotary=None if rotary is None else _kind(model, number, handed, rotary, kinds, position_ids),
            )
        )
    if len(patterns) != len(layers):
        raise BadInput(
            "language model",
            "architecture",
            expected=f"{len(layers)} layers, each run once, one after the other",
            found=f"{type(model).__name__}, which runs {len(patterns)}",
        )
    return patterns


class _Listener(nn.Module):
    """Stands where a layer does, keeps what it is handed, and returns hidden states as they came."""

    def __init__(self, layer: nn.Module, returns_tuple: bool, calls: list[Mapping[str, Any]]) -> None:
        super().__init__()
        self.__dict__["of_layer"] = (layer, returns_tuple, calls)  # not as a child: it has no layer's names

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["of_layer"][0], name)  # some models read a layer's settings

    def forward(self, *args: Any, **more: Any) -> Any:
        layer, returns_tuple, calls = self.__dict__["of_layer"]
        bound = inspect.signature(layer.forward).bind(*args, **more)
        handed = dict(bound.arguments)
        for name, parameter in bound.signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                handed |= handed.pop(name, {})
        hidden = handed.pop("hidden_states", args[0] if args else None)
        calls.append(handed)
        return (hidden,) if returns_tuple else hidden


@contextmanager
def _listening(layers: nn.ModuleList, returns_tuple: bool) -> Iterator[list[Mapping[str, Any]]]:
    calls: list[Mapping[str, Any]] = []
    real = list(layers)
    try:
        for number, layer in enumerate(real):
            layers[number] = _Listener(layer, returns_tuple, calls)
        yield calls
    finally:
        for number, layer in enumerate(real):
            layers[number] = layer


def _returns_tuple(model: Any, layers: nn.ModuleList, token_ids: Tensor) -> bool:
    outputs: list[bool] = []
    handle = layers[0].register_forward_hook(lambda module, given, output: outputs.append(isinstance(output, tuple)))
    try:
        _run(model, token_ids, torch.ones_like(token_ids))
    finally:
        handle.remove()
    return bool(outputs and outputs[0])


@torch.no_grad()
def _run(model: Any, token_ids: Tensor, mask: Tensor) -> None:
    model.eval()
    caches = {"use_cache": False} if getattr(model.config, "use_cache", None) else {}
    model(input_ids=token_ids, attention_mask=mask, **caches)


class _Seen:
    """Masks that a model made, as windows; layers share masks, and each is read once."""

    def __init__(self, *, causal: bool, mask_1T: Tensor) -> None:
        self._causal, self._mask_1T = causal, mask_1T
        self._known: list[tuple[Tensor, int | None]] = []

    def window(self, model: Any, number: int, mask: Any) -> int | None:
        """Raises `BadInput` for a mask that is not of a window, nor of all places."""
        for known, window in self._known:
            if known is mask:
                return window
        length = self._mask_1T.shape[1]
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape[-2:] != (length, length):
            raise _refusal(model, number, f"a mask that is not one of yes and no for each two of the {length} places")
        here = mask.reshape(-1, length, length)
        first_T = here[0].to(torch.uint8).argmax(dim=1)  # the earliest place that each sees
        widest = int((torch.arange(length, device=here.device) - first_T).max()) + 1
        window = None if not self._causal or widest >= length else widest
        expected = allowed_places(self._mask_1T, causal=self._causal, window=window)[0, 0]
        if not bool((here[:, :, :-1] == expected[:, :-1]).all()):  # Whether padding sees itself does not matter.
            raise _refusal(
                model,
                number,
                "a mask that is not of a window that moves along, nor of all "
                + ("earlier places" if self._causal else "places"),
            )
        self._known.append((mask, window))
        return window


def _kinds_of_angles(model: Any, rotary: nn.Module | None) -> Sequence[str | None]:
    if rotary is None or "layer_type" not in inspect.signature(rotary.forward).parameters:
        return (None,)
    return sorted(set(getattr(model.config, "layer_types", None) or ()))


def _kind(
    model: Any,
    number: int,
    handed: Mapping[str, Any],
    rotary: nn.Module,
    kinds: Sequence[str | None],
    position_ids: Tensor,
) -> str | None:
    given = _tensors(handed.get("position_embeddings"))
    like = torch.zeros(1, 1, 1, dtype=next(model.parameters()).dtype, device=position_ids.device)
    for kind in kinds:
        ours = _tensors(angles_of(rotary, like, position_ids, kind))
        if (
            given
            and len(ours) == len(given)
            and all(torch.equal(mine, its) for mine, its in zip(ours, given, strict=True))
        ):
            return kind
    raise _refusal(
        model,
        number,
        "other angles for its positions than the model's rotary_emb gives" if given else "no position_embeddings",
    )


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for one in value for tensor in _tensors(one)] if isinstance(value, tuple | list) else []


def _has_tensor(value: Any) -> bool:
    return bool(_tensors(list(value.values()) if isinstance(value, Mapping) else value))


def _refusal(model: Any, number: int, handed: str) -> BadInput:
    return BadInput(
        "language model",
        "architecture",
        expected="layers that take hidden states, a mask of all places or of a window, and positions",
        found=f"{type(model).__name__}, which hands layer {number} {handed}",
    )
