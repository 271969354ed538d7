"""Scores one request of an exported A-CTR: JSON in, scores out, with torch alone.

`python scorer.py < request.json` prints the scores as JSON; `--repeat N` prints milliseconds instead. The file lies beside the
`model.json` and `weights.pt` that it reads, and needs nothing else of Tributary. What depends on the user alone (the encoded sequence,
the keys and values, the queries, the behaviours' part of the attention) is computed once for all candidates of the request.

A request:

    {"request_ts": "2026-01-11T10:00:00Z",
     "context": {"user_id": 5, ...},
     "behaviours": [{"event_ts": "...", "item_id": 7, "category_id": 2, "action": 1, "dwell_seconds": 3.0, "log": "natural"}, ...],
     "candidates": [{"item_id": 9, ...}, ...]}

A feature or statistic is read from the candidate, else from the context; null is an unknown id. Behaviours are those that the request
may see, oldest first. `model.json` lists all names.

Shapes: C candidates, P behaviours, E width, H hidden width, F heads.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import torch
from torch import Tensor
from torch.nn import functional

SHARED_ROW = 0
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


class BadRequest(ValueError):
    """A request that cannot be scored; the message names the field, what was expected and what was found."""

    def __init__(self, field: str, expected: str, found: object) -> None:
        super().__init__(f"{field}: expected {expected}, found {found!r}")


class Scorer:
    """An exported model.

    Args:
        folder: where `model.json` and `weights.pt` lie.
    """

    def __init__(self, folder: Path) -> None:
        self.model: dict[str, Any] = json.loads((folder / "model.json").read_text())
        self._weights: dict[str, Tensor] = torch.load(folder / "weights.pt", weights_only=True)
        self._rows = {name.removeprefix("ids."): {int(value): row for row, value in enumerate(ids.tolist(), SHARED_ROW + 1)}
                      for name, ids in self._weights.items() if name.startswith("ids.")}
        self._zone = ZoneInfo(self.model["day_timezone"])

    @torch.inference_mode()
    def score(self, request: Mapping[str, Any]) -> list[float]:
        """Click probability of each candidate, in their order.

        Raises:
            BadRequest: a field is missing or has a value that cannot be read.
        """
        now, behaviours, times = self._read(request)
        candidates = request["candidates"]
        if not candidates:
            return []
        values = [{**request.get("context", {}), **candidate} for candidate in candidates]
        for value in values:
            value.setdefault("hour", now.astimezone(self._zone).hour)
        own = {name: self._embed(name, [self._id(value, name) for value in values]) for name in self.model["features"]}
        query_CE = torch.cat([own[name] for name in self.model["history_features"]], dim=1)
        interests = []
        for which, window in self.model["histories"].items():
            recent = [behaviours[place] for place in _recent(times, now, window)]
            interests.append(self._attention(f"{which}_attention", query_CE, recent))
        x_CD = torch.cat([*own.values(), self._dense(values), *interests, self._transferred(values)], dim=1)
        crossed_CD = x_CD
        for layer in range(self.model["cross_layers"]):
            crossed_CD = x_CD * self._linear(f"cross.layers.{layer}", crossed_CD) + crossed_CD
        hidden = self._linear("mlp.0", crossed_CD)
        if self.model["bridge"]:
            hidden = hidden + self._bridged(values, behaviours, times, now)
        if self.model["texts"]:
            hidden = hidden + self._linear("texts_in", self._text_vectors(values))
        for block in range(self.model["hidden_layers"]):
            if block:
                hidden = self._linear(f"mlp.{3 * block}", hidden)
            norm, slope = f"mlp.{3 * block + 1}", self._weights[f"mlp.{3 * block + 2}.weight"]
            mean, variance, gain, bias = (self._weights[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
            hidden = functional.batch_norm(hidden, mean, variance, gain, bias, eps=self.model["batch_norm_epsilon"])
            hidden = functional.prelu(hidden, slope)
        logits_C1 = self._linear(f"mlp.{3 * self.model['hidden_layers']}", hidden)
        scores: list[float] = torch.sigmoid(logits_C1).squeeze(1).double().tolist()
        return scores

    def _read(self, request: Mapping[str, Any]) -> tuple[datetime, Sequence[Mapping[str, Any]], list[int]]:
        for name, kind in (("candidates", list), ("behaviours", list), ("request_ts", str)):
            if not isinstance(request.get(name), kind):
                raise BadRequest(name, f"a {kind.__name__}", request.get(name))
        now = _time("request_ts", request["request_ts"])
        behaviours = request["behaviours"]
        for place, behaviour in enumerate(behaviours):
            for name in self.model["behaviour_columns"]:
                if name not in behaviour:
                    raise BadRequest(f"behaviours[{place}].{name}", "a value", None)
        times = [_microseconds(_time(f"behaviours[{place}].event_ts", of["event_ts"])) for place, of in enumerate(behaviours)]
        if times != sorted(times) or (times and times[-1] > _microseconds(now)):
            raise BadRequest("behaviours.event_ts", "ascending times, none after request_ts", behaviours[-1]["event_ts"])
        return now, behaviours, times

    def _id(self, value: Mapping[str, Any], name: str) -> int:
        if name not in value:
            raise BadRequest(name, "a value in the candidate or the context (null: unknown)", "none")
        found = value[name]
        if found is not None and (isinstance(found, bool) or not isinstance(found, int)):
            raise BadRequest(name, "a whole number or null", found)
        return -1 if found is None else found

    def _count(self, value: Mapping[str, Any], name: str) -> int:
        found = 0 if name in value and value[name] is None else self._id(value, name)
        if found < 0:
            raise BadRequest(name, "a count >= 0, or null for none", found)
        return found

    def _embed(self, name: str, ids: Sequence[int], prefix: str = "") -> Tensor:
        rows = self._rows[prefix + name]
        at = torch.tensor([rows.get(one, SHARED_ROW) for one in ids], dtype=torch.int64)
        return self._weights[f"{prefix}embeddings.{name}.weight"][at]

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias"))

    def _attention(self, name: str, query_CE: Tensor, behaviours: Sequence[Mapping[str, Any]]) -> Tensor:
        """DIN's, C x E (`training/modules/attention.py`)."""
        if not behaviours:
            return torch.zeros_like(query_CE)
        keys_PE = torch.cat([self._embed(of, [b[of] for b in behaviours]) for of in self.model["history_features"]], dim=1)
        products_CPE = query_CE[:, None, :] * keys_PE[None]
        hidden = functional.relu(self._linear(f"{name}.query", query_CE)[:, None, :] + self._linear(f"{name}.key", keys_PE)[None]
                                 + self._linear(f"{name}.product", products_CPE))
        for layer in range(self.model["attention_layers"] - 1):
            hidden = functional.relu(self._linear(f"{name}.deeper.{layer}", hidden))
        weights_CP = self._linear(f"{name}.score", hidden).squeeze(2)
        return weights_CP @ keys_PE

    def _dense(self, values: Sequence[Mapping[str, Any]]) -> Tensor:
        """Statistics as the model reads them (`training/data/batches.py`)."""
        clicks_prior, impressions_prior = self.model["rate_prior"]
        columns = []
        for impressions, clicks in self.model["statistics"]:
            shown, clicked = (torch.tensor([self._count(value, name) for value in values], dtype=torch.float64)
                              for name in (impressions, clicks))
            columns += [torch.log1p(shown) / self.model["log_count_scale"], (clicked + clicks_prior) / (shown + impressions_prior)]
        return torch.stack(columns, dim=1).float() if columns else torch.zeros(len(values), 0)

    def _transferred(self, values: Sequence[Mapping[str, Any]]) -> Tensor:
        """Merged vectors of user and item, and flags of those that have none; zeros without transfer."""
        if not self.model["transferred"]:
            return torch.zeros(len(values), self.model["transfer_width"])
        vectors, flags = [], []
        for entity, column in self.model["transferred"].items():
            rows = self._rows[f"transfer.{entity}"]
            at = torch.tensor([rows.get(self._id(value, column), SHARED_ROW) for value in values], dtype=torch.int64)
            vectors.append(self._weights[f"transfer.{entity}"][at])
            flags.append((at == SHARED_ROW).float()[:, None])
        return torch.cat([*vectors, *flags], dim=1)

    def _text_vectors(self, values: Sequence[Mapping[str, Any]]) -> Tensor:
        """BAHE's vectors of user and item, their product, and flags of those that have none."""
        vectors, flags = [], []
        for entity, column in self.model["texts"].items():
            rows = self._rows[f"texts.{entity}"]
            at = torch.tensor([rows.get(self._id(value, column), 0) for value in values])
            vectors.append(self._weights[f"texts.{entity}"][at])
            flags.append((at == 0).float()[:, None])
        return torch.cat([*vectors, vectors[0] * vectors[1], *flags], dim=1)

    def _bridged(self, values: Sequence[Mapping[str, Any]], behaviours: Sequence[Mapping[str, Any]], times: Sequence[int],
                 now: datetime) -> Tensor:
        """What SRP4CTR's bridges add to the first layer, C x H (`training/models/srp4ctr.py`)."""
        bridge = self.model["bridge"]
        codes = self._codes(behaviours, times)
        seen = _recent(times, now, bridge)
        keys_and_values, output_PE = self._encode({name: [column[place] for place in seen] for name, column in codes.items()})
        hidden_CE = self._normal("encoder.norm", self._linear("encoder.project.item", torch.cat(
            [self._embed(name, [self._id(value, name) for value in values], "encoder.") for name in bridge["item_fields"]], dim=1)))
        for layer, (key, value) in enumerate(keys_and_values):
            hidden_CE = self._cross_layer(f"bridge.cross.layers.{layer}", hidden_CE, key, value)
        return self._linear("bridge_in.0", hidden_CE) + self._linear("bridge_in.1", self._queried(output_PE))

    def _codes(self, behaviours: Sequence[Mapping[str, Any]], times: Sequence[int]) -> dict[str, list[int]]:
        """Rows and codes of the encoder's fields (`training/data/codes.py`)."""
        bridge = self.model["bridge"]
        found: dict[str, list[int]] = {}
        for name in bridge["item_fields"]:
            found[name] = [self._rows[f"encoder.{name}"].get(b[name], SHARED_ROW) for b in behaviours]
        made = {
            "action": lambda place, b: b["action"],
            "dwell": lambda place, b: bisect_right(bridge["dwell_buckets"], b["dwell_seconds"] or 0.0),
            "gap": lambda place, b: 0 if place == 0 else 1 + bisect_right(
                bridge["gap_buckets"], (times[place] - times[place - 1]) // 1_000_000),
            "hour": lambda place, b: (_EPOCH + times[place] * _MICROSECOND).astimezone(self._zone).hour,
            "log": lambda place, b: bridge["logs"].index(b["log"]),
        }
        for name in bridge["behaviour_fields"]:
            found[name] = [made[name](place, b) for place, b in enumerate(behaviours)]
        return found

    def _encode(self, codes: Mapping[str, Sequence[int]]) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Keys and values of each layer (F x P x width of a head), and the last layer's output (P x E)."""
        bridge = self.model["bridge"]
        count = len(next(iter(codes.values())))
        hidden_PE = self._weights["encoder.positions.weight"][torch.arange(count - 1, -1, -1)]
        for side, names in (("item", bridge["item_fields"]), ("behaviour", bridge["behaviour_fields"])):
            if names:
                parts = [self._weights[f"encoder.embeddings.{name}.weight"][torch.tensor(codes[name], dtype=torch.int64)] for name in names]
                hidden_PE = hidden_PE + self._linear(f"encoder.project.{side}", torch.cat(parts, dim=1))
        hidden_PE, found = self._normal("encoder.norm", hidden_PE), []
        for layer in range(bridge["layers"]):
            name = f"encoder.layers.{layer}"
            key, value = (self._heads(self._linear(f"{name}.{part}", hidden_PE)) for part in ("key", "value"))
            found.append((key, value))
            hidden_PE = self._cross_layer(name, hidden_PE, key, value, causal=bridge["causal"])
        return found, hidden_PE

    def _queried(self, output_PE: Tensor) -> Tensor:
        """1 x (K x E) of the querying transformer, or 1 x E: the mean."""
        if not self.model["bridge"]["queries"]:
            return output_PE.mean(dim=0, keepdim=True) if len(output_PE) else output_PE.new_zeros(1, output_PE.shape[1])
        name = "bridge.querying"
        queries_KE = self._weights[f"{name}.queries"]
        query, key, value = (self._heads(part) for part in self._linear(f"{name}.project", queries_KE).chunk(3, dim=1))
        queries_KE = self._normal(f"{name}.norm", queries_KE + self._linear(f"{name}.out", _attend(query, key, value)))
        key, value = (self._heads(self._linear(f"{name}.{part}", output_PE)) for part in ("key", "value"))
        return self._cross_layer(f"{name}.cross", queries_KE, key, value).reshape(1, -1) / len(queries_KE)**0.5

    def _cross_layer(self, name: str, x_CE: Tensor, key: Tensor, value: Tensor, *, causal: bool = False) -> Tensor:
        """Attention, then the FFN; without keys the FFN alone (`training/modules/transformer.py`)."""
        attended_CE = torch.zeros_like(x_CE)
        if key.shape[1]:
            attended_CE = self._linear(f"{name}.out", _attend(self._heads(self._linear(f"{name}.query", x_CE)), key, value, causal=causal))
        x_CE = self._normal(f"{name}.norm", x_CE + attended_CE)
        inner = functional.gelu(self._linear(f"{name}.feed_forward.inner", x_CE))
        return self._normal(f"{name}.feed_forward.norm", x_CE + self._linear(f"{name}.feed_forward.outer", inner))

    def _normal(self, name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _heads(self, x_PE: Tensor) -> Tensor:
        heads = self.model["bridge"]["heads"]
        return x_PE.view(len(x_PE), heads, x_PE.shape[1] // heads).transpose(0, 1)


def _attend(query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False) -> Tensor:
    """F x C x width, F x P x width -> C x E."""
    found = functional.scaled_dot_product_attention(query[None], key[None], value[None], is_causal=causal)[0]
    return found.transpose(0, 1).flatten(1)


def _time(field: str, text: object) -> datetime:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        raise BadRequest(field, "a time of ISO 8601", text) from None
    if found.tzinfo is None:
        raise BadRequest(field, "a time with its offset to UTC, or Z", text)
    return found


def _microseconds(of: datetime) -> int:
    return (of - _EPOCH) // _MICROSECOND


def _recent(times: Sequence[int], now: datetime, window: Mapping[str, int]) -> list[int]:
    """Places of the last behaviours of a window."""
    since = _microseconds(now) - window["seconds"] * 1_000_000
    return [place for place, at in enumerate(times) if at >= since][-window["length"]:]


def main() -> int:
    """Reads a request from standard input, prints its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=0, metavar="N", help="print the median milliseconds of N scorings instead")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scorer, request = Scorer(Path(__file__).resolve().parent), json.load(sys.stdin)
    try:
        scores = scorer.score(request)
    except BadRequest as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"milliseconds": milliseconds(scorer, request, options.repeat), "candidates": len(scores)} if options.repeat else
                     {"release": scorer.model["release"], "scores": scores}))
    return 0


def milliseconds(scorer: Scorer, request: Mapping[str, Any], repeat: int) -> float:
    """Median of some scorings of a request."""
    seconds = []
    for _ in range(repeat):
        began = time.perf_counter()
        scorer.score(request)
        seconds.append(time.perf_counter() - began)
    return round(sorted(seconds)[len(seconds) // 2] * 1000, 3)


if __name__ == "__main__":
    sys.exit(main())
