"""Scores one request of an exported A-CTR: JSON in, scores out, with torch only.

`python scorer.py < request.json` prints the scores as JSON; `--repeat N` prints milliseconds instead. The file lies
next to the `model.json`, `weights.pt` and `program.py` that it reads, and needs nothing else of Tributary. The
mathematics is in the program, which was made from the trained model; here a request is parsed, its ids become rows of
the program's tables, and its inputs are put together. The program reads the user's behaviours once, and computes what
depends on them only once for all candidates.

A request:

    {"request_ts": "2026-01-11T10:00:00Z",
     "context": {"user_id": 5, ...},
     "behaviours": [{"event_ts": "...", "item_id": 7, "category_id": 2, "action": 1, "dwell_seconds": 3.0, "log":
         "natural"}, ...],
     "candidates": [{"item_id": 9, ...}, ...]}

A feature or statistic is read from the candidate, else from the context; null is an unknown id. Behaviours are those
that the request may see, oldest first. `model.json` lists all names.

Shapes: C candidates, P behaviours, F features, S statistics (two for each pair of counts).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import torch
from torch import Tensor

SHARED_ROW = 0
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


class BadRequest(ValueError):
    """A request that cannot be scored; the message names the field, what was expected and what was found."""

    def __init__(self, field: str, expected: str, found: object) -> None:
        super().__init__(f"{field}: expected {expected}, found {found!r}")


class Scorer:
    """An exported model.

    Args:
        folder: where `model.json`, `weights.pt` and `program.py` lie.
    """

    def __init__(self, folder: Path) -> None:
        self.model: dict[str, Any] = json.loads((folder / "model.json").read_text())
        saved: dict[str, Tensor] = torch.load(folder / "weights.pt", weights_only=True)
        self._rows = {
            name.removeprefix("ids."): {value: row for row, value in enumerate(ids.tolist(), SHARED_ROW + 1)}
            for name, ids in saved.items()
            if name.startswith("ids.")
        }
        self._weights = [tensor for name, tensor in saved.items() if not name.startswith("ids.")]
        self._zone = ZoneInfo(self.model["day_timezone"])
        self._run = program_of(folder / "program.py")

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
        given = self._of_candidates(values) | self._of_user(behaviours, times, now)
        scores: list[float] = (
            self._run(*self._weights, *(given[name] for name in self.model["inputs"]))[0].double().tolist()
        )
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
        times = [
            _microseconds(_time(f"behaviours[{place}].event_ts", of["event_ts"])) for place, of in enumerate(behaviours)
        ]
        if times != sorted(times) or (times and times[-1] > _microseconds(now)):
            raise BadRequest(
                "behaviours.event_ts", "ascending times, none after request_ts", behaviours[-1]["event_ts"]
            )
        return now, behaviours, times

    def _id(self, value: Mapping[str, Any], name: str) -> int:
        if name not in value:
            raise BadRequest(name, "a value in the candidate or the context (null: unknown)", "none")
        found = value[name]
        if type(found) is int:  # which true and false are not
            return found
        if found is not None:
            raise BadRequest(name, "a whole number or null", found)
        return -1

    def _count(self, value: Mapping[str, Any], name: str) -> int:
        found = self._id(value, name)
        if found < 0 and value[name] is not None:
            raise BadRequest(name, "a count >= 0, or null for none", found)
        return max(found, 0)

    def _of_candidates(self, values: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        found = {
            "rows": _whole(
                [[self._row(name, self._id(value, name)) for name in self.model["features"]] for value in values]
            ),
            "dense": self._dense(values),
        }
        for vectors in ("transferred", "texts"):
            found[vectors] = _whole(
                [
                    [self._row(f"{vectors}.{entity}", self._id(value, column)) for value in values]
                    if column
                    else [0] * len(values)
                    for entity, column in self.model[vectors].items()
                ]
            )
        sequence = self.model["sequence"]
        if sequence:
            found["sequence_candidates"] = _whole(
                [
                    [self._row(f"encoder.{name}", self._id(value, name)) for value in values]
                    for name in sequence["item_fields"]
                ]
            )
        return found

    def _of_user(
        self, behaviours: Sequence[Mapping[str, Any]], times: Sequence[int], now: datetime
    ) -> dict[str, Tensor]:
        found = {}
        for which, window in self.model["histories"].items():
            recent = [behaviours[place] for place in _recent(times, now, window)]
            found[which] = _whole(
                [[self._row(name, behaviour[name]) for behaviour in recent] for name in self.model["history_features"]]
            )
        sequence = self.model["sequence"]
        if sequence:
            seen = _recent(times, now, sequence)
            found["sequence"] = _whole(
                [[self._code(name, place, behaviours, times) for place in seen] for name in sequence["fields"]]
            )
        return found

    def _row(self, name: str, of: int) -> int:
        return self._rows[name].get(of, SHARED_ROW)

    def _dense(self, values: Sequence[Mapping[str, Any]]) -> Tensor:
        """Statistics as the model reads them, C x S (`training/data/batches.py`)."""
        clicks_prior, impressions_prior = self.model["rate_prior"]
        names = [name for pair in self.model["statistics"] for name in pair]
        if not names:
            return torch.zeros(len(values), 0)
        counts = torch.tensor([[self._count(value, name) for name in names] for value in values], dtype=torch.float64)
        shown, clicked = counts[:, ::2], counts[:, 1::2]
        logs, rates = (
            torch.log1p(shown) / self.model["log_count_scale"],
            (clicked + clicks_prior) / (shown + impressions_prior),
        )
        return torch.stack([logs, rates], dim=2).flatten(1).float()

    def _code(self, name: str, place: int, behaviours: Sequence[Mapping[str, Any]], times: Sequence[int]) -> int:
        """Row or code of a field of the sequence encoder (`training/data/codes.py`)."""
        sequence, behaviour = self.model["sequence"], behaviours[place]
        if name in sequence["item_fields"]:
            return self._row(f"encoder.{name}", behaviour[name])
        if name == "action":
            return int(behaviour["action"])
        if name == "dwell":
            return bisect_right(sequence["dwell_buckets"], behaviour["dwell_seconds"] or 0.0)
        if name == "gap":
            seconds = (times[place] - times[place - 1]) // 1_000_000
            return 0 if place == 0 else 1 + bisect_right(sequence["gap_buckets"], seconds)
        if name == "hour":
            return (_EPOCH + times[place] * _MICROSECOND).astimezone(self._zone).hour
        assert name == "log", name
        found: int = sequence["logs"].index(behaviour["log"])
        return found


def program_of(path: Path) -> Callable[..., tuple[Tensor, ...]]:
    """The function that a program's file defines: of its weights, then its inputs."""
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    forward: Callable[..., tuple[Tensor, ...]] = module.forward
    return forward


def _whole(values: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


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
    return [place for place, at in enumerate(times) if at >= since][-window["length"] :]


def main() -> int:
    """Reads a request from standard input, prints its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--repeat", type=int, default=0, metavar="N", help="print the median milliseconds of N scorings instead"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scorer, request = Scorer(Path(__file__).resolve().parent), json.load(sys.stdin)
    try:
        scores = scorer.score(request)
    except BadRequest as error:
        print(error, file=sys.stderr)
        return 2
    print(
        json.dumps(
            {"milliseconds": milliseconds(scorer, request, options.repeat), "candidates": len(scores)}
            if options.repeat
            else {"release": scorer.model["release"], "scores": scores}
        )
    )
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
