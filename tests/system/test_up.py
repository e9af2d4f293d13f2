from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.system.running import FREE_PORTS, SERVICES, Up, alive, health, running_up, wait_until, winnow


def test_up_is_ready_when_every_health_check_says_serving(up: Up) -> None:
    assert set(up.addresses) == set(SERVICES)
    assert {name: health(address) for name, address in up.addresses.items()} == dict.fromkeys(SERVICES, "SERVING")


def test_every_service_is_a_process_of_its_own_in_a_session_of_its_own(up: Up) -> None:
    pids = {name: up.pid(name) for name in SERVICES}
    assert len(set(pids.values())) == 4
    assert all(os.getsid(pid) == pid for pid in pids.values())


@pytest.mark.parametrize("service", ["gateway", "reranker"])
def test_a_killed_service_is_told_of_restarted_on_its_port_and_serves_again(up: Up, service: str) -> None:
    position, pid = up.position(), up.pid(service)
    up.kill_service(service)
    died = up.wait_for("died", after=position, child=service, seconds=10)
    assert died["exit_status"] == -signal.SIGKILL
    assert "killed by SIGKILL; restarting it in" in died["message"]
    up.wait_for("back", after=position, child=service)
    assert up.pid(service) != pid
    assert health(up.addresses[service]) == "SERVING"
    assert all(health(address) == "SERVING" for address in up.addresses.values())


def test_sigterm_drains_and_leaves_no_process(tmp_path: Path) -> None:
    with running_up(tmp_path, *FREE_PORTS) as up:
        up.ready()
        assert all(map(alive, up.pids))
        assert up.stop() == 0
        assert not any(map(alive, up.pids))
        order = [event["service"] for event in up.events("stopped")]
        assert (order[0], order[-2:]) == ("gateway", ["index", "winnow"])
        assert not up.events("died")


def test_kill_9_of_up_leaves_no_process(tmp_path: Path) -> None:
    with running_up(tmp_path, *FREE_PORTS) as up:
        up.wait_for("listening", service="index")
        wait_until(lambda: len(up.pids) >= 3, seconds=10)
        up.process.kill()
        up.process.wait()
        wait_until(lambda: not any(map(alive, up.pids)), seconds=10)


def test_a_port_in_use_is_one_sentence_that_names_it_and_exit_status_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = winnow("up", "--json", *FREE_PORTS, "--index-port", str(port), cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: index cannot start: ")
    assert f"127.0.0.1:{port}" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_data_directory_in_use_by_another_up_is_named_and_harms_neither(up: Up, tmp_path: Path) -> None:
    held = next(event for event in up.events("ready"))["data"]
    ended = winnow("up", "--json", *FREE_PORTS, "--data", held, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: index cannot start: ")
    assert held in ended.stderr
    assert "in use" in ended.stderr
    assert health(up.addresses["index"]) == "SERVING"


def test_a_file_in_place_of_the_data_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    for data in ("file", "file/data"):
        ended = winnow("up", *FREE_PORTS, "--data", data, cwd=tmp_path)
        assert ended.returncode == 1
        assert ended.stderr.startswith(f"Error: the data directory {data} cannot be made: ")
        assert ended.stderr.count("\n") == 1


def test_a_model_folder_that_is_none_is_one_sentence_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = winnow("up", "--json", *FREE_PORTS, "--model", str(tmp_path / "empty"), cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: embedder cannot start: ")
    assert "empty" in ended.stderr
    assert ended.stderr.count("\n") == 1
