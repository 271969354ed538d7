"""Behaviours in words: the text of a positive, from its action and its item's text, and the hash that names it."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from contracts.features import BEHAVIOUR_TEXTS
from spark_jobs.rules import POSITIVE_BITS


def behaviour_text(action: Column, item_text: Column) -> Column:
    """The text; null where the item has none, or the action is no behaviour."""

    def words(template: str) -> Column:
        before, after = template.split("{text}")
        return F.concat(F.lit(before), item_text, F.lit(after))

    return reduce(
        lambda chosen, item: chosen.when(action == item[0], words(item[1])),
        BEHAVIOUR_TEXTS.items(),
        F.when(F.lit(False), ""),
    )


def text_hash(text: Column) -> Column:
    """xxhash64 masked to 63 bits; null for no text."""
    return F.when(text.isNotNull(), F.xxhash64(text).bitwiseAND(F.lit(POSITIVE_BITS)))
