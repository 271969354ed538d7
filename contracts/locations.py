"""Where things lie under a deployment's home folder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path


@dataclass(frozen=True)
class Locations:
    """Paths of one deployment; nothing here touches the disk."""

    home: Path

    @property
    def landing(self) -> Path:
        """Folder in which landing files arrive: `<log>/<day of arrival>/`."""
        return self.home / "landing"

    def landing_day(self, log: str, day: date) -> Path:
        """Folder of one log's landing files that arrived on `day`; their formats: lake/landing_files.py."""
        return self.landing / log / str(day)

    @property
    def landing_names(self) -> Path:
        """Links to landing files whose names Spark cannot open; they are made when the files are read, and may be deleted."""
        return self.landing / ".names"

    @property
    def truth(self) -> Path:
        """The simulator's true click probability of each impression: `<day>.parquet` (event_id, log, probability)."""
        return self.home / "truth"

    @property
    def lake(self) -> Path:
        """Folder of the tables, unless TRIBUTARY_LAKE names a store."""
        return self.home / "lake"

    def table(self, name: str) -> Path:
        """Folder of a table in the home folder; to open a table, use `contracts.settings.table_address`."""
        return self.lake / name

    @property
    def runs(self) -> Path:
        """Folder of all run folders."""
        return self.home / "runs"

    def run_of(self, kind: str, period: date, variant: str, release_id: str) -> Path:
        """The run folder: where the training of one release leaves its files."""
        return self.runs / kind / str(period) / variant / release_id

    def unfinished(self, release_id: str) -> Path:
        """The saved state of an unfinished training; it is deleted when the training ends."""
        return self.runs / "unfinished" / f"{release_id}.safetensors"

    def staged(self, kind: str, period: date) -> Path:
        """JSON file that names the run folders a training task has left to be audited and published."""
        return self.runs / kind / str(period) / "staged.json"

    def text_vectors(self, encoder_id: str) -> Path:
        """Vectors of texts that an encoder has staged for the lake."""
        return self.runs / "text_vectors" / encoder_id

    def text_store(self, encoder_id: str) -> Path:
        """An encoder's vectors of texts as files that training maps into memory; rebuilt from the lake if they are missing."""
        return self.home / "cache" / "text_vectors" / encoder_id

    def scores(self, day: date, release_id: str) -> Path:
        """A day's scores by any release that a person chose, kept apart from the published predictions."""
        return self.home / "scores" / str(day) / f"{release_id}.parquet"

    def exported(self, release_id: str) -> Path:
        """A release exported as a folder that needs nothing else to score requests."""
        return self.home / "exported" / release_id

    @property
    def indexes(self) -> Path:
        """Folder of the indexes for retrieval, one for each release."""
        return self.home / "indexes"

    def index(self, release_id: str) -> Path:
        """Folder of a release's index."""
        return self.indexes / release_id

    @property
    def reports(self) -> Path:
        """Folder of the reports on data quality."""
        return self.home / "reports"

    def report(self, table: str, day: date) -> Path:
        """The report on one table and day."""
        return self.reports / table / f"{day}.html"

    @property
    def judged_days(self) -> Path:
        """JSON file with each judged day's verdict in short, for calendars: `contracts.quality.JudgedDay`."""
        return self.reports / "judged_days.json"

    @property
    def stale_found(self) -> Path:
        """JSON file with the result of the last search for stale partitions: `contracts.quality.StaleReport`."""
        return self.reports / "stale.json"

    @property
    def model_reports(self) -> Path:
        """Folder of the reports on models."""
        return self.reports / "models"

    def model_report(self, first: date, last: date) -> Path:
        """The report on the scores of ad models on the days `first` .. `last`."""
        return self.model_reports / f"{first}_{last}.html"

    def tensorboard(self, kind: str, variant: str, release_id: str) -> Path:
        """Event files of one release's training, if a person asked for them."""
        return self.home / "tensorboard" / kind / variant / release_id

    @property
    def locks(self) -> Path:
        """Folder of the lock files."""
        return self.home / "locks"

    @property
    def writing_sessions(self) -> Path:
        """A file for each Spark Connect session that writes, locked while its client lives."""
        return self.locks / "sessions"

    @property
    def lake_lock(self) -> Path:
        """Held by the one JVM that writes to a local lake."""
        return self.home / "locks" / "lake.lock"

    @property
    def writers_lock(self) -> Path:
        """Shared by all who write to the lake, held exclusively by whoever removes files that old versions of tables name."""
        return self.home / "locks" / "writers.lock"

    @property
    def stack(self) -> Path:
        """State of the one-machine stack: logs, process ids, secrets, PostgreSQL, Airflow."""
        return self.home / "stack"

    @property
    def forgotten_salt(self) -> Path:
        """The salt with which ids are hashed before they enter `forgotten`; without it no row of that table leads to a user."""
        return self.home / "forgotten.salt"

    @property
    def forgetting(self) -> Path:
        """What an interrupted `forget_user` still has to finish; it holds no user id."""
        return self.home / "forgetting.json"

    @property
    def connect_token(self) -> Path:
        """File with the token that clients of the Spark Connect server show."""
        return self.stack / "connect.token"
