"""The rows that a mean hides: rare items, new items, users of whom the natural log knows nothing.

All are computed from the statistics that a sample carries, so they only use what was known before its day.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from contracts.features import STATISTICS, Entity, Log
from training.data.samples import Samples

LONG_TAIL_SHARE = 0.2  # of the distinct items, those seen least often
NEW_DAYS = 7
LONGEST = max(statistic.window_days for statistic in STATISTICS)

Mask = NDArray[np.bool_]


def slices(samples: Samples) -> Mapping[str, Mask]:
    """A mask of the samples for each slice; a slice whose statistics the samples lack is left out.

    `long_tail_items`: the 20 % of the distinct items with the fewest impressions, ties included. `new_items`: no
    impression before the last seven days. `users_without_natural_history`: no natural impression in the longest window.
    """
    found: dict[str, Mask] = {}
    items = _impressions(samples, "item", LONGEST)
    if items is not None and len(samples):
        distinct, of_row = np.unique(samples.features["item_id"], return_inverse=True)
        latest = np.zeros(len(distinct), np.int64)  # over several days an item's counts grow
        np.maximum.at(latest, of_row, items)
        found["long_tail_items"] = (latest <= np.quantile(latest, LONG_TAIL_SHARE, method="lower"))[of_row]
        recent = _impressions(samples, "item", NEW_DAYS)
        if recent is not None:
            found["new_items"] = items == recent
    users = _impressions(samples, "user", LONGEST, ("natural",))
    if users is not None:
        found["users_without_natural_history"] = users == 0
    return found


def _impressions(
    samples: Samples, entity: Entity, days: int, logs: tuple[Log, ...] = ("natural", "ad")
) -> NDArray[np.int64] | None:
    columns = [s.impressions for s in STATISTICS if s.entity == entity and s.window_days == days and s.log in logs]
    if len(columns) < len(logs) or not set(columns) <= set(samples.statistics):
        return None
    total: NDArray[np.int64] = np.sum([samples.statistics[name] for name in columns], axis=0)
    return total
