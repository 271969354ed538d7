"""Texts of the simulator's items: short texts from a small vocabulary, in which category and quality can be read.

Texts of one category share nouns, traits and the category's name; the verdict depends half on the item's quality, half
on chance. Some hold a comma, a quote or a letter beyond ASCII, as real ones do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Words of one category."""

    name: str
    nouns: tuple[str, ...]
    traits: tuple[str, ...]


VOCABULARIES = (
    Vocabulary(
        name="Sports",
        nouns=("Trail running shoes", "Yoga mat", "Climbing rope", "Swim goggles", "Cycling gloves", "Tennis racket"),
        traits=("waterproof", "light", "non-slip", "breathable", "for beginners", "for long distances", "reflective"),
    ),
    Vocabulary(
        name="Kitchen",
        nouns=("Cast iron pan", "Crêpe maker", "Bread knife", "Mixing bowl", "Espresso machine", "Salad spinner"),
        traits=(
            "dishwasher safe",
            "non-stick",
            "stainless steel",
            "for induction",
            "with lid",
            "two litres",
            "hand made",
        ),
    ),
    Vocabulary(
        name="Computers",
        nouns=("Laptop", "Mechanical keyboard", "Wireless mouse", "Monitor", "Docking station", "External drive"),
        traits=('15" screen', '27" wide', "quiet", "two years of warranty", "USB-C", "backlit", "low latency"),
    ),
    Vocabulary(
        name="Phones",
        nouns=("Phone case", "Fast charger", "Screen protector", "Power bank", "Phone holder", "Charging cable"),
        traits=("slim", "shock-proof", "magnetic", "two metres", "foldable", "with stand", "scratch resistant"),
    ),
    Vocabulary(
        name="Garden",
        nouns=("Rose shears", "Watering can", "Raised bed", "Lawn edger", "Compost bin", "Bird feeder"),
        traits=(
            "weatherproof",
            "galvanised",
            "for small balconies",
            "frost resistant",
            "with wheels",
            "cedar wood",
            "rust free",
        ),
    ),
    Vocabulary(
        name="Toys",
        nouns=("Wooden train set", "Building blocks", "Puzzle", "Plush bear", "Board game", "Marble run"),
        traits=(
            "from three years",
            "1,000 pieces",
            "washable",
            "for the whole family",
            "without batteries",
            "painted",
            "soft",
        ),
    ),
    Vocabulary(
        name="Beauty",
        nouns=("Face cream", "Lip balm", "Hair brush", "Shower gel", "Sun lotion", "Nail polish"),
        traits=("unscented", "vegan", "for dry skin", "with aloe", "travel size", "crème rosé", "fast drying"),
    ),
    Vocabulary(
        name="Fashion",
        nouns=("Linen shirt", "Wool scarf", "Denim jacket", "Rain coat", "Leather belt", "Summer dress"),
        traits=("slim fit", "navy blue", "organic cotton", "machine washable", "lined", "with pockets", "oversized"),
    ),
    Vocabulary(
        name="Furniture",
        nouns=("Desk lamp", "Bookshelf", "Office chair", "Side table", "Wardrobe", "Floor cushion"),
        traits=(
            "solid oak",
            "easy to build",
            "dimmable",
            "height adjustable",
            "black steel",
            "space saving",
            "upholstered",
        ),
    ),
    Vocabulary(
        name="Music",
        nouns=("Acoustic guitar", "Ukulele", "Drum pad", "Studio headphones", "Microphone stand", "Digital piano"),
        traits=("for left-handers", "full size", "noise cancelling", "with bag", "88 keys", "spruce top", "foldable"),
    ),
    Vocabulary(
        name="Pets",
        nouns=("Dog leash", "Cat tree", "Aquarium filter", "Chew toy", "Litter box", "Puppy bed"),
        traits=("extra strong", "odour free", "for large breeds", "washable", "with catnip", "silent", "chew proof"),
    ),
    Vocabulary(
        name="Travel",
        nouns=("Cabin suitcase", "Neck pillow", "Packing cubes", "Hiking backpack", "Travel adapter", "Toiletry bag"),
        traits=("four wheels", "memory foam", "ultra light", "with rain cover", "lockable", "40 litres", "set of six"),
    ),
)
# From worst to best. A verdict is chosen by quality and chance in equal parts.
VERDICTS = ("no-name", "basic", "simple", "decent", "well made", "popular", "excellent", "award winning")
_VERDICT_EDGES = np.array([-1.65, -0.95, -0.45, 0.0, 0.45, 0.95, 1.65])  # eighths of a normal of variance two, about


def item_texts(category_N: np.ndarray, quality_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One text of 5 to 15 words for each item (N, objects).

    Args:
        category_N: index of the category, from 0; beyond the last vocabulary they begin again.
        quality_N: standard normal.
        rng: generator of these items' texts.
    """
    count = len(category_N)
    kind_N = category_N % len(VOCABULARIES)
    noun_N = rng.integers(0, min(len(v.nouns) for v in VOCABULARIES), count)
    num_traits = min(len(v.traits) for v in VOCABULARIES)
    first_N = rng.integers(0, num_traits, count)
    second_N = (first_N + rng.integers(1, num_traits, count)) % num_traits  # another one
    verdict_N = np.searchsorted(_VERDICT_EDGES, quality_N + rng.standard_normal(count))
    texts = np.empty(count, dtype=object)
    texts[:] = [
        f"{(words := VOCABULARIES[kind]).nouns[noun]}, {words.traits[first]}, {words.traits[second]}, {VERDICTS[verdict]} ({words.name})"
        for kind, noun, first, second, verdict in zip(
            *(values.tolist() for values in (kind_N, noun_N, first_N, second_N, verdict_N)), strict=True
        )
    ]
    return texts
