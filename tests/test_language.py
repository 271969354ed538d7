"""Language models in halves, and BAHE on them; the small encoder that a package carries, and tiny decoders of random weights."""

import copy
from dataclasses import replace

import pytest
import torch

from contracts.errors import BadInput
from training.models.bahe import Bahe, FullTextCtr, TextBatch, VectorBatch
from training.models.language import encode_texts, encoder_id, load, padded, pool, split, with_lora

pytestmark = pytest.mark.slow  # importing the libraries of Hugging Face takes seconds

TEXTS = [
    "Clicked Toy Story (1995), Animation",
    "Liked Heat",
    "Clicked Heat",
    "Bought a long title of a film that nobody has seen, Drama",
]


@pytest.fixture(scope="module")
def minilm():
    return load("minilm")


def _tiny_decoder(family="Llama", **settings):
    """A decoder of random weights for MiniLM's tokenizer."""
    import transformers

    torch.manual_seed(1)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=30522,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="sdpa",
        **settings,
    )
    return getattr(transformers, f"{family}Model")(config).eval()


@pytest.fixture(params=["encoder", "Llama", "Qwen2", "Qwen3"])
def halves(request, minilm):
    """A split model, and the whole one."""
    if request.param != "encoder":
        whole = _tiny_decoder(request.param)
        return split(whole, copy.deepcopy(minilm.tokenizer), low_layers=1), whole
    from transformers import AutoModel

    from training.models.language_checkpoint import location

    return minilm, AutoModel.from_pretrained(location("minilm")[0], attn_implementation="sdpa").eval()


def _without_marks(tokenizer):
    """It puts no marks around texts, as those of many decoders."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B")
    return tokenizer


def test_both_halves_are_the_whole_model(halves):
    model, whole = halves
    ids, mask = padded([model.tokenizer(text)["input_ids"] for text in TEXTS], model.tokenizer.pad_token_id)
    with torch.no_grad():
        expected = whole(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        found = model.high.eval()(model.low.eval()(ids, mask), mask, place=False)
    torch.testing.assert_close(found[mask], expected[mask], atol=2e-5, rtol=1e-4)


def test_a_text_has_one_vector_whatever_it_is_encoded_with(halves):
    model, _ = halves
    together = encode_texts(model, TEXTS).vectors
    alone = torch.cat([encode_texts(model, [text]).vectors for text in TEXTS])
    small = encode_texts(model, TEXTS[::-1], tokens_at_once=10).vectors.flip(0)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together, small, atol=1e-5, rtol=1e-5)
    assert (torch.pdist(together) > 1e-2).all(), "other texts, other vectors"


def test_strange_texts_are_read_as_far_as_they_go(minilm):
    found = encode_texts(minilm, ["", "x " * 50_000, b"caf\xe9 \xff".decode(errors="replace")])
    assert found.cut_cnt == 1 and torch.isfinite(found.vectors).all()
    assert encode_texts(minilm, []).vectors.shape == (0, minilm.width)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_pooling_reads_what_is_there(pooling):
    hidden = torch.arange(24.0).view(3, 4, 2)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    expected = [hidden[0].mean(0), hidden[1, :2].mean(0)] if pooling == "mean" else [hidden[0, 3], hidden[1, 1]]
    torch.testing.assert_close(pool(hidden, mask, pooling), torch.stack([*expected, torch.zeros(2)]))


def test_an_encoder_is_named_by_all_that_a_vector_depends_on(minilm):
    names = {
        encoder_id(minilm, pooling="mean", longest=64),
        encoder_id(minilm, pooling="last", longest=64),
        encoder_id(minilm, pooling="mean", longest=32),
        encoder_id(load("minilm", low_layers=2), pooling="mean", longest=64),
    }
    changed = load("minilm")
    with torch.no_grad():
        changed.low.get_parameter("layers.0.output.dense.weight")[0, 0] += 1e-3
    names.add(encoder_id(changed, pooling="mean", longest=64))
    assert len(names) == 5
    assert encoder_id(load("minilm"), pooling="mean", longest=64) in names


def test_a_model_that_is_not_there_is_named(tmp_path):
    for source in (tmp_path / "nothing", tmp_path):
        with pytest.raises(BadInput, match="source: expected one of minilm, smollm2, a folder"):
            load(str(source))


def test_what_cannot_be_split_says_why(minilm):
    from transformers import DistilBertConfig, DistilBertModel

    other = DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, hidden_dim=16, n_layers=2, n_heads=2))
    with pytest.raises(
        BadInput, match=r"architecture: expected a decoder .* found DistilBertModel, which lacks layers, embed"
    ):
        split(other, minilm.tokenizer)
    with pytest.raises(
        BadInput, match=r"architecture: expected layers that take .* found Llama4TextModel, which hands layer 0 a mask"
    ):
        split(
            _tiny_decoder("Llama4Text", head_dim=8, attention_chunk_size=8, num_local_experts=2),
            copy.deepcopy(minilm.tokenizer),
        )
    with pytest.raises(
        BadInput, match=r"architecture: expected a model that is .* found GraniteModel, whose output differs by \d+%"
    ):
        split(
            _tiny_decoder("Granite", embedding_multiplier=12.0), copy.deepcopy(minilm.tokenizer)
        )  # outside embeddings and layers
    for low in (0, 6):
        with pytest.raises(BadInput, match=r"low_layers: expected 1 \.\. 5"):
            load("minilm", low_layers=low)


def _batch(width, *, rows=4, sequences=2, longest=5, seed=2):
    torch.manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (rows, sequences))
    return VectorBatch(
        behaviours=list(torch.randn(sequences, rows, longest, width)),
        candidate_BE=torch.randn(rows, width),
        masks=[torch.arange(longest) < of[:, None] for of in lengths.T],
        label_B=torch.tensor([0.0, 1.0] * (rows // 2)),
        of_B=torch.arange(rows),
        log_B=torch.zeros(rows, dtype=torch.int64),
    )


def test_sequences_of_a_user_do_not_see_each_other_nor_the_candidate(minilm):
    model = Bahe(split(_tiny_decoder(), minilm.tokenizer).high, 32, sequences=2).eval()
    batch = _batch(32)
    with torch.no_grad():
        both = model.aggregate(batch.behaviours, batch.masks)
        changed = model.aggregate([batch.behaviours[0], batch.behaviours[1] + 1.0], batch.masks)
        padding = [
            of.masked_fill(~mask[..., None], 9.0) for of, mask in zip(batch.behaviours, batch.masks, strict=True)
        ]
        torch.testing.assert_close(model.aggregate(padding, batch.masks), both)
    torch.testing.assert_close(changed[:, :32], both[:, :32])
    assert not torch.allclose(changed[:, 32:], both[:, 32:])


def test_the_order_of_behaviours_matters_and_that_of_rows_does_not(minilm):
    model = Bahe(split(_tiny_decoder(), minilm.tokenizer).high, 32, sequences=2).eval()
    batch, index = _batch(32), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        logits = model(batch)
        turned = model(
            VectorBatch(
                behaviours=[of[index] for of in batch.behaviours],
                masks=[mask[index] for mask in batch.masks],
                candidate_BE=batch.candidate_BE[index],
                label_B=batch.label_B[index],
                of_B=batch.of_B,
                log_B=batch.log_B,
            )
        )
        full = [torch.ones_like(mask) for mask in batch.masks]
        straight, turned_back = (
            model.aggregate(given, full) for given in (batch.behaviours, [of.flip(1) for of in batch.behaviours])
        )
        assert not torch.allclose(turned_back, straight, atol=1e-4)
    torch.testing.assert_close(turned, logits[index])


def test_behaviours_stand_behind_the_mark_that_begins_a_text(halves):
    """They are read as tokens are: the first mark at the first place, where layers look that find nothing to look at."""
    model, whole = halves
    hidden, mask = torch.randn(3, 4, model.width), torch.arange(4) < torch.tensor([[4], [2], [1]])
    if model.family == "encoder":
        marks, places = [101, 102], whole.embeddings.position_embeddings.weight[1:5]
    else:
        model.tokenizer.bos_token = "[unused7]"  # its encoder's marks would be put before every text
        model = split(whole, _without_marks(model.tokenizer), low_layers=1)
        marks, places = [8], torch.zeros(4, model.width)
    with torch.no_grad():
        first = model.low(torch.tensor([marks]), torch.ones(1, len(marks), dtype=torch.bool))[:, :1]
        behind = torch.cat([first.expand(3, -1, -1), hidden + places], dim=1)
        expected = model.high(behind, torch.cat([mask[:, :1], mask], dim=1), place=False)[:, 1:]
        found = model.high.eval()(hidden, mask)
    torch.testing.assert_close(found[mask], expected[mask])


def test_more_behaviours_than_positions_are_refused(minilm):
    with pytest.raises(BadInput, match="behaviours: expected at most the 511 positions of the model, found 512"):
        minilm.high(torch.zeros(1, 512, minilm.width), torch.ones(1, 512, dtype=torch.bool))


def test_vectors_are_read_as_standard_scores_and_none_as_none(minilm):
    model = Bahe(split(_tiny_decoder(), minilm.tokenizer).high, 32).eval()
    texts = 5 + torch.randn(200, 32) * torch.linspace(0.1, 3, 32)
    texts[:, 7] = 4.0  # carries no information, and must not become infinite
    batch = _batch(32, sequences=1)
    batch = replace(
        batch, behaviours=[texts[:20].view(4, 5, 32)], candidate_BE=torch.stack([*texts[20:23], torch.zeros(32)])
    )
    with torch.no_grad():
        as_given = model(batch)
        model.standardise(texts[:1])
        assert torch.equal(model(batch), as_given), "one text has no spread"
        model.standardise(texts)
        scores = model(batch)
    scaled = (texts - texts.mean(dim=0)) / texts.std(dim=0, correction=0).masked_fill(torch.arange(32) == 7, 1.0)
    by_hand = Bahe(model.high, 32).eval()
    by_hand.load_state_dict(
        {name: value for name, value in model.state_dict().items() if not name.endswith("_E")}, strict=False
    )
    with torch.no_grad():
        expected = by_hand(
            replace(
                batch,
                behaviours=[scaled[:20].view(4, 5, 32)],
                candidate_BE=torch.stack([*scaled[20:23], torch.zeros(32)]),
            )
        )
    torch.testing.assert_close(scores, expected)
    assert not torch.allclose(scores, as_given, atol=1e-3)
    kept = model.trained_weights()
    assert torch.equal(kept["mean_E"], texts.mean(dim=0)) and kept["deviation_E"].isfinite().all()


def test_adapters_alone_train_in_the_high_layers(minilm):
    language = split(_tiny_decoder(), minilm.tokenizer)
    model = Bahe(with_lora(language.high, rank=4), 32, sequences=2)
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    batch = _batch(32)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(30):
        loss = model.loss(model(batch), batch)["logloss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert losses[-1] < 0.5 * losses[0]
    assert changed and all("lora" in name or name.startswith("head.") for name in changed)
    assert any("lora" in name for name in changed)


def test_the_rival_reads_the_texts_themselves(halves):
    model, _ = halves
    with torch.no_grad():
        rival = FullTextCtr(model).eval()
        ids, mask = padded([model.tokenizer(text)["input_ids"] for text in TEXTS], model.tokenizer.pad_token_id)
        batch = TextBatch(
            token_ids_GT=ids,
            mask_GT=mask,
            candidate_ids_BT=ids[:1].expand(4, -1),
            candidate_mask_BT=mask[:1].expand(4, -1),
            label_B=torch.zeros(4),
            of_B=torch.arange(4),
            log_B=torch.zeros(4, dtype=torch.int64),
        )
        assert rival(batch).unique().numel() == 4
        longer = (
            torch.cat([ids, torch.full((4, 3), 7)], dim=1),
            torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], dim=1),
        )
        torch.testing.assert_close(rival.encode(*longer), rival.encode(ids, mask), atol=1e-4, rtol=1e-4)
