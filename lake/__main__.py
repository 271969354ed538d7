"""`python -m lake`: fetches the Delta jars, once."""

from contracts.errors import run_command
from lake.session import fetch_jars


def main(argv: object = None) -> int:
    """Fetches the jars and prints where they lie."""
    jars = fetch_jars()
    print(f"Delta: {len(jars)} jars in {jars[0].rsplit('/', 1)[0]}")
    return 0


raise SystemExit(run_command(main))
