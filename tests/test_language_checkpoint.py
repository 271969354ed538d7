"""Checkpoints that do not fit, tokenizers that do not, patterns of layers, and the table of families; tiny models of random weights."""

import copy
from pathlib import Path

import pytest
import torch

from contracts.errors import BadInput
from training.models import language_families
from training.models.language import encode_texts, encoder_id, load, split, with_lora
from training.models.language_checkpoint import location
from training.models.language_families import Family, tiny_model, tiny_tokenizer
from training.models.language_pattern import LayerPattern

pytestmark = pytest.mark.slow  # importing the libraries of Hugging Face takes seconds

LLAMA = Family(type="llama", known="")
SLIDING = {"sliding_window": 8}


def _saved(folder, family=LLAMA, tokenizer=None, head="ForCausalLM"):
    """A model with a head, as people publish them."""
    import transformers

    model = tiny_model(family)
    kind = getattr(transformers, type(model).__name__.removesuffix("Model") + head)
    kind(model.config).save_pretrained(folder)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    return folder


def _change_weights(folder, change):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def _prefixed(weights):
    return {f"module.{name}": tensor for name, tensor in weights.items()}


def _without_a_layer(weights):
    return {name: tensor for name, tensor in weights.items() if "layers.2." not in name}


def _with_a_fifth_layer(weights):
    return weights | {
        name.replace("layers.2.", "layers.4."): tensor.clone()
        for name, tensor in weights.items()
        if "layers.2." in name
    }


def _wider(weights):
    return weights | {"model.layers.1.mlp.up_proj.weight": torch.zeros(50, 32)}


def test_a_whole_checkpoint_with_a_head_is_taken(tmp_path):
    from safetensors.torch import load_file

    folder = _saved(tmp_path / "llama")
    model = load(str(folder))
    assert torch.equal(
        model.low.get_parameter("embed.weight"), load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    )
    bert = load(str(_saved(tmp_path / "bert", Family(type="bert", known=""), head="ForMaskedLM")))  # it has no pooler
    assert bert.family == "encoder"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            _prefixed,
            r"weights: expected a weight of the checkpoint for each of the model, found none for 38 \(embed_tokens.weight, layers\.0"
            r".*The checkpoint has 39 \(module\.lm_head",
        ),
        (_without_a_layer, r"weights: expected a weight .*, found none for 9 \(layers\.2\.input_layernorm\.weight,"),
        (
            _with_a_fifth_layer,
            r"weights: expected .*config\.json.*, found weights without a place: 9 \(model\.layers\.4\.",
        ),
        (
            _wider,
            r"weights: expected layers\.1\.mlp\.up_proj\.weight of shape \(48, 32\), .*config\.json, found one of \(50, 32\)",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, change, says):
    from transformers import AutoModel

    folder = _saved(tmp_path)
    _change_weights(folder, change)
    if change is not _wider:
        AutoModel.from_pretrained(folder)  # transformers takes it, with random weights or without the layer
    with pytest.raises(BadInput, match=says) as refused:
        load(str(folder))
    assert str(folder) in refused.value.where


@pytest.mark.parametrize(
    "cut", [lambda whole: whole[:-1000], lambda whole: b"version https://git-lfs.github.com/spec/v1\nsize 9\n"]
)
def test_cut_weights_are_named(tmp_path, cut):
    path = _saved(tmp_path) / "model.safetensors"
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(
        BadInput, match=r"weights: expected whole files .* what SafetensorError refuses.*Fetch the file again"
    ) as refused:
        load(str(tmp_path))
    assert refused.value.where == str(path)


def test_a_cut_gguf_file_is_named(tmp_path):
    folder, extra = location("smollm2")
    path = tmp_path / "cut.gguf"
    with (Path(folder) / extra["gguf_file"]).open("rb") as whole:
        path.write_bytes(whole.read(100_000))
    with pytest.raises(
        BadInput, match=r"expected whole files as save_pretrained writes them, found what \w+ refuses"
    ) as refused:
        load(str(path))
    assert refused.value.where == str(path)


def test_a_tokenizer_without_its_vocabulary_is_refused(tmp_path):
    from transformers import AutoTokenizer

    folder = _saved(
        tmp_path / "bert",
        Family(type="bert", known="", settings={"vocab_size": 30522}),
        head="ForMaskedLM",
        tokenizer=AutoTokenizer.from_pretrained(location("minilm")[0]),
    )
    (folder / "tokenizer.json").unlink()
    assert len(AutoTokenizer.from_pretrained(folder)) == 5  # no error, no message
    with pytest.raises(
        BadInput, match=r"tokenizer BertTokenizer: vocabulary: expected words .*found 5 tokens.*tokenizer\.json"
    ):
        load(str(folder))


def test_a_tokenizer_that_does_not_fit_is_refused():
    from transformers import ByT5Tokenizer

    model, larger, nothing_to_pad = tiny_model(LLAMA), tiny_tokenizer(), tiny_tokenizer()
    larger.add_tokens([f"<extra_{number}>" for number in range(40)])
    with pytest.raises(BadInput, match=r"ids: expected at most 31: the model has embeddings for 32 tokens, found 52"):
        split(model, larger)
    with pytest.raises(
        BadInput, match=r"tokenizer ByT5Tokenizer: backend: expected one of the library tokenizers.*found none"
    ):
        split(model, ByT5Tokenizer())
    nothing_to_pad.pad_token = nothing_to_pad.eos_token = None
    with pytest.raises(BadInput, match="pad_token: expected a token to pad with, or eos_token, found neither"):
        split(model, nothing_to_pad)


def test_attention_that_is_not_sdpa_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"attention: expected .*\(sdpa\), found Gemma2Model, which has none"):
        load(str(_saved(tmp_path, Family(type="gemma2", known=""))))
    model = tiny_model(LLAMA)
    model.set_attn_implementation("eager")
    with pytest.raises(BadInput, match=r"attention: expected .*\(sdpa\), found LlamaModel, whose attention is eager"):
        split(model, tiny_tokenizer())


def test_more_places_than_positions_are_refused():
    model = split(tiny_model(LLAMA), tiny_tokenizer())
    with pytest.raises(
        BadInput, match="longest: expected at most 64 places, for which the model has positions, found 65"
    ):
        encode_texts(model, ["Clicked a film"], longest=65)
    with pytest.raises(BadInput, match="tokens: expected at most the 64 positions of the model, found 65"):
        model.low(torch.ones(1, 65, dtype=torch.int64), torch.ones(1, 65, dtype=torch.bool))
    with pytest.raises(BadInput, match="behaviours: expected at most the 63 positions of the model, found 64"):
        model.high(torch.zeros(1, 64, 32), torch.ones(1, 64, dtype=torch.bool))


@pytest.mark.parametrize(
    "family",
    [
        Family(type="mistral", known="", settings=SLIDING),
        Family(type="qwen3", known="", settings=SLIDING | {"use_sliding_window": True, "max_window_layers": 3}),
        *(family for family in language_families.FAMILIES if family.type in ("gemma3_text", "cohere2")),
    ],
    ids=lambda family: family.type,
)
def test_windows_are_kept_in_both_halves(family):
    """On texts longer than the window, with padding; halves that see everything are other models."""
    whole = tiny_model(family)
    model = split(whole, tiny_tokenizer(), low_layers=2)
    torch.manual_seed(3)
    ids, mask = torch.randint(4, 13, (3, 60)), torch.arange(60) < torch.tensor([[60], [40], [5]])
    with torch.no_grad():
        expected = whole(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        halves = model.high(model.low(ids, mask), mask, place=False)
        torch.testing.assert_close(halves[mask], expected[mask], atol=2e-5, rtol=1e-4)
        name = encoder_id(model, pooling="mean", longest=64)
        windows = [of.window for of in model.low.patterns]
        model.low.patterns = model.high.patterns = [LayerPattern(rotary=of.rotary) for of in model.low.patterns]
        assert not torch.allclose(model.high(model.low(ids, mask), mask, place=False)[mask], expected[mask], atol=1e-3)
    assert (encoder_id(model, pooling="mean", longest=64) != name) == any(windows), "other windows, other vectors"


def test_a_window_that_only_the_last_place_would_tell_is_learned():
    """As long as the positions less one."""
    model = split(tiny_model(Family(type="mistral", known="", settings={"sliding_window": 63})), tiny_tokenizer())
    assert {of.window for of in [*model.low.patterns, *model.high.patterns]} == {63}


def test_listening_leaves_the_model_as_it_was():
    whole = tiny_model(LLAMA)
    layers, before = list(whole.layers), copy.deepcopy(whole.state_dict())
    split(whole, tiny_tokenizer())
    assert all(one is other for one, other in zip(whole.layers, layers, strict=True))
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())


def test_adapters_go_beside_every_linear_map():
    high = with_lora(split(tiny_model(Family(type="phi3", known="")), tiny_tokenizer()).high, rank=2)
    adapted = {
        name.split(".lora_A")[0].rsplit(".")[-1] for name, parameter in high.named_parameters() if "lora_A" in name
    }
    assert adapted == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}


def test_the_table_of_families_is_current(capsys, monkeypatch, tmp_path):
    assert len({family.type for family in language_families.FAMILIES}) >= 25
    assert language_families.main(["--check"]) == 0, f"run {language_families.COMMAND}"
    page = tmp_path / "bahe.md"
    page.write_text(language_families.PAGE.read_text().replace("| `llama` |", "| `lama` |"))
    monkeypatch.setattr(language_families, "PAGE", page)
    monkeypatch.setattr(language_families, "table", lambda: "| made |")
    assert language_families.main(["--check"]) == 2
    assert language_families.main([]) == 0 == language_families.main(["--check"])
