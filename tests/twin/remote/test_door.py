"""The remote door as a client and an operator meet it."""

from __future__ import annotations

import json
import logging
import os
import struct
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch

from tests.planted import INPUTS, Healthy
from tests.twin.remote.support import Counting, Direct, ask, environ, local
from twin.backend import MinimalBackend
from twin.errors import (
    ConfigError,
    DialError,
    DriveError,
    PibTwinError,
    SnapshotError,
    Unsupported,
)
from twin.key import Key
from twin.plain import differs
from twin.registry import open_backend
from twin.remote.app import App
from twin.remote.client import Remote, connect
from twin.remote.device import Device
from twin.remote.errors import Outdated, Repeated, Unauthorised, UnknownModel
from twin.remote.secret import Secret
from twin.remote.server import serve
from validation.conformance import CHECKS, failed, run_checks

CANARY = "canary-7f3a91c2-do-not-print"
DRIVE = torch.full((2, INPUTS), 0.5)


@pytest.fixture
def door() -> Iterator[tuple[Remote, Device]]:
    remote, device, _ = local(Counting(Key(3)))
    yield remote, device
    device.close()


UNITS: dict[str, dict[str, Any]] = {
    "ideal": {},
    "memristor": {"inputs": 12, "outputs": 6, "array_rows": 8},
    "optics": {"inputs": 16, "pixels": 24},
    "slmsuite": {"inputs": 16, "pixels": 64},
}


@pytest.mark.parametrize(
    "unit",
    ["healthy", "ideal", "memristor", "optics", pytest.param("slmsuite", marks=pytest.mark.slow)],
)
def test_a_remote_backend_passes_the_same_checks_as_the_backend_itself(unit: str) -> None:
    def made() -> MinimalBackend:
        return (
            Healthy(Key(3)) if unit == "healthy" else open_backend(unit, key=Key(5), **UNITS[unit])
        )

    far = run_checks(lambda: local(made())[0])
    assert failed(far) == []
    assert len(far) == len(CHECKS)
    near = {o.check: o.status for o in run_checks(made)}
    assert {o.check: o.status for o in far} == near


def test_over_sockets_every_answer_is_the_same_to_the_last_bit() -> None:
    near = Healthy(Key(3))
    with serve({"chip": Healthy(Key(3))}) as server:
        far = connect(server.units["chip"])
        for device in (near, far):
            device.program(torch.full((INPUTS, 4), 0.25), key=Key(1))
            device.adjust("stuck", torch.tensor([0.0, 1, 0, 0]), key=Key(2))
            device.wait(3.0)
            device.set_range(DRIVE, key=Key(3))
        pair = [d.forward({"in": DRIVE}, key=Key(4), first_sample=5, shots=3) for d in (near, far)]
        assert not differs(*pair)
        assert not differs(near.snapshot(), far.snapshot())
        far.restore(near.snapshot())
        assert not differs(near.forward(DRIVE, key=Key(9)), far.forward(DRIVE, key=Key(9)))
        far.close()


def test_a_client_that_knows_only_the_protocol_can_use_a_unit() -> None:
    with serve({"chip": Healthy(Key(3))}) as server:
        base = f"{server.url}/v2"
        assert "binary_tensor_data" in _get(base)["extensions"]
        for page in ("/health/live", "/health/ready", "/models/chip.forward/versions/1/ready"):
            assert _get(base + page)
        told = _get(f"{base}/models/chip.forward")
        assert told["inputs"] == [{"name": "in", "datatype": "FP32", "shape": [-1, INPUTS]}]
        tensor = {"name": "in", "shape": [1, INPUTS], "datatype": "FP32"}
        asked = {"id": "a", "inputs": [{**tensor, "data": [[0.5] * INPUTS]}]}
        plain = _post(f"{base}/models/chip.forward/infer", json.dumps(asked).encode())
        numbers = {o["name"]: o["data"] for o in plain["outputs"]}
        assert numbers["supply"] == [0.5 * INPUTS]
        assert {"state_version", "clock_s", "saturated", "ratio"} <= set(plain["parameters"])
        head = {"inputs": [{**tensor, "parameters": {"binary_data_size": 4 * INPUTS}}]}
        text = json.dumps(head).encode()
        body = text + struct.pack(f"<{INPUTS}f", *[0.5] * INPUTS)
        again = _post(f"{base}/models/chip.forward/infer", body, len(text))
        assert again["outputs"][1]["data"] == [0.5 * INPUTS]


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.load(reply)


def _post(url: str, body: bytes, header_length: int | None = None) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": "application/octet-stream"})
    if header_length is not None:
        request.add_header("Inference-Header-Content-Length", str(header_length))
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


def test_errors_arrive_with_their_own_type(door: tuple[Remote, Device]) -> None:
    remote, _ = door
    with pytest.raises(DriveError, match="spans"):
        remote.forward(DRIVE * 9, key=Key(1))
    with pytest.raises(DialError, match="between"):
        remote.adjust("drift", 7.0, key=Key(1))
    broken = remote.snapshot()
    with pytest.raises(SnapshotError):
        remote.restore(type(broken)("another", broken.arrays, broken.values))
    ideal, device, _ = local(open_backend("ideal", key=Key(5)))
    with pytest.raises(Unsupported):
        ideal.snapshot()
    device.close()


def test_no_client_can_widen_a_limit_of_the_hardware(door: tuple[Remote, Device]) -> None:
    remote, device = door
    for call in (
        lambda: remote.program(torch.full((INPUTS, 4), 1.5), key=Key(1)),
        lambda: remote.forward(torch.zeros(257, INPUTS), key=Key(1)),
        lambda: remote.forward(torch.zeros(2, INPUTS), key=Key(1), shots=2**30),
        lambda: remote.wait(-1.0),
    ):
        with pytest.raises(PibTwinError):
            call()
    assert device._backend.snapshot().values["clock_s"] == 0.0  # type: ignore[attr-defined]


def test_an_id_that_returns_with_other_content_is_a_conflict(door: tuple[Remote, Device]) -> None:
    remote, _ = door
    first = remote.forward(DRIVE, key=Key(1).for_call("same"))
    assert not differs(first, remote.forward(DRIVE, key=Key(1).for_call("same")))
    with pytest.raises(Repeated):
        remote.forward(DRIVE * 0.5, key=Key(1).for_call("same"))


def test_an_outdated_writer_is_refused() -> None:
    first, device, network = local(Counting(Key(3)), optimistic=True)
    second = Remote(Direct(network.app), "unit", optimistic=True)
    first.program(torch.zeros(INPUTS, 4), key=Key(1))
    second.program(torch.zeros(INPUTS, 4), key=Key(2))
    with pytest.raises(Outdated, match="expected state version 1"):
        first.program(torch.ones(INPUTS, 4), key=Key(3))
    device.close()


def test_a_device_made_anew_is_not_taken_for_the_old_one() -> None:
    remote, device, network = local(Counting(Key(3)))
    network.app = App({"unit": Device("unit", Counting(Key(3)))})
    with pytest.raises(Outdated, match="made anew"):
        remote.forward(DRIVE, key=Key(1))
    device.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_other_addresses_than_loopback_need_tls_and_proof(host: str) -> None:
    chip = Counting(Key(3))
    with pytest.raises(ConfigError, match="without TLS"):
        serve({"chip": chip}, host=host, token=CANARY)
    assert chip.closed == 1
    with pytest.raises(ConfigError, match="anybody could drive"):
        serve({"chip": Counting(Key(3))}, host=host, certificate="c", private_key="k")


def test_a_token_is_needed_and_never_shown(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = [repr(Secret(CANARY)), str(Secret(CANARY))]
    with serve({"chip": Healthy(Key(3))}, token=CANARY) as server:
        url = server.units["chip"]
        right = connect(url, token=CANARY)
        right.forward(DRIVE, key=Key(1))
        for attempt in (
            lambda: connect(url),
            lambda: connect(url, token=CANARY[:-1]),
            lambda: right.forward(DRIVE * 9, key=Key(1)),
            lambda: connect(url + "x", token=CANARY),
            lambda: connect("http://example.org/u", token=CANARY),
        ):
            with pytest.raises((Unauthorised, DriveError, UnknownModel, ConfigError)) as caught:
                attempt()
            lines = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            frames = [line for line in lines.format() if "twin/remote" in line]
            shown += [*frames, repr(right), repr(server), repr(vars(right)), repr(vars(server))]
        right.close()
    shown += [caplog.text, *capfd.readouterr()]
    assert CANARY not in "".join(shown)


def test_a_page_in_a_browser_cannot_reach_the_device() -> None:
    device = Device("unit", Counting(Key(3)))
    request = environ("GET", "/v2", HTTP_ORIGIN="https://example.org")
    assert ask(App({"unit": device}), request)[0] == 403
    device.close()


def test_every_device_is_closed_exactly_once() -> None:
    chips = {"a": Counting(Key(1)), "b": Counting(Key(2))}
    with ExitStack() as stack:
        server = stack.enter_context(serve(chips))
        server.close()
        server.close()
    assert [chip.closed for chip in chips.values()] == [1, 1]
    assert os.environ.get("LISTEN_PID") is None
