"""Proposed settings for a log, from a sample of a team's own rows: guesses that a person reads before they are used."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from contracts.features import Log
from contracts.masking import mask, printable
from contracts.tables import LANDING_COLUMNS, LANDING_ID_COLUMNS, OPTIONAL_LANDING_COLUMNS, table
from sources.sample import Sample, is_time

EXAMPLES = 3
FEW_VALUES = 8  # a column of at most so many different values is shown as it is: flags and kinds name nobody
# Spark's function that makes a time of a number since 1970, by the least number that is read so: from 2001 on.
EPOCHS = (
    (1e18, "timestamp_micros({} div 1000)", "nanoseconds"),
    (1e15, "timestamp_micros({})", "microseconds"),
    (1e12, "timestamp_millis({})", "milliseconds"),
    (1e9, "timestamp_seconds({})", "seconds"),
)
_TOO_LARGE = 4  # times the least number: the year 2096
# Words in names of columns, the likeliest first, by the landing column that they may be.
WORDS: dict[str, tuple[str, ...]] = {
    "event_id": ("event_id", "impression", "exposure_id", "view_id", "view", "log_id", "id"),
    "event_ts": ("event_ts", "event_time", "time_ms", "timestamp", "time", "ts", "date"),
    "request_id": ("request", "session", "search_id", "page_view", "query_id", "trace"),
    "user_id": ("user_id", "uid", "user", "customer", "visitor", "member", "device"),
    "item_id": ("item_id", "item", "video_id", "video", "product", "sku", "article", "content", "movie", "ad_id", "creative"),
    "category_id": ("category", "cate", "genre", "department", "topic", "tag"),
    "user_segment_id": ("segment", "age_level", "age", "group", "club", "tier", "gender"),
    "position": ("position", "slot", "rank", "pos"),
    "click": ("click", "clicked", "is_click", "clk", "opened"),
    "dwell_seconds": ("dwell", "play_time", "watch", "duration", "seconds", "stay"),
    "item_text": ("item_text", "title", "headline", "caption", "name", "text"),
    "campaign_id": ("campaign", "adgroup"),
    "advertiser_id": ("advertiser", "customer_id", "brand", "shop", "seller", "author"),
    "arrival_ts": ("arrival_ts", "ingest_time", "received", "arrived"),
}  # fmt: skip
_ACTION = "action"
UNKNOWN_AS_0 = ("category_id", "user_segment_id", "position", "dwell_seconds", "campaign_id", "advertiser_id")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a column of a sample holds.

    Attributes:
        name: its name.
        type: its type, as the file says; of text what all of it can be read as.
        nulls: share of the rows without a value.
        distinct: how many different values there are.
        examples: a few values: their shape only, unless there are few different ones.
        may_be: what it may be used for, with the unit of a time.
    """

    name: str
    type: str
    nulls: float
    distinct: int
    examples: tuple[str, ...]
    may_be: tuple[str, ...]


def profiles_of(sample: Sample) -> list[Profile]:
    """Looks at every column of a sample."""
    return [_profile(name, sample) for name in sample.columns]


def _profile(name: str, sample: Sample) -> Profile:
    values = [row.get(name) for row in sample.rows]
    known = [value for value in values if value is not None]
    texts = list(dict.fromkeys(map(str, known)))
    shown = texts if len(texts) <= FEW_VALUES else [mask(text) for text in texts]
    return Profile(
        name=name,
        type=_type(sample.types.get(name, "text"), known),
        nulls=1 - len(known) / len(values) if values else 0.0,
        distinct=len(texts),
        examples=tuple(printable(text, 24) for text in dict.fromkeys(shown[:EXAMPLES])),
        may_be=tuple(_may_be(name, known)),
    )


def _type(declared: str, known: Sequence[Any]) -> str:
    if declared not in ("text", "string", "folder"):
        return declared
    texts = [str(value).strip() for value in known]
    for kind, is_one in (
        ("integers", re.compile(r"[-+]?\d+").fullmatch),
        ("numbers", re.compile(r"[-+]?\d*\.?\d+([eE][-+]?\d+)?").fullmatch),
        ("times", is_time),
    ):
        if texts and all(map(is_one, texts)):
            return f"{declared}: {kind}"
    return declared


def _may_be(name: str, known: Sequence[Any]) -> list[str]:
    found = []
    unit = time_unit(known)
    if unit is not None:
        found.append(f"event_ts ({unit})")
    if is_flag(known):
        found.append("click")
    found += [
        column
        for column in WORDS
        if column not in ("event_ts", "click", "arrival_ts") and _rank(column, name) is not None
    ]
    return found


def time_unit(known: Sequence[Any]) -> str | None:
    """What unit the values have if they are times since 2001: `seconds` .. `nanoseconds` since 1970, or `text`, or `time`."""
    if known and all(isinstance(value, datetime) for value in known):
        return "time"
    if known and all(map(is_time, known)):
        return "text"
    numbers = [_number(value) for value in known]
    whole = [number for number in numbers if number is not None and number == int(number)]
    if not whole or len(whole) < len(numbers):
        return None
    for least, _, unit in EPOCHS:
        if least <= min(whole) and max(whole) < least * _TOO_LARGE:
            return unit
    return None


def is_flag(known: Sequence[Any]) -> bool:
    """Whether values are 0 and 1, or true and false."""
    return bool(known) and {str(value).lower() for value in known} <= {"0", "1", "0.0", "1.0", "true", "false"}


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None  # a hash such as 12e4567 is none


def _rank(column: str, name: str) -> tuple[int, int] | None:
    """How likely a name means a landing column: the smaller, the likelier; None if it does not."""
    plain = name.lower().rpartition(".")[2]
    whole = name.lower().replace(".", "_")
    parts = set(re.split(r"[_\W]+", whole))
    for place, word in enumerate(WORDS.get(column, ())):
        if word in (plain, whole):
            return (0, place)
        if word in parts or ("_" in word and word in whole):
            return (1, place)
    return None


def guesses(sample: Sample, log: Log) -> dict[str, str]:
    """An SQL expression for each landing column that a column of the sample may be; every column serves once.

    Args:
        sample: the sample.
        log: natural or ad.
    """
    values = {name: [row[name] for row in sample.rows if row.get(name) is not None] for name in sample.columns}
    fits: dict[str, Callable[[Sequence[Any]], bool]] = {  # what values must look like; of others names decide
        "event_id": lambda known: len(set(map(str, known))) == len(known) == len(sample.rows),
        **dict.fromkeys(("user_id", "item_id", "request_id"), _tells_apart),
        "event_ts": lambda known: time_unit(known) is not None,
        "arrival_ts": lambda known: time_unit(known) is not None,
        "click": is_flag,
        "position": _are_numbers,
        "dwell_seconds": _are_numbers,
    }
    ranked = sorted(  # of columns whose names say as much, the one of most values
        (rank, column, -len(set(map(str, values[name]))), name)
        for column in LANDING_COLUMNS[log]
        for name in values
        if (rank := _rank(column, name)) is not None
        and (column not in fits or fits[column](values[name]))
        and "list" not in sample.types.get(name, "")
    )
    found: dict[str, str] = {}
    used: set[str] = set()
    for _, column, _, name in ranked:
        if column not in found and name not in used:
            found[column] = name
            used.add(name)
    return {
        column: _expression(column, found[column], values[found[column]])
        for column in LANDING_COLUMNS[log]
        if column in found
    }


def _tells_apart(known: Sequence[Any]) -> bool:
    """Whether values may be the ids of several entities: neither all the same nor flags."""
    return len(set(map(str, known))) > 1 and not is_flag(known)


def _are_numbers(known: Sequence[Any]) -> bool:
    return all(_number(value) is not None for value in known)


def _expression(column: str, name: str, known: Sequence[Any]) -> str:
    quoted = ".".join(part if re.fullmatch(r"[A-Za-z_]\w*", part) else f"`{part}`" for part in name.split("."))
    if column == "click" and {str(value).lower() for value in known} & {"true", "false"}:
        return f"cast(try_cast({quoted} AS boolean) AS int)"
    if column == "dwell_seconds" and re.search(r"ms$|milli", name.lower()):
        return f"try_cast({quoted} AS double) / 1000"
    if column not in ("event_ts", "arrival_ts"):
        return quoted
    unit = time_unit(known)
    made = {unit_: text for _, text, unit_ in EPOCHS}.get(unit or "")
    if made is None:
        return quoted
    is_text = any(isinstance(value, str) for value in known)
    return made.format(f"try_cast({quoted} AS bigint)" if is_text else quoted)


def made_ids(columns: Mapping[str, str]) -> dict[str, str]:
    """Ids that were not found, made of the user, the item and the time: a user sees an item at most once at a time."""
    user, item, time = (columns.get(name) for name in ("user_id", "item_id", "event_ts"))
    made = {}
    if user and item and time and "event_id" not in columns:
        made["event_id"] = f"concat_ws('_', {user}, {item}, {_own_column(time)})"
    if user and time and "request_id" not in columns:
        made["request_id"] = f"concat_ws('_', {user}, {_own_column(time)})"
    return made


def _own_column(expression: str) -> str:
    """The column of which an expression of a time is made."""
    found = re.search(r"try_cast\((.+) AS bigint\)", expression) or re.search(r"^\w+\((.+?)( div 1000)?\)$", expression)
    return found[1] if found else expression


def string_ids(sample: Sample, columns: Mapping[str, str]) -> list[str]:
    """Landing columns of ids that are made of others, or for which the sample holds other things than whole numbers."""
    found = []
    for column in (name for name in LANDING_ID_COLUMNS if name in columns):
        values = [row.get(columns[column].replace("`", "")) for row in sample.rows]
        if columns[column].startswith("concat_ws(") or any(
            value is not None and not re.fullmatch(r"\d{1,19}", str(value)) for value in values
        ):
            found.append(column)
    return found


def days_of(sample: Sample, columns: Mapping[str, str]) -> list[date]:
    """The first and the last day that are known: those of the paths or the table, else those of the sample's times, in UTC."""
    if sample.days or "event_ts" not in columns:
        return list(sample.days)
    name = _own_column(columns["event_ts"]).replace("`", "")
    known = [row[name] for row in sample.rows if row.get(name) is not None]
    least = {unit: least for least, _, unit in EPOCHS}.get(time_unit(known) or "")
    if least is None:
        days = {datetime.fromisoformat(value).date() if isinstance(value, str) else value.date() for value in known}
    else:  # EPOCHS are steps of a thousand, and seconds have 1e9
        days = {datetime.fromtimestamp(float(value) / (least / 1e9), UTC).date() for value in known}
    return [min(days), max(days)]


def settings_text(sample: Sample, log: Log) -> str:
    """A commented `deployment.toml` for one log; what could not be guessed is said in a comment."""
    import tomli_w

    columns = guesses(sample, log)
    made = made_ids(columns)
    columns |= made
    strings = string_ids(sample, columns)
    days = days_of(sample, columns) or [date.today()]
    lines = [
        f"# Proposed by `tributary sources look` from {len(sample.rows):,} rows of {sample.looked_at}.",
        "# Guesses: read every line. What the settings mean: docs/your_own_logs.md.",
        "",
        f"history_start = {days[0]}",
        f"actr_start = {days[-1]}  # the first day on which the ad model is trained",
        'day_timezone = "UTC"  # whose midnight begins a day',
    ]
    if strings:
        lines.append(f"string_ids = [{', '.join(json.dumps(name) for name in strings)}]")
    lines += ["", f"[landing.{log}]", tomli_w.dumps(dict(sample.place)).strip()]
    if "path" in sample.place and not sample.days:
        lines.append(f"day = {json.dumps(_day(columns))}  # the path names no day: this gives that of each row")
    lines += ["", f"[landing.{log}.columns]"]
    contract = table(f"{log}_log")
    for name in LANDING_COLUMNS[log]:
        meaning = contract.column(name).meaning
        if name in columns and columns[name] != name:
            note = "made of other columns: " if name in made else ""
            lines.append(f"{tomli_w.dumps({name: columns[name]}).strip()}  # {note}{meaning}")
        elif name in columns:
            lines.append(f"# {name}: your column of that name  # {meaning}")
        elif name in OPTIONAL_LANDING_COLUMNS:
            lines.append(f"# {name} = ...  # optional: {meaning}")
        elif name == _ACTION:
            lines.append(f'{name} = "{_action(columns)}"  # {meaning}')
        elif name in UNKNOWN_AS_0:
            lines.append(f'{name} = "0"  # not found: 0 is unknown. {meaning}')
        else:
            lines.append(f'{name} = "NULL"  # NOT FOUND, required: {meaning}')
    return "\n".join(lines) + "\n"


def _day(columns: Mapping[str, str]) -> str:
    time = columns.get("event_ts")
    if time is None:
        return "NULL"
    return f"to_date({time})" if time.startswith("timestamp_") else f"to_date(try_to_timestamp({time}))"


def _action(columns: Mapping[str, str]) -> str:
    click = columns.get("click")
    return "0" if click is None else f"CASE WHEN try_cast({click} AS int) = 1 THEN 1 ELSE 0 END"
