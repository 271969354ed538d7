"""docker-compose.yml, its images and its secrets, without Docker: what can be known before anything is built."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import compose_file
import jsonschema
import pytest
from compose_file import COMPOSE, PROJECT

from contracts.errors import BadInput
from contracts.steps import commands_of
from tributary import cli, compose_env
from tributary.own import OWN

DOCKERFILES = (PROJECT / "docker" / "Dockerfile", PROJECT / "docker" / "store.Dockerfile")
SERVICES: dict[str, Any] = compose_file.raw()["services"]
LONG_LIVED = sorted(name for name, service in SERVICES.items() if service["restart"] != "no")
PINNED = re.compile(r"[a-z][a-z/-]*:v?\d+(\.\d+)+[\w.-]*")  # no registry's host, and a whole version


def instructions(dockerfile: Path, name: str) -> list[str]:
    """Arguments of each instruction of that name, continued lines joined."""
    text = dockerfile.read_text().replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith(f"{name} ")]


def stages(dockerfile: Path) -> dict[str, str]:
    """Base image by stage; the last stage of a file without names is `final`."""
    found = [line.split(" AS ") for line in instructions(dockerfile, "FROM")]
    return {(parts[1] if len(parts) > 1 else "final"): parts[0] for parts in found}


def locked(name: str) -> dict[str, str]:
    """Version by package of a lock file."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (PROJECT / name).read_text(), re.M))


class TestFile:
    def test_is_what_the_compose_specification_says(self) -> None:
        schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
        validator = jsonschema.validators.validator_for(schema)(schema)
        assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(compose_file.raw())] == []

    def test_every_long_lived_service_has_a_health_check(self) -> None:
        assert len(LONG_LIVED) == 9
        for name in LONG_LIVED:
            check = SERVICES[name]["healthcheck"]
            assert check["test"][0] == "CMD" and {"interval", "timeout", "retries"} <= set(check), name

    def test_services_wait_for_what_can_be_waited_for(self) -> None:
        for name, service in SERVICES.items():
            for other, how in service.get("depends_on", {}).items():
                expected = "service_healthy" if other in LONG_LIVED else "service_completed_successfully"
                assert how == {"condition": expected}, (name, other)

    def test_volumes_and_networks_are_declared_and_used(self) -> None:
        whole = compose_file.raw()
        mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
        assert mounted == set(whole["volumes"])
        assert {network for service in SERVICES.values() for network in service["networks"]} == set(whole["networks"])

    def test_who_shares_a_network_with_the_database(self) -> None:
        """What runs people's code in Spark reaches neither Airflow's database nor the world."""
        inside = {name for name, service in SERVICES.items() if "control" in service["networks"]}
        assert inside == {name for name in SERVICES if name.startswith("airflow-")} | {"postgres"}
        assert [name for name in sorted(inside) if "data" in SERVICES[name]["networks"]] == ["airflow-scheduler"]
        assert compose_file.raw()["networks"]["data"] == {"internal": True}

    def test_one_port_is_published_on_loopback_alone(self) -> None:
        published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
        assert published == {"airflow-api-server": ["127.0.0.1:${TRIBUTARY_UI_PORT:-8080}:8080"]}

    def test_a_gpu_is_asked_for_by_its_profile_alone(self) -> None:
        asking = [name for name, service in SERVICES.items() if "deploy" in service]
        assert asking == ["trainer"] and SERVICES["trainer"]["profiles"] == ["gpu"]


class TestImages:
    def test_every_image_is_pinned(self) -> None:
        built = {service["image"] for service in SERVICES.values() if "build" in service}
        bases = {
            base for dockerfile in DOCKERFILES for base in stages(dockerfile).values() if base not in stages(dockerfile)
        }
        for image in {*(service["image"] for service in SERVICES.values()), *bases}:
            assert PINNED.fullmatch(image), image
        version = re.search(r'^version = "(.*)"', (PROJECT / "pyproject.toml").read_text(), re.M)
        assert version is not None and {image.split(":")[1] for image in built} == {version[1]}

    def test_targets_and_dockerfiles_exist(self) -> None:
        for name, service in SERVICES.items():
            if "build" in service:
                dockerfile = PROJECT / service["build"]["dockerfile"]
                assert dockerfile in DOCKERFILES and service["build"].get("target", "final") in stages(dockerfile), name

    def test_what_is_copied_exists_and_is_sent(self) -> None:
        ignored = (PROJECT / ".dockerignore").read_text().splitlines()
        assert ignored[1] == "*"
        sent = {line[1:] for line in ignored if line.startswith("!")}
        copied = [
            source
            for dockerfile in DOCKERFILES
            for line in instructions(dockerfile, "COPY")
            if not line.startswith("--from")
            for source in line.split()[:-1]
        ]
        assert len(copied) > 10
        for source in copied:
            assert (PROJECT / source).exists() and source.split("/")[0] in sent, source
        settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
        assert set(settings["tool"]["importlinter"]["root_packages"]) <= set(copied)

    def test_nobody_is_root(self) -> None:
        for dockerfile in DOCKERFILES:
            text = dockerfile.read_text()
            for stage in re.split(r"^FROM ", text, flags=re.M)[1:]:
                if " AS build" not in stage:
                    assert re.findall(r"^USER (\w+)", stage, re.M)[-1] in ("tributary", "store"), stage[:60]
        assert {name for name, service in SERVICES.items() if "build" not in service} == {"postgres"}
        assert SERVICES["postgres"]["user"] == "postgres"

    def test_the_locks_are_of_one_piece(self) -> None:
        """What the images add to the lock is what it lacks; one package stands back for Airflow's user management."""
        ours = locked("requirements.lock")
        assert len(ours) > 200
        for name, differing in (("docker/airflow.lock", {"python-dateutil"}), ("docker/gpu.lock", set())):
            added = locked(name)
            assert added and set(added) & set(ours) == differing, name
        pinned = dict(re.findall(r'"(fbgemm-gpu|faiss-gpu)==([\d.]+)"', (PROJECT / "pyproject.toml").read_text()))
        assert pinned.items() <= locked("docker/gpu.lock").items() and len(pinned) == 2
        uv = re.search(r"^UV_VERSION := (.*)$", (PROJECT / "Makefile").read_text(), re.M)
        assert uv is not None and f"uv=={uv[1]}" in DOCKERFILES[0].read_text()


class TestSecrets:
    @pytest.fixture
    def env_file(self, tmp_path: Path) -> Path:
        assert cli.main(["compose-env", "--out", str(tmp_path / ".env")]) == 0
        return tmp_path / ".env"

    def test_the_file_holds_what_is_required_and_nothing_else(self, env_file: Path) -> None:
        assert set(compose_file.read_env(env_file)) == set(compose_file.variables(":?"))
        assert all(what == {"run tributary compose-env"} for what in compose_file.variables(":?").values())
        assert not set(compose_file.variables(":?")) & set(compose_file.variables(":-"))

    def test_every_variable_says_what_is_missing_or_has_a_default(self) -> None:
        assert COMPOSE.read_text().count("$") == len(compose_file.VARIABLE.findall(COMPOSE.read_text()))

    def test_no_literal_secret(self) -> None:
        """Whatever is called a secret, a key or a password is a required variable; so are those inside addresses."""
        seen = 0
        for name, service in SERVICES.items():
            for variable, value in service.get("environment", {}).items():
                if re.search(r"SECRET|PASSWORD|TOKEN|_KEY", variable):
                    assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), (name, variable)
                    seen += 1
                without = compose_file.VARIABLE.sub("", value)
                assert re.search(r"://[^/@]*:[^/@]+@|authorization=Bearer%20.", without) is None, (name, variable)
        assert seen > 20

    def test_secrets_are_random_long_and_private(self, env_file: Path, tmp_path: Path) -> None:
        assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
        compose_env.write(tmp_path / "other")
        one, other = compose_file.read_env(env_file), compose_file.read_env(tmp_path / "other")
        assert len({*one.values(), *other.values()}) == 2 * len(compose_env.SECRETS)
        assert all(len(value) >= 20 and re.fullmatch(r"[\w=-]+", value) for value in one.values())

    def test_a_file_that_is_there_stays(self, env_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = env_file.read_text()
        assert cli.main(["compose-env", "--out", str(env_file)]) == 2
        assert "expected no such file, found one" in capsys.readouterr().err
        assert env_file.read_text() == before
        assert cli.main(["compose-env", "--force", "--out", str(env_file)]) == 0
        assert env_file.read_text() != before and stat.S_IMODE(env_file.stat().st_mode) == 0o600
        with pytest.raises(BadInput, match="--out: expected a file in a folder that exists, found"):
            compose_env.write(env_file.parent / "nowhere" / ".env")

    def test_the_secrets_are_said_neither_by_the_command_nor_to_git(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "secrets"
        cli.main(["compose-env", "--out", str(path)])
        said = capsys.readouterr().out
        assert str(path) in said and not [name for name, value in compose_file.read_env(path).items() if value in said]
        assert ".env" in (PROJECT / ".gitignore").read_text().splitlines()


class TestCommands:
    def test_tributarys_commands_exist(self) -> None:
        for name in ("cli", "trainer"):
            assert SERVICES[name]["entrypoint"] == ["tributary"]
            command = SERVICES[name]["command"]
            done = subprocess.run(
                [sys.executable, "-m", "tributary", *command], check=False, capture_output=True, text=True, cwd=PROJECT
            )
            assert done.returncode == 0, done.stderr

    def test_the_page_names_services_and_commands_that_exist(self) -> None:
        page = (PROJECT / "docs" / "compose.md").read_text()
        for name in re.findall(r"docker compose (?:run --rm|exec) (\w[\w-]*)", page):
            assert name in SERVICES, name
        for name, command in re.findall(r"docker compose run --rm (?:cli|trainer) ([a-z]\w*) ([\w-]+)", page):
            assert name in OWN or command in commands_of(name), (name, command)

    @pytest.mark.slow
    def test_airflows_and_sparks_commands_parse(self) -> None:
        """Of services, health checks and the first set-up; only `airflow users` belongs to a package that is in the image and not here."""
        script = (PROJECT / "docker" / "airflow-init.sh").read_text()
        commands = [line.split() for line in re.findall(r"airflow (?:db|pools) [^>&|\n]+", script)]
        for service in SERVICES.values():
            commands += [service.get("command", []), service.get("healthcheck", {"test": []})["test"][1:]]
        asked = 0
        for command in commands:
            if command[:1] not in (["airflow"], ["spark-class"]) and command[:2] != ["python", "-m"]:
                continue
            words = command[1 : 1 + (2 if command[1] in ("db", "jobs", "pools", "-m") else 1)]
            done = _run(command[0], *words, "--help")
            said = done.stdout + done.stderr
            assert done.returncode == 0 and all(option in said for option in command if option.startswith("--")), (
                command,
                said,
            )
            asked += 1
        assert asked == 12


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    """With this environment's commands first, as in the images."""
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=PROJECT, env=env, timeout=120)
