"""Who was forgotten: salted hashes of ids, so that old landing files do not bring a user back; and how an id is recognised in log content.

The hash hides an id from whoever reads the table. It does not hide it from somebody who has the salt too and tries
every id.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from contracts.errors import BadInput
from contracts.locations import Locations
from contracts.settings import Deployment
from lake.reader import LakeReader
from lake.xxhash import LARGEST_ID, string_id

# What separates the words of a line that cannot be parsed; a regular expression of Python and of Java.
WORD_ENDS = r'[\s,;|^~"\x01\x1f{}\[\]:]+'
_INTEGER = re.compile(r"\+?[0-9]+(\.0*)?")
_UUID_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class User:
    """A user as landing files and tables name them.

    Attributes:
        text: the id as delivered.
        user_id: the id in the tables: the same number, or the hash of a string.
        hashed: whether the deployment's user ids are strings.
    """

    text: str
    user_id: int
    hashed: bool

    @classmethod
    def of(cls, text: str, deployment: Deployment) -> User:
        """The user whose id a person typed.

        Raises:
            BadInput: the text is empty, or is no user id of this deployment.
        """
        text = text.strip(" ")
        if "user_id" in deployment.string_ids and text:
            return cls(text=text, user_id=string_id(text), hashed=True)
        if not re.fullmatch("[0-9]+", text) or int(text) > LARGEST_ID:
            raise BadInput(
                "command line", "--user", expected="a user's id as the landing files hold it", found=text or "nothing"
            )
        return cls(text=str(int(text)), user_id=int(text), hashed=False)

    def is_value(self, value: object) -> bool:
        """Whether a landing file's value of `user_id` is this user, of whatever type it was delivered.

        Args:
            value: the value as Python reads it: a text, bytes, a number or a UUID; None is no user.
        """
        return any(map(self._is_text, _texts_of(value)))

    def _is_text(self, text: str) -> bool:
        if self.hashed:
            return text.strip(" ") == self.text
        text = text.strip()
        return _INTEGER.fullmatch(text) is not None and int(text.split(".")[0]) == self.user_id

    def is_in_line(self, line: str) -> bool:
        """Whether one of the words of a line that cannot be parsed into fields is this user's id."""
        return any(map(self.is_value, re.split(WORD_ENDS, line)))

    def is_in_raw(self, raw: str) -> bool:
        """Whether a row of `quarantine`, which is kept as JSON, is about this user."""
        row = json.loads(raw)
        return self.is_in_line(row["line"]) if set(row) == {"line"} else self.is_value(row.get("user_id"))


def _texts_of(value: object) -> tuple[str, ...]:
    """The texts that ingestion may make of a value: a whole number of another type is an integer, bytes are UTF-8 or a UUID."""
    if value is None:
        return ()
    if isinstance(value, bytes):
        texts = (value.decode(errors="replace"),)
        return (*texts, str(uuid.UUID(bytes=value))) if len(value) == _UUID_BYTES else texts
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(value), str(int(value))
    return (str(value),)


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """Users who were forgotten.

    Attributes:
        salt: the deployment's salt.
        days: the last day on which each user was forgotten, by the hash of the id.
    """

    salt: str
    days: Mapping[str, date]

    @classmethod
    def read(cls, locations: Locations) -> Forgotten | None:
        """Reads them from the lake; None if nobody was forgotten.

        Raises:
            BadInput: somebody was forgotten and the salt is missing, so that their rows cannot be recognized.
        """
        rows = LakeReader(locations).read("forgotten").to_pylist()
        if not rows:
            return None
        if not locations.forgotten_salt.is_file():
            raise BadInput(
                locations.forgotten_salt,
                "salt",
                expected="the file that the ids of the table `forgotten` were hashed with",
                found="no such file",
                hint="Put it back from a backup: without it forgotten users would come in again.",
            )
        days: dict[str, date] = {}
        for row in rows:
            days[row["user_hash"]] = max(row["forgotten_on"], days.get(row["user_hash"], row["forgotten_on"]))
        return cls(salt=locations.forgotten_salt.read_text().strip(), days=days)


def salt_of(locations: Locations) -> str:
    """The deployment's salt, which is made once and readable only by its owner."""
    path = locations.forgotten_salt
    if not path.is_file():
        temporary = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(16))
        temporary.replace(path)
    return path.read_text().strip()


def hash_of(salt: str, user_id: int) -> str:
    """What stands for a user in the table `forgotten`."""
    return hashlib.sha256(f"{salt}{user_id}".encode()).hexdigest()
