"""A token is nowhere but in the environment and in one header: not in logs, files or tracebacks."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from tests.planted import INPUTS, Healthy
from tests.validation.test_run import TOML, config, job
from twin.errors import ConfigError, PibTwinError
from twin.key import Key
from twin.registry import open_backend
from twin.remote.client import connect
from twin.remote.errors import Unauthorised
from twin.remote.secret import Secret
from twin.remote.server import Server, run, serve
from validation.cli import app
from validation.config import parse_config
from validation.report import write_report
from validation.run import run as trained
from validation.serving import devices

CANARY = "canary-59b1e0d7-do-not-print"
VARIABLE = "LABORATORY_TOKEN"
DRIVE = torch.full((2, INPUTS), 0.5)


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, CANARY)


@pytest.fixture
def noted(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything that anybody logs; at the end it has been looked through."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    assert CANARY not in caplog.text
    assert CANARY not in "".join(repr(vars(record)) for record in caplog.records)


def told(error: BaseException) -> str:
    """All that a debugger or a report would print of an error, but for the frames of tests."""
    shown = [str(error), repr(error), repr(error.__context__), repr(vars(error))]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if f"{os.sep}tests{os.sep}" not in frame.f_code.co_filename:
            shown += [f"{name} = {value!r}" for name, value in frame.f_locals.items()]
    return "\n".join(shown)


def files(folder: Path) -> list[Path]:
    """Files under `folder` that hold the token, in any of its usual coats."""
    coats = [CANARY.encode(), json.dumps(CANARY).encode(), CANARY.encode("utf-16-le"),
             CANARY.encode().hex().encode(), b"Y2FuYXJ5LTU5YjFlMGQ3"]  # fmt: skip
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert found
    return [path for path in found if any(coat in path.read_bytes() for coat in coats)]


def refusals(server: Server) -> list[PibTwinError]:
    """What goes wrong with a token, one error of each kind."""
    url = server.units["chip"]
    unit = connect(url, token=CANARY)
    errors = []
    for attempt in (
        lambda: connect(url),
        lambda: connect(url, token=CANARY + "x"),
        lambda: connect(url + "-2", token=CANARY),
        lambda: connect("http://rig.example.org/chip", token=CANARY),
        lambda: connect("http://127.0.0.1:1/chip", token=CANARY),
        lambda: connect(url, token=CANARY, deadline_s=-1),
        lambda: unit.forward(DRIVE * 9, key=Key(1)),
        lambda: (server.close(), unit.forward(DRIVE, key=Key(1))),
    ):
        with pytest.raises(PibTwinError) as caught:
            attempt()
        errors.append(caught.value)
    unit.close()
    return errors


def test_no_error_of_a_client_shows_it_nor_any_variable_on_the_way(
    noted: pytest.LogCaptureFixture,
) -> None:
    with serve({"chip": Healthy(Key(3))}, token=CANARY) as server:
        errors = refusals(server)
        assert len({type(error) for error in errors}) >= 5
        assert CANARY not in "".join(told(error) for error in errors)


def test_no_thread_of_a_server_holds_it_in_a_variable_between_requests() -> None:
    """What a debugger that is attached to the process prints first."""
    with serve({"chip": Healthy(Key(3))}, token=CANARY) as server:
        unit = connect(server.units["chip"], token=CANARY)
        unit.forward(DRIVE, key=Key(1))
        for frame in sys._current_frames().values():
            at: types.FrameType | None = frame
            while at is not None:
                if f"{os.sep}tests{os.sep}" not in at.f_code.co_filename:
                    assert CANARY not in repr(at.f_locals), at
                at = at.f_back
        assert CANARY not in repr([vars(server), vars(unit), vars(unit._transport)])
        unit.close()


def test_a_server_that_cannot_start_does_not_show_it(tmp_path: Path) -> None:
    cannot = tmp_path / "no-certificate.pem"
    for options in (
        {"host": "0.0.0.0"},
        {"port": -1},
        {"port": 2**16},
        {"certificate": cannot, "private_key": cannot},
        {"journal": "/dev/null/no"},
    ):
        made = {"chip": Healthy(Key(3))}
        with pytest.raises(Exception, match=r".") as caught:
            run(lambda made=made: made, lambda _: None, token=CANARY, **options)  # type: ignore[misc]
        assert CANARY not in told(caught.value)


def test_a_secret_is_not_written_anywhere() -> None:
    import copy
    import pickle

    made = Secret(CANARY)
    shown = [repr(made), str(made), f"{made}", f"{made!r}", repr([made]), repr({"token": made})]
    assert CANARY not in "".join(shown)
    for write in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps, vars):
        with pytest.raises(TypeError) as caught:
            write(made)  # type: ignore[operator]
        assert CANARY not in str(caught.value)


def test_recordings_and_journals_of_a_guarded_device_do_not_hold_it(
    tmp_path: Path, token: None, noted: pytest.LogCaptureFixture
) -> None:
    with serve({"chip": Healthy(Key(3))}, token=CANARY, journal=tmp_path / "journal") as server:
        far = open_backend(
            "recorded+" + server.units["chip"], key=Key(0), token_env=VARIABLE,
            record_to=tmp_path / "recording",
        )  # fmt: skip
        far.program(torch.zeros(INPUTS, 4), key=Key(1))
        far.forward(DRIVE, key=Key(2))
        assert CANARY not in repr(far.capabilities) and far.capabilities.device_id
        far.close()
    assert files(tmp_path) == []


def remote_config(server: Server, folder: Path, option: str = f'token_env = "{VARIABLE}"') -> str:
    units = TOML
    for url in server.units.values():
        # The first unit without a backend gets the next one.
        units = re.sub(
            r"\[\[unit\]\]\noutputs", f'[[unit]]\nbackend = "{url}"\noptions = {{ {option} }}\n'
            "outputs", units, count=1,
        )  # fmt: skip
    path = folder / "remote.toml"
    path.write_text(units)
    return units


def test_a_training_run_on_a_guarded_device_leaves_it_in_no_file_and_no_line(
    tmp_path: Path, token: None, noted: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with serve(devices(config(TOML), 64, Key(3)), token=CANARY) as server:
        (tmp_path / "in").mkdir()
        text = remote_config(server, tmp_path / "in").replace("epochs = 2", "epochs = 1")
        assert text.count("http://") == 2
        trained(job(tmp_path / "out", text))
    write_report(tmp_path / "out")
    assert {path.suffix for path in (tmp_path / "out").rglob("*.*")} >= {".html", ".json"}
    assert files(tmp_path) == []
    assert CANARY not in "".join(capfd.readouterr())


def test_no_variable_between_a_configuration_and_the_door_shows_it(token: None) -> None:
    with serve({"chip": Healthy(Key(3))}, token="b" * 20) as server:
        with pytest.raises(Unauthorised) as caught:
            open_backend(server.units["chip"], key=Key(0), token_env=VARIABLE)
        assert CANARY not in told(caught.value)


@pytest.mark.parametrize("wrong", ["token", "absent", "literal"])
def test_commands_that_are_refused_do_not_show_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    noted: pytest.LogCaptureFixture,
    wrong: str,
) -> None:
    with serve({"unit-1": Healthy(Key(3)), "unit-2": Healthy(Key(4))}, token="b" * 20) as server:
        url = server.units["unit-1"]
        option = f'token = "{CANARY}"' if wrong == "literal" else f'token_env = "{VARIABLE}"'
        remote_config(server, tmp_path, option)
        if wrong == "token":
            monkeypatch.setenv(VARIABLE, CANARY)
        given = [] if wrong == "literal" else ["--option", f"token_env={VARIABLE}"]
        config_ = str(tmp_path / "remote.toml")
        train = ["train", config_, "--quick", "--out", str(tmp_path / "out"), "--jobs", "1"]
        for words in (
            ["check", url, *given, "--out", str(tmp_path / "out")],
            ["fidelity", url, url, *given],
            *([] if wrong == "literal" else [train]),
        ):
            result = CliRunner().invoke(app, words)
            assert result.exit_code != 0
            assert CANARY not in result.output
            assert result.exception is None or CANARY not in told(result.exception)
    # Who writes a token into a file has it in that file, and only there.
    assert [path.name for path in files(tmp_path)] == ["remote.toml"] * (wrong == "literal")


@pytest.mark.parametrize(
    "url",
    [
        "http://user:{}@127.0.0.1:1/chip",
        "https://{}@127.0.0.1:1/chip",
        "http:/user:{}@127.0.0.1:1/chip",
        "http://127.0.0.1:1/chip?token={}",
        "http://127.0.0.1:1/chip#{}",
        "http://user:{}@127.0.0.1:port/chip",
        "http://127.0.0.1:1/chip;{}",
    ],
)
def test_a_url_that_holds_a_secret_is_refused_and_not_quoted(url: str, tmp_path: Path) -> None:
    url = url.format(CANARY)  # not in the name of a test, which runners keep in variables
    with pytest.raises(ConfigError) as caught:
        connect(url)
    assert CANARY not in str(caught.value) and "127.0.0.1" not in str(caught.value)
    result = CliRunner().invoke(app, ["check", url, "--out", str(tmp_path / "out")])
    assert result.exit_code != 0 and CANARY not in result.output
    assert not (tmp_path / "out").exists() or files(tmp_path) == []


@pytest.mark.parametrize(
    "line",
    [
        'options = { token = "CANARY" }',
        'twin_options = { password = "CANARY" }',
        'twin = "https://user:CANARY@127.0.0.1/chip"',
    ],
)
def test_a_configuration_that_holds_a_secret_is_refused_and_not_quoted(line: str) -> None:
    """It would be copied into every run folder."""
    line = line.replace("CANARY", CANARY)
    with pytest.raises(ConfigError, match="holds no token") as caught:
        parse_config(f'[[unit]]\nbackend = "ideal"\n{line}\n', "my.toml")
    assert CANARY not in str(caught.value)


def test_no_command_takes_a_token_on_its_line_where_everybody_could_read_it() -> None:
    """`ps` shows the words of a command to every user of the machine."""
    group = typer.main.get_command(app)
    named = {
        option
        for command in group.commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        for option in parameter.opts
    }
    assert {option for option in named if "token" in option or "secret" in option} == {
        "--token-env"
    }


def test_a_command_that_cannot_serve_does_not_print_it(
    tmp_path: Path, token: None, noted: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "one.toml").write_text('[[unit]]\nbackend = "ideal"\noutputs = 4\n')
    words = ["serve", str(tmp_path / "one.toml"), "--pixels", "8", "--token-env", VARIABLE]
    result = CliRunner().invoke(app, [*words, "--host", "0.0.0.0"])
    assert result.exit_code == 2 and "TLS" in result.output
    assert CANARY not in result.output
    assert result.exception is not None
    assert CANARY not in told(result.exception) + told(result.exception.__context__ or ValueError())
