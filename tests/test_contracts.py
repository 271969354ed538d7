"""Settings, tables, features and releases as contracts."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.commands import table_text
from contracts.errors import EXIT_NOT_YET, BadInput, NotYet, run_command
from contracts.features import FEATURES, STATISTICS, features_of
from contracts.locations import Locations
from contracts.periods import PeriodSettings
from contracts.releases import MANIFEST, Release
from contracts.settings import Deployment
from contracts.tables import LANDING_COLUMNS, TABLES, owner_key, table
from lake.run_folders import read_release, staged_runs

FULL = Deployment(
    day_timezone="Asia/Shanghai",
    history_start=date(2022, 4, 25),
    history_end=date(2022, 5, 4),
    actr_start=date(2022, 5, 1),
    periods=PeriodSettings(anchor=date(2022, 4, 25), month_days=2, week_days=2),
    string_ids=("event_id", "user_id", "item_id"),
    kept_strings=("user_id", "item_id"),
    published_strings=("item_id",),
    source="kuairand",
    ad_start=date(2022, 4, 26),
    notify="tell --channel 'on call' \"ads\"",
    recipe="quick",
)


def release(**changes: object) -> Release:
    values: dict[str, Any] = {
        "kind": "actr",
        "variant": "tpm+cpm",
        "period": date(2026, 4, 27),
        "recipe": {"lr": 0.1},
        "parents": {"a": "b"},
        "inputs": {"ad_samples/ds=2026-04-27": "1"},
        "feature_set": ("user_id",),
    }
    return Release(**(values | changes))


@pytest.mark.parametrize(
    "deployment",
    [
        FULL,
        Deployment(history_start=date(2026, 1, 1), actr_start=date(2026, 4, 27)),
        Deployment(
            history_start=date(2026, 1, 1),
            actr_start=date(2026, 4, 27),
            source='the "new" shop\\',
            notify="tell 'on \"call\"' \\x",
        ),
    ],
)
def test_settings_survive_a_file(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "deployment.toml").write_text(deployment.to_toml())
    assert Deployment.load(tmp_path) == deployment


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("day_timezon = 'UTC'", "day_timezon: expected one of .* found an unknown setting"),
        (
            "day_timezone = 'Mars/Olympus'",
            "day_timezone: expected an IANA time zone such as Asia/Shanghai, found 'Mars/Olympus'",
        ),
        ("variants = ['none', 'gpsd']", r"variants: expected distinct values of none, tpm, cpm"),
        ("string_ids = ['title']", "string_ids: expected ids of the landing files"),
        ("kept_strings = ['item_id']", "kept_strings: expected columns that string_ids names, .* here none, found"),
        (
            "string_ids = ['event_id', 'item_id']\nkept_strings = ['event_id']",
            r"kept_strings: expected columns that string_ids names, .*: item_id, found \('event_id',\)",
        ),
        (
            "string_ids = ['campaign_id', 'item_id']\nkept_strings = ['campaign_id']\npublished_strings = ['item_id']",
            "published_strings: expected columns that kept_strings names, of user_id, item_id: here none, found",
        ),
        ("ad_start = 2026-05-01", "ad_start: expected a day of history_start 2026-01-01 .. actr_start 2026-04-27"),
        ('notify = "tell \'them"', "notify: expected a command line such as /opt/tell_on_call --channel ads, or none"),
        ("recipe = 'quik'", "recipe: expected one of default, quick, found 'quik'"),
        ("replay_days = 0", "replay_days: expected a number >= 1, found 0"),
        ('replay_days = "30"', "replay_days: expected a whole number, unquoted, found '30'"),
        ("replay_days = 30.0", "replay_days: expected a whole number, unquoted, found 30.0"),
        ("notify = 3", "notify: expected a text in quotation marks, found 3"),
        ("allowed_lateness_days = true", "allowed_lateness_days: expected a whole number, unquoted, found True"),
        (
            "history_end = 2026-05-01T00:00:00",
            "history_end: expected a date such as 2026-01-31, unquoted, found datetime",
        ),
        ("string_ids = 'user_id'", r'string_ids: expected a list of texts such as \["user_id"\], found \'user_id\''),
        ("variants = [1]", r"variants: expected a list of texts such as .*, found \[1\]"),
        ("periods = 2", r"periods: expected a section \[periods\], found 2"),
        (
            "[periods]\nanchor = 2026-01-01\nmonth_days = '2'",
            "month_days: expected a whole number, unquoted, found '2'",
        ),
        ("[periods]\nanchor = 2026-01-01", "month_days: expected a number of days >= 1"),
    ],
)
def test_a_wrong_setting_is_named(line: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Deployment.from_toml(f"history_start = 2026-01-01\nactr_start = 2026-04-27\n{line}\n")


def test_the_ad_log_may_be_empty_before_advertisements_began() -> None:
    assert [FULL.may_be_empty("ad", date(2022, 4, day)) for day in (25, 26)] == [True, False]
    assert not FULL.may_be_empty("natural", date(2022, 4, 25))
    assert not Deployment(history_start=date(2026, 1, 1), actr_start=date(2026, 4, 27)).may_be_empty(
        "ad", date(2026, 1, 1)
    )


def test_a_day_that_has_not_ended_is_refused() -> None:
    noon = datetime(2022, 5, 1, 17, tzinfo=UTC)  # 01:00 on the 2nd in Shanghai
    FULL.refuse_unfinished(date(2022, 5, 1), noon)
    with pytest.raises(BadInput, match="expected a day that has ended in Asia/Shanghai"):
        FULL.refuse_unfinished(date(2022, 5, 2), noon)


def test_ad_features_are_unknown_to_the_natural_log() -> None:
    assert {"campaign_id", "advertiser_id"} == set(LANDING_COLUMNS["ad"]) - set(LANDING_COLUMNS["natural"])
    assert set(TABLES["natural_samples"].column_names) < set(TABLES["ad_samples"].column_names)


def test_features_flow_into_samples_and_models() -> None:
    assert {f.name for f in FEATURES} <= set(TABLES["ad_samples"].column_names)
    assert {name for statistic in STATISTICS for name in statistic.columns} <= set(TABLES["ad_samples"].column_names)
    assert {f.name for f in features_of("tpm")} == {"user_id", "item_id", "category_id", "position", "hour"}


def test_owners_are_keys() -> None:
    assert owner_key(ds=date(2026, 1, 1), log="ad") == "ds=2026-01-01,log=ad"
    assert all(contract.owner for contract in TABLES.values() if not contract.content_addressed)
    with pytest.raises(BadInput, match="expected one of natural_log"):
        table("natural_logs")


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": {"lr": 0.2}},
        {"parents": {"a": "c"}},
        {"inputs": {}},
        {"variant": "none"},
        {"period": date(2026, 4, 28)},
        {"feature_set": ("item_id",)},
        {"absent_parents": ("tpm",)},
    ],
)
def test_a_release_id_hashes_what_the_result_depends_on(change: dict[str, object]) -> None:
    assert release().release_id == release(metrics={"gauc": 0.7}, files={"a": "b"}).release_id
    assert release().release_id != release(**change).release_id


def test_a_manifest_that_was_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(release().to_json())
    assert read_release(tmp_path) == release()
    changed = json.loads(release().to_json()) | {"recipe": {"lr": 9}}
    (tmp_path / MANIFEST).write_text(json.dumps(changed))
    with pytest.raises(BadInput, match="The manifest was changed"):
        read_release(tmp_path)
    with pytest.raises(BadInput, match="Run: tributary training cpm --period 2026-04-20"):
        staged_runs(Locations(tmp_path), "cpm", date(2026, 4, 20))


def test_exit_codes_tell_errors_apart(capsys: pytest.CaptureFixture[str]) -> None:
    def command(_: object) -> int:
        raise NotYet("waits for cpm 2026-04-20")

    assert run_command(command) == EXIT_NOT_YET
    assert capsys.readouterr().err == "error: waits for cpm 2026-04-20\n"


def test_tables_for_people_are_aligned() -> None:
    assert table_text(("day", "rows"), [("a", 5), ("bcde", 10)]) == "day   rows\n----  ----\na        5\nbcde    10"
