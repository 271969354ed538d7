"""A pre-trained language model in two halves: low layers that read tokens, and high layers that read any vectors of the model's width.

BAHE (arXiv 2403.19347) sends each distinct text once through the frozen low layers (atomic behaviour encoding), and
sequences of the results through the trainable high layers (behaviour aggregation). Decoders (Llama, Qwen, SmolLM and
others with `layers`, `embed_tokens` and rotary positions) and encoders (BERT, MiniLM and others with `encoder.layer`
and learned positions) can be split. Whether a layer attends to all places or to a window is observed when a model is
split, and kept (`language_pattern`). Behaviours take the places of tokens: after the token that begins a text, at the
model's own rotary or learned positions (our choice).

Shapes: B sequences, T tokens or behaviours of the longest, E width of the model, N texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.errors import BadInput
from training.models.language_checkpoint import read_checkpoint, require_tokenizer, without_sdpa
from training.models.language_pattern import LayerPattern, digest_of, learn_patterns, run_layers
from training.recipes import Pooling

LORA_RANK = 64  # BAHE, section 4.1
_DIFFERING = 0.01  # the same sums in another order differ by less, also in bfloat16
_LONGEST = 8192  # places: the longest sequence on which what layers attend to is learned
_TRIED, _TRIED_WINDOW = 48, 512  # tokens of the trial at least, and at most for the sake of a window


class LowLayers(nn.Module):
    """Embeddings and the first layers: tokens -> their hidden states.

    Args:
        embed: the model's token embeddings.
        layers: the model's first layers.
        rotary: the model's table of angles; None for an encoder.
        patterns: what each of the layers attends to.
        longest: the number of the model's positions.
    """

    def __init__(
        self,
        embed: nn.Module,
        layers: nn.ModuleList,
        rotary: nn.Module | None,
        *,
        patterns: Sequence[LayerPattern],
        longest: int,
    ) -> None:
        super().__init__()
        self.embed, self.layers, self.rotary, self.patterns, self.longest = embed, layers, rotary, patterns, longest

    def forward(self, token_ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Returns the hidden states of tokens, B x T x E.

        Raises:
            BadInput: more tokens than the model has positions for.
        """
        if token_ids_BT.shape[1] > self.longest:
            raise BadInput(
                "a text",
                "tokens",
                expected=f"at most the {self.longest} positions of the model",
                found=token_ids_BT.shape[1],
            )
        return run_layers(self.layers, self.embed(token_ids_BT), mask_BT, self.rotary, self.patterns)


class HighLayers(nn.Module):
    """The other layers, and the decoder's last norm: B x T x E -> B x T x E.

    Args:
        layers: the model's other layers.
        rotary: the model's table of angles; None for an encoder.
        norm: the decoder's last norm; None for an encoder.
        patterns: what each of the layers attends to.
        positions: the learned positions of an encoder, from the first on; None for a decoder.
        longest: the number of the model's positions, that of the first token included.
        sink_E: the low layers' output for the token that begins a text.
    """

    def __init__(
        self,
        layers: nn.ModuleList,
        rotary: nn.Module | None,
        norm: nn.Module | None,
        *,
        patterns: Sequence[LayerPattern],
        positions: Tensor | None,
        longest: int,
        sink_E: Tensor,
    ) -> None:
        super().__init__()
        self.layers, self.rotary, self.norm, self.patterns, self.longest = layers, rotary, norm, patterns, longest
        self.register_buffer("positions", None if positions is None else positions[1:], persistent=False)
        self.register_buffer("sink_E", sink_E, persistent=False)

    def forward(self, hidden_BTE: Tensor, mask_BT: Tensor, *, place: bool = True) -> Tensor:
        """Returns the outputs of the high layers, B x T x E.

        Layers attend to the first token where nothing else is relevant (`attention sinks`, arXiv 2309.17453); without
        it they would have to attend to some behaviour.

        Args:
            hidden_BTE: vectors of behaviours, or hidden states of the model's own low layers.
            mask_BT: which places are not padding.
            place: True for behaviours: puts the first token before them and adds an encoder's learned positions. Hidden
                states of the low layers have both already.

        Raises:
            BadInput: there are more behaviours than the model has positions after the first token.
        """
        if not place:
            return self._layers(hidden_BTE, mask_BT)
        if hidden_BTE.shape[1] > self.longest - 1:
            raise BadInput(
                "a sequence",
                "behaviours",
                expected=f"at most the {self.longest - 1} positions of the model",
                found=hidden_BTE.shape[1],
            )
        if self.positions is not None:
            learned: Tensor = self.get_buffer("positions")
            hidden_BTE = hidden_BTE + learned[: hidden_BTE.shape[1]]
        sink_B1E = self.get_buffer("sink_E").to(hidden_BTE.dtype).expand(len(hidden_BTE), 1, -1)
        return self._layers(torch.cat([sink_B1E, hidden_BTE], dim=1), functional.pad(mask_BT, (1, 0), value=True))[
            :, 1:
        ]

    def _layers(self, hidden_BTE: Tensor, mask_BT: Tensor) -> Tensor:
        hidden_BTE = run_layers(self.layers, hidden_BTE, mask_BT, self.rotary, self.patterns)
        return hidden_BTE if self.norm is None else self.norm(hidden_BTE)


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A split model.

    Attributes:
        low: the frozen half that reads tokens.
        high: the half that reads vectors.
        tokenizer: the tokenizer of Hugging Face, which pads on the right.
        width: E.
        family: decoder or encoder.
        longest: the places of the longest sequence that the model takes: its positions, at most 8,192.
    """

    low: LowLayers
    high: HighLayers
    tokenizer: Any
    width: int
    family: Literal["decoder", "encoder"]
    longest: int

    def require_positions(self, name: str, needed: int) -> None:
        """Refuses a setting by which sequences are longer than the model takes.

        Args:
            name: the name of the setting.
            needed: the places that it requires.

        Raises:
            BadInput: the model has fewer positions.
        """
        if needed > self.longest:
            raise BadInput(
                "language model",
                name,
                expected=f"at most {self.longest} places, for which the model has positions",
                found=needed,
                hint="Set less in the recipe, or take a model with more positions.",
            )


def load(source: str, *, low_layers: int | None = None) -> LanguageModel:
    """Reads a pre-trained model and splits it after its first `low_layers` layers (half of them by default).

    Args:
        source: `minilm` or `smollm2`, which packages carry; a local folder, or a file of the GGUF format; else a name
            on the hub.
        low_layers: 1 .. all but one.

    Raises:
        BadInput: there is no such model, its files do not fit each other, or it cannot be split.
    """
    model, tokenizer = read_checkpoint(source)
    return split(model, tokenizer, low_layers=low_layers)


def split(model: Any, tokenizer: Any, *, low_layers: int | None = None) -> LanguageModel:
    """Splits a model of Hugging Face that is loaded already, with `attn_implementation="sdpa"`.

    What each layer attends to is learned on a sequence as long as the halves take (`learn_patterns`), and both halves
    are compared with the whole model on a text that is longer than its windows of up to 512 places.

    Raises:
        BadInput: it is of no family that can be split, its halves are not the whole model, it has too few layers, or
            the tokenizer is not for it.
    """
    kind, parts = type(model).__name__, _parts_of(model)
    layers, rotary, longest = parts.layers, parts.rotary, parts.longest
    if model.config._attn_implementation != "sdpa":
        raise without_sdpa("language model", f"{kind}, whose attention is {model.config._attn_implementation}")
    low = len(layers) // 2 if low_layers is None else low_layers
    if not 1 <= low < len(layers):
        raise BadInput(
            "language model",
            "low_layers",
            expected=f"1 .. {len(layers) - 1}: {kind} has {len(layers)} layers",
            found=low,
        )
    require_tokenizer(tokenizer, model.get_input_embeddings().weight.shape[0])
    try:
        patterns = learn_patterns(model.eval(), layers, rotary, _text(model, tokenizer, longest))
        low_half = LowLayers(parts.embed, nn.ModuleList(layers[:low]), rotary, patterns=patterns[:low], longest=longest)
        high_half = HighLayers(
            nn.ModuleList(layers[low:]),
            rotary,
            parts.norm,
            patterns=patterns[low:],
            positions=parts.positions,
            longest=longest,
            sink_E=_first_mark(low_half, tokenizer),
        )
        tried = max(
            [_TRIED, *(of.window + 8 for of in patterns if of.window is not None and of.window <= _TRIED_WINDOW)]
        )
        differing = _differing(model, low_half, high_half, _text(model, tokenizer, min(tried, longest)))
    except BadInput:
        raise
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise BadInput(
            "language model",
            "architecture",
            expected="layers that take hidden states, a mask and positions, and nothing else",
            found=f"{kind}, whose embeddings and layers do not run one after the other",
            hint=str(error)[:300],
        ) from error
    if not differing < _DIFFERING:
        raise BadInput(
            "language model",
            "architecture",
            expected="a model that is its embeddings and its layers, one after the other",
            found=f"{kind}, whose output differs by {differing:.0%} from that of its layers",
        )
    return LanguageModel(
        low=low_half,
        high=high_half,
        tokenizer=tokenizer,
        width=model.config.hidden_size,
        family=parts.family,
        longest=longest,
    )


class _Parts(NamedTuple):
    """What a model of either family is made of; a family's own parts are None in the other."""

    family: Literal["decoder", "encoder"]
    layers: nn.ModuleList
    embed: nn.Module
    rotary: nn.Module | None
    norm: nn.Module | None
    positions: Tensor | None
    longest: int


def _parts_of(model: Any) -> _Parts:
    """Finds the parts of a model.

    Raises:
        BadInput: it is of no family that can be split.
    """
    lacking = [name for name in ("layers", "embed_tokens", "rotary_emb", "norm") if not hasattr(model, name)]
    if not lacking:
        longest = min(getattr(model.config, "max_position_embeddings", None) or _LONGEST, _LONGEST)
        return _Parts("decoder", model.layers, model.embed_tokens, model.rotary_emb, model.norm, None, longest)
    if hasattr(getattr(model, "encoder", None), "layer") and hasattr(
        getattr(model, "embeddings", None), "position_embeddings"
    ):
        positions = _learned_positions(model)
        longest = min(len(positions), _LONGEST)
        return _Parts("encoder", model.encoder.layer, model.embeddings, None, None, positions, longest)
    raise BadInput(
        "language model",
        "architecture",
        expected="a decoder with layers, embed_tokens, rotary_emb and norm (Llama, Qwen, "
        "SmolLM), or an encoder with encoder.layer and position_embeddings (BERT, MiniLM)",
        found=f"{type(model).__name__}, which lacks {', '.join(lacking)}",
        hint="docs/models/bahe.md lists families.",
    )


def _text(model: Any, tokenizer: Any, length: int) -> Tensor:
    """1 x length: the tokens of a short text again and again."""
    ids = tokenizer("Clicked a film, Comedy")["input_ids"]
    return torch.tensor([(ids * (length // len(ids) + 1))[:length]], device=next(model.parameters()).device)


@torch.no_grad()
def _differing(model: nn.Module, low: LowLayers, high: HighLayers, token_ids: Tensor) -> float:
    """How far both halves are from the whole model on a text, in parts of its output's length."""
    mask = torch.ones_like(token_ids)
    expected = model(input_ids=token_ids, attention_mask=mask).last_hidden_state
    found = high.eval()(low.eval()(token_ids, mask.bool()), mask.bool(), place=False)
    return float((found - expected).norm() / expected.norm())


def _learned_positions(model: Any) -> Tensor:
    table = model.embeddings.position_embeddings
    begin = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa's first positions are padding
    learned: Tensor = table.weight.detach()[begin:].clone()
    return learned


@torch.no_grad()
def _first_mark(low: LowLayers, tokenizer: Any) -> Tensor:
    """Returns the first hidden state of an empty text, E; a tokenizer that puts no token before texts may still name one for that."""
    ids = tokenizer("")["input_ids"] or [
        tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ]
    token_ids = torch.tensor([ids], device=next(low.parameters()).device)
    first_E: Tensor = low.eval()(token_ids, torch.ones_like(token_ids, dtype=torch.bool))[0, 0]
    return first_E.clone()


def with_lora(layers: nn.Module, *, rank: int = LORA_RANK) -> nn.Module:
    """Freezes layers and adds trainable low-rank adapters to their linear maps (LoRA, arXiv 2106.09685), in place."""
    from peft import LoraConfig, inject_adapter_in_model

    layers.requires_grad_(False)
    linear = sorted({name.rsplit(".")[-1] for name, module in layers.named_modules() if isinstance(module, nn.Linear)})
    adapted: nn.Module = inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=linear), layers)
    return adapted


def encoder_id(model: LanguageModel, *, pooling: Pooling, longest: int) -> str:
    """Returns a digest of all that decides a text's vector: the low layers' weights and windows, the vocabulary, pooling and length.

    Vectors of encoders with different ids must not be mixed.
    """
    tokenizer = json.loads(model.tokenizer.backend_tokenizer.to_str()) | {
        "truncation": None,
        "padding": None,
    }  # Set by the last call.
    digest = hashlib.sha256(
        f"{pooling}/{longest}/{len(model.low.layers)}/{json.dumps(tokenizer, sort_keys=True)}".encode()
    )
    digest.update(digest_of(model.low.patterns))
    for name, tensor in sorted(model.low.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Vectors of texts.

    Attributes:
        vectors: N x E.
        cut_cnt: texts that were longer than what is read of them.
    """

    vectors: Tensor
    cut_cnt: int


@torch.no_grad()
def encode_texts(
    model: LanguageModel,
    texts: Sequence[str],
    *,
    pooling: Pooling = "mean",
    longest: int = 64,
    tokens_at_once: int = 8192,
) -> Encoded:
    """Encodes each text by the low layers and pools it: BAHE's atomic behaviour encoding, `E(a) = Fp(LLM_low(a))`.

    Texts of similar lengths form a batch. Results are in the given order, and depend on it only by rounding.

    Args:
        model: the model; its low half is used, in evaluation mode.
        texts: N; an empty text reads as one padding token.
        pooling: mean over the tokens, or the last token.
        longest: the most tokens that are read of a text.
        tokens_at_once: the most tokens of a batch, padding included.

    Raises:
        BadInput: the model has fewer positions than `longest`.
    """
    model.require_positions("longest", longest)
    model.low.eval()
    ids = [_token_ids(model, text, longest + 1) for text in texts]
    cut_cnt = sum(len(of) > longest for of in ids)
    ids = [of[:longest] for of in ids]
    order = sorted(range(len(ids)), key=lambda number: (len(ids[number]), texts[number]))
    device = next(model.low.parameters()).device
    vectors = torch.zeros(len(texts), model.width)
    for batch in _batches([len(ids[number]) for number in order], tokens_at_once):
        numbers = order[batch]
        token_ids, mask = padded([ids[number] for number in numbers], int(model.tokenizer.pad_token_id))
        hidden = model.low(token_ids.to(device), mask.to(device))
        if model.family == "decoder":
            hidden = even(hidden)
        vectors[numbers] = pool(hidden, mask.to(device), pooling).float().cpu()
    return Encoded(vectors=vectors, cut_cnt=cut_cnt)


def even(hidden_BTE: Tensor) -> Tensor:
    """Scales every token to a mean square of 1, B x T x E.

    In decoders the first token's mean square is thousands of times that of the others, whatever the token is, so it
    would decide a mean over the tokens (`attention sinks`, arXiv 2309.17453).
    """
    return hidden_BTE * torch.rsqrt(hidden_BTE.square().mean(dim=2, keepdim=True) + 1e-6)


def pool(hidden_BTE: Tensor, mask_BT: Tensor, pooling: Pooling) -> Tensor:
    """Pools hidden states over the tokens that the mask names, by their mean or by the last of them: B x E; zeros where there is none."""
    counts_B = mask_BT.sum(dim=1)
    if pooling == "last":
        last = hidden_BTE[torch.arange(len(hidden_BTE), device=hidden_BTE.device), (counts_B - 1).clamp(min=0)]
        return torch.where((counts_B > 0)[:, None], last, torch.zeros_like(last))
    return (hidden_BTE * mask_BT[:, :, None]).sum(dim=1) / counts_B.clamp(min=1)[:, None]


def padded(rows: Sequence[Sequence[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Rows of different lengths -> B x T, and which places are of a row."""
    widest = max(1, max(map(len, rows), default=1))
    values = torch.tensor([[*row, *[filler] * (widest - len(row))] for row in rows], dtype=torch.int64).view(
        len(rows), widest
    )
    lengths = torch.tensor([len(row) for row in rows])
    return values, torch.arange(widest) < lengths[:, None]


def _token_ids(model: LanguageModel, text: str, at_most: int) -> list[int]:
    """A text's tokens, the model's marks around them; a long text is cut before it is read: no token is shorter than a character."""
    found: list[int] = model.tokenizer(text[: at_most * 64], truncation=True, max_length=at_most, verbose=False)[
        "input_ids"
    ]
    return found or [int(model.tokenizer.pad_token_id)]


def _batches(lengths: Sequence[int], tokens_at_once: int) -> Sequence[slice]:
    """Slices of ascending lengths, each of at most so many tokens when padded."""
    batches, begin = [], 0
    for number, length in enumerate(lengths):
        if number > begin and (number - begin + 1) * length > tokens_at_once:
            batches.append(slice(begin, number))
            begin = number
    return [*batches, slice(begin, len(lengths))] if len(lengths) else []
