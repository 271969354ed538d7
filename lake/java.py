"""Where Java and Spark lie on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from contracts.errors import BadInput


def require_java() -> str:
    """The path of `java`; raises BadInput with the command that installs it if there is no Java 17 or later."""
    home = os.environ.get("JAVA_HOME")  # Spark's own rule: JAVA_HOME first, then PATH
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None or not Path(java).exists():
        raise BadInput(
            "this machine",
            "java",
            expected="Java 17",
            found="none",
            hint="Install it: apt-get install openjdk-17-jre-headless",
        )
    return java


def spark_home() -> Path:
    """The folder in which Spark is installed."""
    from pyspark.find_spark_home import _find_spark_home

    return Path(_find_spark_home())
