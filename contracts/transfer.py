"""The transfer settings of A-CTR: what of the natural log each of them carries into the ad model.

All settings share rows, inputs and recipe, and differ only in what is declared here, so that their scores can be
compared. Two are from E-CDCTR (arXiv 2408.16238): `none`, its baseline, and `tpm+cpm`, its method; `tpm` and `cpm` are
the halves of that method. Those with `srp4ctr` read the sequence encoder FG-BERT, those with `bahe` the text model
BAHE; the others are rival methods.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from contracts.kinds import KINDS
from contracts.periods import Lineage, Parent
from contracts.releases import DEFAULT_VARIANT, Served, parent_key

WITHOUT_SNAPSHOTS: Final = "without_snapshots"  # the variant of CPM that reads no TPM snapshots

TEXT_VECTOR_DAYS: Final = 30  # BAHE's vectors of a row's user and item may be this many days old

CpmVariant = Literal["default", "without_snapshots"]


@dataclass(frozen=True, kw_only=True)
class TransferSetting:
    """What one variant of A-CTR takes over from other models.

    Attributes:
        cpm: variant of the CPM that it is bound to; None: it is bound to none, and never starts again.
        merged_table: whether it reads the CPM's merged table of TPM snapshots.
        initial: which of the CPM's weights it starts from.
        frozen_embeddings: whether the embedding tables taken over stay as they are, and get no new rows.
        keeps_batch_norm: whether batch norm is taken over too, instead of being initialised again.
        adapters: whether the frozen CPM is part of the model; its hidden layers join the model's own through adapters.
        natural_rows: whether the model also trains on the natural log's rows of the same days.
        fg_bert: whether it reads FG-BERT's uni cross-attention and queries, and whether it trains the encoder further.
        texts: whether it reads BAHE's vectors of users and items, from the days before each row's day.
    """

    cpm: CpmVariant | None = None
    merged_table: bool = False
    initial: Literal["fresh", "embeddings", "all"] = "fresh"
    frozen_embeddings: bool = False
    keeps_batch_norm: bool = False
    adapters: bool = False
    natural_rows: bool = False
    fg_bert: Literal["frozen", "learned"] | None = None
    texts: bool = False


NO_TRANSFER = "none"
TRANSFER_SETTINGS: dict[str, TransferSetting] = {
    NO_TRANSFER: TransferSetting(),
    "tpm": TransferSetting(cpm=DEFAULT_VARIANT, merged_table=True),
    "cpm": TransferSetting(cpm=WITHOUT_SNAPSHOTS, initial="all"),
    "tpm+cpm": TransferSetting(cpm=DEFAULT_VARIANT, merged_table=True, initial="all"),
    # An ablation of the paper's: batch norm kept.
    "batch_norm_kept": TransferSetting(cpm=DEFAULT_VARIANT, merged_table=True, initial="all", keeps_batch_norm=True),
    # GPSD (arXiv 2506.03699): sparse parameters transferred and frozen, dense ones fresh.
    "frozen_embeddings": TransferSetting(cpm=WITHOUT_SNAPSHOTS, initial="embeddings", frozen_embeddings=True),
    # CTNet (arXiv 2208.05728): the source model's hidden layers through light adapters.
    "adapters": TransferSetting(cpm=WITHOUT_SNAPSHOTS, adapters=True),
    # One model of both logs.
    "joint": TransferSetting(natural_rows=True),
    # SRP4CTR (arXiv 2407.19658), by itself and together with E-CDCTR.
    "srp4ctr": TransferSetting(fg_bert="learned"),
    "srp4ctr_frozen": TransferSetting(fg_bert="frozen"),
    "tpm+cpm+srp4ctr": TransferSetting(cpm=DEFAULT_VARIANT, merged_table=True, initial="all", fg_bert="learned"),
    # BAHE (arXiv 2403.19347), by itself, together with E-CDCTR, and all three together.
    "bahe": TransferSetting(texts=True),
    "tpm+cpm+bahe": TransferSetting(cpm=DEFAULT_VARIANT, merged_table=True, initial="all", texts=True),
    "tpm+cpm+srp4ctr+bahe": TransferSetting(
        cpm=DEFAULT_VARIANT, merged_table=True, initial="all", fg_bert="learned", texts=True
    ),
}
ALL_SETTINGS = "all"  # on a command line, instead of one setting: all that the deployment names
DEFAULT_VARIANTS = (NO_TRANSFER, "tpm+cpm")
SHOWN_VARIANTS = (*DEFAULT_VARIANTS, "tpm+cpm+srp4ctr")  # for the data sources that come with this project
SHOWN_WITH_TEXTS = (*SHOWN_VARIANTS, "tpm+cpm+bahe")  # those of them whose items have texts


def cpm_variants(variants: Iterable[str]) -> tuple[CpmVariant, ...]:
    """The variants of CPM that a deployment's transfer settings are bound to, and always the paper's."""
    bound = {TRANSFER_SETTINGS[variant].cpm for variant in variants}
    return (DEFAULT_VARIANT, WITHOUT_SNAPSHOTS) if WITHOUT_SNAPSHOTS in bound else (DEFAULT_VARIANT,)


def reads_encoder(variants: Iterable[str]) -> bool:
    """Whether any of a deployment's transfer settings reads FG-BERT."""
    return any(TRANSFER_SETTINGS[variant].fg_bert for variant in variants)


def reads(role: str, variants: Iterable[str]) -> bool:
    """Whether an A-CTR of any of a deployment's settings has a parent of this role; not all read an encoder or texts."""
    if role == "encoder":
        return reads_encoder(variants)
    return role != "texts" or any(TRANSFER_SETTINGS[variant].texts for variant in variants)


def is_read(kind: str, variants: Iterable[str]) -> bool:
    """Whether a deployment with these transfer settings makes models of this kind."""
    variants = tuple(variants)
    roles = [
        rule.role for other in KINDS.values() for rule in other.parents if rule.kind == kind and other.name != kind
    ]
    if roles:
        return any(reads(role, variants) for role in roles)
    # What nothing reads is there for people: the ad model itself, and whatever can be made of the models that there
    # are.
    return kind == "actr" or all(is_read(rule.kind, variants) for rule in KINDS[kind].parents if rule.kind != kind)


def computed_parents(lineage: Lineage, child: Served) -> dict[str, Served]:
    """The kind, variant and period of each parent of a release, by the key under which `Release.parents` names it."""
    parents = [(parent, variant_of(parent, child)) for parent in lineage.parents(child.kind, child.period)]
    return {
        parent_key(parent.role, parent.kind, parent.period): Served(
            kind=parent.kind, variant=variant, period=parent.period
        )
        for parent, variant in parents
        if variant is not None
    }


def variant_of(parent: Parent, child: Served) -> str | None:
    """The variant of a parent that a child is made from; None if this variant of the child does not have the parent."""
    if parent.role == "predecessor":
        return child.variant
    if parent.role == "pretrained":
        return TRANSFER_SETTINGS[child.variant].cpm
    if parent.role == "encoder":
        return DEFAULT_VARIANT if child.kind != "actr" or TRANSFER_SETTINGS[child.variant].fg_bert else None
    if parent.role == "texts":
        return DEFAULT_VARIANT if TRANSFER_SETTINGS[child.variant].texts else None
    return None if child.variant == WITHOUT_SNAPSHOTS else DEFAULT_VARIANT
