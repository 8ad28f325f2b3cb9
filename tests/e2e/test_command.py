"""What people type and what they are told."""

import asyncio
import json
import os
import shutil
import signal
import time

import pytest

from tests.answers import documented


async def test_sync_then_verify_says_in_step(replicator, witness):
    """One pass moves both ways and says so with exit code 0; verify agrees."""
    path = replicator.home / "export/out/a b.txt"
    path.parent.mkdir()
    path.write_bytes(b"hello")
    await witness.put("incoming/x", b"down")

    synced = await replicator("sync")
    verified = await replicator("verify")

    assert synced.code == 0, synced.err
    assert "in step" in synced.out
    assert await witness.get("sent/a b.txt") == b"hello"
    assert (replicator.home / "export/in/x").read_bytes() == b"down"
    assert verified.code == 0
    assert "0 differences" in verified.out


async def test_dry_run_prints_the_plan_and_moves_nothing(replicator, witness):
    """The plan names action, size, target and path; neither side changes."""
    path = replicator.home / "export/out/f"
    path.parent.mkdir()
    path.write_bytes(b"hello")
    await witness.put("incoming/x", b"down")

    text = await replicator("sync", "--dry-run")
    as_json = await replicator("sync", "--dry-run", "--json")

    assert text.code == 0, text.err
    assert [line.split()[0] for line in text.out.splitlines()] == ["copy", "copy"]
    assert {(step["action"], step["relpath"]) for step in documented("sync --dry-run", as_json.out)} == {
        ("copy", "f"),
        ("copy", "x"),
    }
    assert await witness.keys("sent/") == []
    assert not (replicator.home / "export/in").exists()


async def test_verify_names_differences_with_exit_code_3(replicator, witness):
    """A changed file, a foreign object and a missing one are each named."""
    for name in ("kept", "changed", "overwritten"):
        path = replicator.home / "export/out" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    await witness.put("incoming/gone", b"x")
    await replicator("sync")
    (replicator.home / "export/out/changed").write_bytes(b"longer")
    await witness.put("sent/overwritten", b"y")
    (replicator.home / "export/in/gone").unlink()

    result = await replicator("verify", "--json")

    assert result.code == 3
    found = {item["target"]: item["differences"] for item in documented("verify", result.out)}
    assert set(found["workload/egress/sent"]) == {"changed", "overwritten"}
    assert found["workload/ingress/incoming"] == {"gone": "missing on the device"}


async def test_verify_deep_compares_contents_and_not_what_the_journal_says(replicator, witness):
    """With the journal gone, equal contents are equal, other bytes of the same length are not, in parts or whole."""
    out = replicator.home / "export/out"
    out.mkdir()
    for name in ("same", "flipped"):
        (out / name).write_bytes(b"content")
    (out / "large").write_bytes(os.urandom(6 * 2**20))
    more = {"REPLICATOR_PART_SIZE_BYTES": str(5 * 2**20)}
    synced = await replicator("sync", "--json", **more)
    assert documented("sync", synced.out)["is_ready"]
    shutil.rmtree(replicator.home / "state")
    await witness.put("sent/flipped", b"CONTENT")

    shallow = await replicator("verify", "--json", **more)
    deep = await replicator("verify", "--deep", "--json", **more)

    by_target = [{item["target"]: item for item in json.loads(result.out)} for result in (shallow, deep)]
    assert set(by_target[0]["workload/egress/sent"]["differences"]) == {"same", "flipped", "large"}
    assert by_target[1]["workload/egress/sent"]["differences"] == {"flipped": "the contents differ"}
    assert by_target[1]["workload/egress/sent"]["equal"] == 2
    assert deep.code == 3


@pytest.mark.fault("C5")
async def test_request_that_nobody_answers_does_not_keep_the_service_from_ending(replicator, until):
    """Two signals end it within seconds and with exit code 0, though a thread is stuck in a request for minutes."""
    out = replicator.home / "export/out"
    out.mkdir()
    (out / "f").write_bytes(b"x")

    async def be_deaf(reader, writer):
        asked.append(await reader.readuntil(b"\r\n"))
        await over.wait()
        writer.close()

    asked: list[bytes] = []
    over = asyncio.Event()
    server = await asyncio.start_server(be_deaf, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    words = {"OBC_BUCKET_HOST": "127.0.0.1", "OBC_BUCKET_PORT": str(port), "REPLICATOR_INGRESS": ""}
    async with replicator.running(REPLICATOR_READ_TIMEOUT_S="300", **words) as service:
        await until(lambda: asked)
        service.process.send_signal(signal.SIGTERM)
        await until(lambda: any("signal received" in line for line in service.log))
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        await service.process.wait()

    assert service.process.returncode == 0
    assert time.monotonic() - began < 10
    over.set()
    server.close()
    await server.wait_closed()


async def test_cap_is_lifted_while_the_service_runs(replicator, witness, until):
    """A cap of the settings file is in force, shown, and changed by editing the file; SIGHUP reads it at once."""
    out = replicator.home / "export/out"
    out.mkdir()
    settings = replicator.home / "settings.yaml"
    settings.write_text("bandwidth: 20KiB/s:unlimited\n")
    async with replicator.running(REPLICATOR_CONFIG=str(settings)) as service:
        await until(service.is_in_step)
        for number in range(3):
            (out / f"f{number}").write_bytes(bytes(100_000))
        await until(lambda: witness.keys("sent/"))
        status = await service.status()
        assert status["link"]["up_limit"] == 20 * 1024
        assert len(await witness.keys("sent/")) < 3

        settings.write_text("bandwidth: nonsense\n")
        service.process.send_signal(signal.SIGHUP)
        await until(lambda: any("settings rejected" in line for line in service.log))
        settings.write_text("bandwidth: unlimited\nread_timeout_s: 31\n")
        service.process.send_signal(signal.SIGHUP)

        await until(lambda: any("settings read again" in line and "read_timeout_s" in line for line in service.log))
        await until(service.is_in_step, within_s=8)  # 300,000 bytes would take 14 s at the cap
        assert len(await witness.keys("sent/")) == 3


async def test_targets_shows_the_mapping_and_where_it_came_from(replicator):
    """Path, object URL, endpoint, and the words that said so; no secret."""
    result, as_json = await asyncio.gather(replicator("targets"), replicator("targets", "--json"))

    assert result.code == 0
    assert f"{replicator.home}/export/out -> s3://" in result.out
    assert f"{replicator.home}/export/in <- s3://" in result.out
    assert "REPLICATOR_EGRESS" in result.out
    assert "OBC_" in result.out
    assert [one["direction"] for one in documented("targets", as_json.out)] == ["egress", "ingress"]


@pytest.mark.fault("D6")
async def test_settings_shows_values_and_origins(replicator):
    """Every setting with who said so: flag over environment over file over default."""
    config = replicator.home / "config.yaml"
    config.write_text("transfers: 3\nsweep_interval_s: 99\nlog_level: debug\n")

    result = await replicator("settings", "--json", "--log-level", "error", "--config", str(config))

    found = documented("settings", result.out)
    assert found["log_level"] == {"value": "error", "origin": "flag --log-level"}
    assert found["sweep_interval_s"] == {"value": "1", "origin": "environment REPLICATOR_SWEEP_INTERVAL_S"}
    assert found["transfers"]["value"] == "3"
    assert "config.yaml" in found["transfers"]["origin"]
    assert found["drain_timeout_s"]["origin"] == "default"


@pytest.mark.fault("C5")
async def test_running_service_answers_and_ends_on_sigterm(replicator, witness, until):
    """Metrics, health, readiness, status and the status command; SIGTERM drains and ends with 0."""
    (replicator.home / "export/out").mkdir()
    async with replicator.running() as service:
        await until(service.is_in_step)
        assert (await service.get("/healthz"))[0] == 200
        assert (await service.get("/readyz"))[0] == 200
        assert "replicator_build_info" in (await service.get("/metrics"))[1]
        asked = await replicator("status", REPLICATOR_HTTP_LISTEN=f"127.0.0.1:{service.port}")
        assert asked.code == 0, asked.err
        assert "in step" in asked.out
        (replicator.home / "export/out/last").write_bytes(b"words")

    assert service.process.returncode == 0
    assert await witness.get("sent/last") == b"words"
    assert "drained" in "".join(service.log)


async def test_status_without_a_running_replicator_says_so(replicator):
    """One line, the address asked, and a question that helps."""
    result = await replicator("status", REPLICATOR_HTTP_LISTEN="127.0.0.1:9")

    assert result.code == 1
    assert "127.0.0.1:9" in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"REPLICATOR_SWEEP_INTERVALS": "3"}, ["REPLICATOR_SWEEP_INTERVALS", "REPLICATOR_SWEEP_INTERVAL_S"]),
        ({"REPLICATOR_TRANSFERS": "many"}, ["REPLICATOR_TRANSFERS", "integer"]),
        ({"REPLICATOR_EGRESS": "../other=x"}, ["REPLICATOR_EGRESS", ".."]),
        ({"REPLICATOR_EGRESS": "out=incoming"}, ["incoming"]),
        ({"REPLICATOR_CONFIG": "/nowhere/config.yaml"}, ["/nowhere/config.yaml"]),
        ({"OBC_BUCKET_NAME": ""}, ["BUCKET_NAME"]),
        ({"OBC_BUCKET_PORT": "abc"}, ["BUCKET_PORT"]),
        ({"OBC_BUCKET_HOST": "https://host"}, ["BUCKET_HOST"]),
        ({"REPLICATOR_STATE_DIR": "/proc/nowhere"}, ["/proc/nowhere"]),
        ({"REPLICATOR_HTTP_LISTEN": "127.0.0.1:99999"}, ["HTTP_LISTEN"]),
    ],
)
async def test_wrong_configuration_is_one_line_and_exit_code_2(replicator, environment, words):
    """What, where and the fix; nothing starts and no traceback frightens anybody."""
    result = await replicator("run", **environment)

    assert result.code == 2, result.err
    line = result.err.splitlines()[-1]
    assert all(word in line for word in words), line
    assert "Traceback" not in result.err


async def test_help_of_a_command_keeps_settings_apart(bare):
    """Its own arguments and options come first; the settings say how else they are given."""
    text = (await bare("explain", "--help")).out

    arguments, options, settings = (
        text.index(f"\n{title}") for title in ("Arguments:", "Options:", "Settings (also as")
    )
    assert arguments < options < text.index("--json") < settings < text.index("--sweep-interval-s")
    assert "--source env|files|edge-api|kubernetes" in text


async def test_slip_on_the_command_line_names_what_was_meant(bare):
    """The nearest command and the nearest option; a setting that stands before its command is told its place."""
    command, option, place = await asyncio.gather(
        bare("statsu"), bare("status", "--wacth"), bare("--config", "/x.yaml", "settings")
    )

    assert (command.code, option.code, place.code) == (2, 2, 2)
    assert "Did you mean 'status'" in command.err
    assert "--watch" in option.err
    assert "settings follow the command, as in `replicator settings --config VALUE`" in place.err


async def test_broken_yaml_is_one_line_with_its_place(replicator):
    """A malformed file names itself and the line."""
    config = replicator.home / "config.yaml"
    config.write_text("transfers: 3\n  broken: [\n")

    result = await replicator("run", "--config", str(config))

    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert "config.yaml" in result.err


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OBC_BUCKET_NAME": "no-such-bucket-anywhere"}, ["no-such-bucket-anywhere", "bucket"]),
        ({"OBC_BUCKET_PORT": "9"}, ["127.0.0.1:9"]),
    ],
)
async def test_remote_fault_is_a_visible_state_and_not_an_exit(replicator, until, environment, words):
    """The process stays, retries, and says in status, readiness and the log what is wrong; its drain is short."""
    path = replicator.home / "export/out/f"
    path.parent.mkdir()
    path.write_bytes(b"x")
    async with replicator.running(REPLICATOR_DRAIN_TIMEOUT_S="0", **environment) as service:

        async def is_blocked():
            view = await service.target("egress")
            return view if view and view["state"] == "blocked" and view["pending_files"] else None

        view = await until(is_blocked)
        assert all(word in view["reason"] + view["endpoint"] for word in words), view
        assert view["fix"]
        assert (await service.get("/readyz"))[0] == 503
        assert (await service.get("/healthz"))[0] == 200

    assert service.process.returncode == 0
    assert any("WARNING" in line or '"warning"' in line.lower() for line in service.log)


@pytest.mark.fault("B17", "F9")
async def test_refused_credentials_are_a_visible_state_that_names_the_fix(replicator, stub_s3, reply, until):
    """A store that refuses the key is asked at a slow pace, and people are told what to check; no secret is shown."""
    stub_s3.default = reply(403, body=b"<Error><Code>InvalidAccessKeyId</Code><Message>no such key</Message></Error>")
    path = replicator.home / "export/out/f"
    path.parent.mkdir()
    path.write_bytes(b"x")
    words = {"OBC_BUCKET_PORT": str(stub_s3.port), "REPLICATOR_DRAIN_TIMEOUT_S": "0"}
    async with replicator.running(OBC_AWS_SECRET_ACCESS_KEY="canary-secret-value", **words) as service:

        async def is_blocked():
            view = await service.target("egress")
            return view if view and view["state"] == "blocked" else None

        view = await until(is_blocked)
        assert "InvalidAccessKeyId" in view["reason"]
        assert "access key" in view["fix"]

    assert "canary-secret-value" not in "".join(service.log)


@pytest.mark.fault("C7")
async def test_second_process_on_one_state_directory_is_refused(replicator, until):
    """The lock's owner is named."""
    async with replicator.running() as service:
        await until(service.is_in_step)
        second = await replicator("sync")

        assert second.code == 1
        assert str(service.process.pid) in second.err


async def test_interrupt_ends_a_run_like_sigterm(replicator, until):
    """Ctrl-C on a terminal drains too."""
    async with replicator.running() as service:
        await until(service.is_in_step)
        os.kill(service.process.pid, signal.SIGINT)
        await service.process.wait()

        assert service.process.returncode == 0


async def test_help_names_every_command(bare):
    """`replicator --help` is the table of contents; what a command does is not cut short there."""
    result = await bare("--help")

    assert result.code == 0
    assert "..." not in result.out.replace("[ARGS]...", "")
    for command in ("run", "sync", "status", "explain", "verify", "doctor", "targets", "settings", "demo"):
        assert f" {command} " in result.out
