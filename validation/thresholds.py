"""Bounds of the checks that no contract declares."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.errors import BadInput

SHARES = (
    "quarantined_share_warn",
    "quarantined_share_fail",
    "duplicate_share_warn",
    "late_share_warn",
    "history_share_warn",
    "shared_users_warn",
    "shared_items_warn",
    "missing_rise_warn",
)
SPANS = ("rows_to_usual_warn", "click_rate_warn", "click_rate_to_usual_warn")


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Bounds of the checks; a day's "usual" is what the `usual_days` days before it show.

    Attributes:
        quarantined_share_warn, quarantined_share_fail: largest share of the rows read that is in quarantine.
        duplicate_share_warn: largest share of the rows read that are duplicates.
        late_share_warn: largest share of a log's rows that belong to an earlier day.
        usual_days: how many days before a day it is compared with.
        rows_to_usual_warn: lowest and highest ratio of a day's rows to the median of those days.
        click_rate_warn: lowest and highest click rate.
        click_rate_to_usual_warn: lowest and highest ratio of the click rate to that of those days.
        missing_rise_warn: how far the share of nulls of a column may rise above that of those days.
        drift_warn: largest population stability index of a column against those days; 0.25 is the customary "has
            shifted".
        history_share_warn: smallest share of samples whose user has a history.
        shared_users_warn, shared_items_warn: smallest share of the ad log's users and items that the natural log knows:
            only through them can anything be transferred.
    """

    quarantined_share_warn: float = 0.01
    quarantined_share_fail: float = 0.20
    duplicate_share_warn: float = 0.05
    late_share_warn: float = 0.10
    usual_days: int = 7
    rows_to_usual_warn: tuple[float, float] = (0.5, 2.0)
    click_rate_warn: tuple[float, float] = (0.001, 0.95)
    click_rate_to_usual_warn: tuple[float, float] = (0.5, 2.0)
    missing_rise_warn: float = 0.10
    drift_warn: float = 0.25
    history_share_warn: float = 0.01
    shared_users_warn: float = 0.10
    shared_items_warn: float = 0.01

    def __post_init__(self) -> None:
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput("thresholds", name, expected="a share, 0 .. 1", found=getattr(self, name))
        for name in SPANS:
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise BadInput("thresholds", name, expected="a lowest value not above the highest", found=(low, high))
        for name in ("usual_days", "drift_warn"):
            if not getattr(self, name) > 0:
                raise BadInput("thresholds", name, expected="a number above 0", found=getattr(self, name))


DEFAULT_THRESHOLDS = Thresholds()
