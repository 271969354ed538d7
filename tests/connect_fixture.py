"""The tests' own JVM as a Spark Connect server: clients are other processes, and what the server keeps can be looked at."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def serving_connect(spark: Any) -> Iterator[str]:
    """Serves Spark Connect from a classic session's JVM; yields the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    jvm = spark._jvm
    conf = jvm.org.apache.spark.SparkEnv.get().conf()
    for name, value in (("port", str(port)), ("address", "127.0.0.1")):
        conf.set(f"spark.connect.grpc.binding.{name}", value)
    service = jvm.org.apache.spark.sql.connect.service.SparkConnectService
    service.start(spark._jsc.sc())
    try:
        yield f"sc://127.0.0.1:{port}"
    finally:
        service.stop(jvm.scala.Option.empty(), jvm.scala.Option.empty())


def cache_is_empty(spark: Any) -> bool:
    """Whether the server's cache of rows, which all of its sessions share, holds nothing."""
    return bool(spark._jsparkSession.sharedState().cacheManager().isEmpty())
