"""Makes the table of families in `docs/models/bahe.md` by splitting tiny models of random weights.

`python -m training.models.language_families` writes it; `--check` reports whether it is current.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

from contracts.commands import run_line
from contracts.errors import EXIT_BAD_INPUT, EXIT_OK, BadInput, run_command
from training.models.language import split

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models" / "bahe.md"
COMMAND = "python -m training.models.language_families"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"
_WORDS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "Clicked", "a", "film", ",", "Comedy", "Liked", "the", "book", "Drama")
_LAYERS, _WINDOW = 4, 8
_TINY = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "cls_token_id": 2,
    "sep_token_id": 3,
    "mask_token_id": 1,
}  # each configuration takes those that it knows
_SLIDING = {"sliding_window": _WINDOW}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models that transformers runs by the same code.

    Attributes:
        type: `model_type` in their config.json.
        known: models of it that people know.
        settings: settings of the tiny model, in addition to its sizes.
        note: which settings the row is about.
    """

    type: str
    known: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


FAMILIES = (
    Family(type="llama", known="Llama 2 and 3, SmolLM2, TinyLlama"),
    Family(type="mistral", known="Mistral 7B 0.1", settings=_SLIDING, note="`sliding_window`"),
    Family(type="mistral", known="Mistral 7B 0.3", settings={"sliding_window": None}, note="no window"),
    Family(type="ministral", known="Ministral 8B", settings=_SLIDING, note="`sliding_window`"),
    Family(type="mixtral", known="Mixtral 8x7B", settings={"sliding_window": None}),
    Family(type="qwen2", known="Qwen2, Qwen2.5", settings={"use_sliding_window": False}),
    Family(
        type="qwen2",
        known="Qwen2",
        settings=_SLIDING | {"use_sliding_window": True, "max_window_layers": 2},
        note="`use_sliding_window`, `max_window_layers`",
    ),
    Family(
        type="qwen3",
        known="Qwen3",
        settings=_SLIDING | {"use_sliding_window": True, "max_window_layers": 1},
        note="`use_sliding_window`, `max_window_layers`",
    ),
    Family(type="qwen3_moe", known="Qwen3-30B-A3B"),
    Family(type="qwen3_next", known="Qwen3-Next"),
    Family(type="phi3", known="Phi-3, Phi-3.5, Phi-4-mini", settings=_SLIDING, note="`sliding_window`"),
    Family(type="starcoder2", known="StarCoder2", settings=_SLIDING, note="`sliding_window`"),
    Family(type="gemma", known="Gemma 1"),
    Family(type="gemma2", known="Gemma 2", settings=_SLIDING, note="`layer_types`"),
    Family(
        type="gemma3_text",
        known="Gemma 3 1B",
        note="`layer_types`, angles by layer",
        settings=_SLIDING
        | {
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
                "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
            },
        },
    ),
    Family(type="gpt_oss", known="gpt-oss", settings=_SLIDING, note="`layer_types`"),
    Family(type="cohere", known="Command R"),
    Family(type="cohere2", known="Command R7B, Command A", settings=_SLIDING, note="`layer_types`"),
    Family(type="smollm3", known="SmolLM3", settings={"no_rope_layers": [1, 1, 1, 0]}, note="`no_rope_layers`"),
    Family(type="olmo2", known="OLMo 2"),
    Family(type="olmo3", known="Olmo 3", settings=_SLIDING, note="`layer_types`"),
    Family(type="exaone4", known="EXAONE 4", settings=_SLIDING, note="`layer_types`"),
    Family(
        type="llama4_text",
        known="Llama 4, text",
        settings={"attention_chunk_size": _WINDOW},
        note="`attention_chunk_size`",
    ),
    Family(type="granite", known="Granite 3", settings={"embedding_multiplier": 12.0}, note="`embedding_multiplier`"),
    Family(type="glm4", known="GLM-4-0414"),
    Family(type="stablelm", known="StableLM 2"),
    Family(type="nemotron", known="Nemotron 4, Minitron"),
    Family(type="helium", known="Helium 1"),
    Family(type="phi", known="Phi-1, Phi-2"),
    Family(type="gpt2", known="GPT-2"),
    Family(type="gpt_neox", known="Pythia"),
    Family(type="falcon", known="Falcon 7B"),
    Family(type="opt", known="OPT"),
    Family(type="bloom", known="BLOOM"),
    Family(type="mamba", known="Mamba"),
    Family(type="bert", known="BERT, MiniLM, E5, BGE, GTE"),
    Family(type="roberta", known="RoBERTa"),
    Family(type="xlm-roberta", known="XLM-R, multilingual E5, BGE-M3"),
    Family(
        type="electra",
        known="ELECTRA base",
        settings={"embedding_size": 32},
        note="`embedding_size` equal to `hidden_size`",
    ),
    Family(type="electra", known="ELECTRA small", settings={"embedding_size": 16}, note="a smaller `embedding_size`"),
    Family(type="mpnet", known="all-mpnet-base-v2"),
    Family(type="deberta-v2", known="DeBERTa 3"),
    Family(type="distilbert", known="DistilBERT"),
    Family(type="albert", known="ALBERT"),
    Family(type="modernbert", known="ModernBERT", note="`layer_types`"),
    Family(type="eurobert", known="EuroBERT"),
    Family(type="t5", known="T5, Flan-T5"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes or checks the table; returns the exit code."""
    return run_line(_make, argv)


@click.command(COMMAND, help=__doc__)
@click.option("--check", is_flag=True, help="Write nothing; exit with 2 if the page is not current.")
def _make(check: bool) -> int:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    new = f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"
    if not check:
        PAGE.write_text(new, encoding="utf-8")
        print(f"wrote {PAGE}: {len(FAMILIES)} rows")
    elif new != text:
        print(
            f"The table of families in {PAGE} is not what splitting them gives. Make it again: {COMMAND}",
            file=sys.stderr,
        )
        return EXIT_BAD_INPUT
    return EXIT_OK


def table() -> str:
    """A row for each of `FAMILIES`: what is taken, what is refused, and why."""
    lines = [
        "| `model_type` | known models | with | taken | what is kept, or why it is refused |",
        "|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        taken, why = outcome(family)
        lines.append(f"| `{family.type}` | {family.known} | {family.note} | {'yes' if taken else 'no'} | {why} |")
    return "\n".join(lines)


def outcome(family: Family) -> tuple[bool, str]:
    """Whether a tiny model of a family is split, and what is kept of its pattern or why it is not."""
    model = tiny_model(family)
    try:
        halves = split(model, tiny_tokenizer(), low_layers=1)
    except BadInput as error:
        found = error.found.split(", whose output differs by ")
        if len(found) == 2:  # how much depends on the random weights
            return False, f"{error.field}: {found[0]}, whose output is not that of its layers"
        return False, f"{error.field}: {error.found}"
    patterns = [*halves.low.patterns, *halves.high.patterns]
    windows = [number for number, of in enumerate(patterns) if of.window is not None]
    kept = (
        [f"the window of layers {', '.join(map(str, windows))} of {len(patterns)}"]
        if windows
        else [f"every layer sees all {'earlier ' if halves.family == 'decoder' else ''}places"]
    )
    if len({of.rotary for of in patterns}) > 1:
        kept.append("two tables of angles")
    return True, "; ".join(kept)


def tiny_model(family: Family) -> Any:
    """A model of four layers and random weights, for the words of `tiny_tokenizer`."""
    from transformers import CONFIG_MAPPING, AutoModel

    torch.manual_seed(1)
    kind = CONFIG_MAPPING[family.type]
    annotated = {name for base in kind.__mro__ for name in getattr(base, "__annotations__", {})}
    known = annotated | {*inspect.signature(kind.__init__).parameters, *getattr(kind, "attribute_map", {})}
    sizes = {name: value for name, value in _TINY.items() if name in known}
    return AutoModel.from_config(kind(**sizes | dict(family.settings))).eval()


def tiny_tokenizer() -> Any:
    """Returns a tokenizer that only knows the words of the trial."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", eos_token="[EOS]"
    )


if __name__ == "__main__":
    raise SystemExit(run_command(main))
