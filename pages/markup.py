"""Self-contained HTML pages, by Jinja2: no script, no address outside.

Pages show log content, which is hostile: templates escape every value that is no `Markup`, and the page's policy
forbids scripts and any request. Colours are variables, so that light and dark differ only in these; the pictures
(`pages.pictures`) use the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from contracts.masking import printable
from contracts.quality import Status

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
SIGNS: dict[Status, str] = {"pass": "✓", "warn": "!", "fail": "✕", "accepted": "≈"}
NO_SIGN = "·"
_ROOT = Path(__file__).resolve().parent.parent  # templates stand next to the code that fills them


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a table's day came to, as one sign of a calendar.

    Attributes:
        kind: a status, `stale` or `absent`; it is also the CSS class that gives the sign its colour.
        sign: the character that is shown.
        meaning: what it stands for, in words.
        address: the address of the report that it links to; "" if there is none.
    """

    kind: str
    sign: str
    meaning: str
    address: str = ""


def render(template: str, **values: object) -> str:
    """A template with its values filled in.

    Args:
        template: its path below the root of the source, such as `validation/templates/report.html.jinja`.
        values: by the names that the template uses; one that is missing is an error. Everything but `Markup` is
            escaped.
    """
    return _environment().get_template(template).render(values)


def text(value: object) -> Markup:
    """Any value as harmless HTML text, also inside a quoted attribute; what is not printable is shown as its escape."""
    return escape(_visible(value))


def newest_first(reports: Iterable[str]) -> list[str]:
    """Names of reports, `<first day>_<last day>`, those of the newest days first."""
    return sorted(reports, key=lambda name: name.split("_")[::-1], reverse=True)


@cache
def _environment() -> Environment:
    import jinja2  # where a page is made, so that commands that make none do not wait for it

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ROOT),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
        extensions=["jinja2.ext.do"],
    )
    made.globals |= {
        "policy": Markup(POLICY),
        "newest_first": newest_first,
        "signs": SIGNS,
        "no_sign": NO_SIGN,
        "line_end": Markup("\n"),
    }
    made.filters["fmt"] = format
    return made


def _visible(value: object) -> object:
    """Text with marks of direction and control characters made visible; markup as it is."""
    return (
        value
        if hasattr(value, "__html__")
        else "".join(char if char.isprintable() else printable(char) for char in str(value))
    )
