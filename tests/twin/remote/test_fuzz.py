"""Mutated requests: no crash, no reply 500, no memory beyond what was sent."""

from __future__ import annotations

import json
import random
import tracemalloc

import pytest
import torch

from tests.planted import INPUTS, Healthy
from tests.twin.remote.support import ask, environ
from twin.key import Key
from twin.remote.app import App
from twin.remote.device import Device
from twin.remote.packing import Call, model_of, pack_call
from twin.remote.wire import Limits, Written, write_message

LIMITS = Limits(body_bytes=2**20, header_bytes=2**16)
ALLOWED = {200, 400, 404, 405, 409, 411, 413, 502}
NASTY = (
    b"NaN",
    b"1e999",
    b"-1",
    b"9" * 30,
    b"[" * 2000,
    b'"\\ud800"',
    b"null",
    b"true",
    b"{}",
    b"",
    b"1099511627776",
    b'{"kind": "Key", "fields": {"seed": true}}',
)


def seeds(device: Device) -> list[tuple[str, Written]]:
    """One valid request of every kind."""
    snapshot = Healthy(Key(3)).snapshot()
    drive = torch.rand((3, INPUTS), generator=Key(1).torch())
    calls = [
        Call(kind="forward", arguments={"drive": drive, "first_sample": 0, "shots": 2}, key=Key(1)),
        Call(kind="program", arguments={"setting": torch.zeros(INPUTS, 4)}, key=Key(2)),
        Call(kind="set_range", arguments={"drive": {"in": drive}}, key=Key(3)),
        Call(kind="adjust", arguments={"dial": "stuck", "value": torch.ones(4)}, key=Key(4)),
        Call(kind="wait", arguments={"seconds": 1.0}),
        Call(kind="snapshot"),
        Call(kind="restore", arguments={"snapshot": snapshot}),
    ]
    made = []
    for call in calls:
        packed = pack_call(call, device.capabilities)
        for binary in (True, False):
            path = f"/v2/models/unit.{model_of(call.kind)}/infer"
            header = {"id": call.kind, "parameters": packed.parameters}
            made.append((path, write_message(header, packed.tensors, "inputs", binary)))
    return made


def mutated(content: bytes, chance: random.Random) -> bytes:
    text = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at, kind = chance.randrange(len(text) + 1), chance.randrange(5)
        if kind == 0 and at < len(text):
            text[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            text[at : at + chance.randrange(20)] = b""
        elif kind == 2:
            text[at:at] = chance.choice(NASTY)
        elif kind == 3:
            stop = text.find(b",", at)
            text[at : stop if stop > at else at] = chance.choice(NASTY)
        else:
            start = chance.randrange(len(text) + 1)
            text[at:at] = text[start : start + chance.randrange(40)]
    return bytes(text)


def bombard(count: int, seed: int) -> int:
    """Send mutated requests; how many were refused."""
    chance = random.Random(seed)
    device = Device("unit", Healthy(Key(3)))
    app = App({"unit": device}, limits=LIMITS)
    valid, refused = seeds(device), 0
    tracemalloc.start()
    try:
        for number in range(count):
            path, message = chance.choice(valid)
            content = mutated(message.content, chance)
            behind = message.header_length
            if behind is not None and chance.random() < 0.3:
                behind = chance.choice(
                    [0, behind + 1, len(content), 2**40, chance.randrange(2**16)]
                )
            request = environ("POST", path, content, behind)
            if chance.random() < 0.1:
                wrong = chance.choice(["", "-5", "1e3", "9" * 12, str(2**20), "+3", "٣"])
                request["CONTENT_LENGTH"] = wrong
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            status, _, body = ask(app, request)
            grown = tracemalloc.get_traced_memory()[1] - before
            assert status in ALLOWED, (seed, number, status, body, content)
            # JSON in Python objects takes some 64 bytes a character at worst.
            assert grown < 2**20 + 100 * len(content), (seed, number, grown)
            if status != 200:
                assert json.loads(body)["error"]
                refused += 1
    finally:
        tracemalloc.stop()
    # The device is as well as before.
    path, message = valid[0]
    fresh = message.content.replace(b'"forward"', b'"fresh!!"')
    assert ask(app, environ("POST", path, fresh, message.header_length))[0] == 200
    device.close()
    return refused


def test_two_thousand_mutated_requests_are_answered() -> None:
    assert bombard(2_000, seed=1) > 1_000


@pytest.mark.slow
def test_a_hundred_thousand_mutated_requests_are_answered() -> None:
    assert sum(bombard(20_000, seed) for seed in range(5)) > 50_000


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_number_without_a_value_passes(number: float) -> None:
    device = Device("unit", Healthy(Key(3)))
    drive = torch.zeros(1, INPUTS)
    message = write_message({"id": "n"}, {"in": drive}, "inputs")
    assert message.header_length is not None
    bad = message.content[:-4] + torch.tensor([number]).numpy().tobytes()
    path = "/v2/models/unit.forward/infer"
    status, _, body = ask(App({"unit": device}), environ("POST", path, bad, message.header_length))
    assert status == 400 and b"NaN or infinite" in body
    device.close()


def test_a_size_that_does_not_fit_its_shape_is_refused_before_memory_is_taken() -> None:
    device = Device("unit", Healthy(Key(3)))
    entry = {"name": "in", "datatype": "FP32", "shape": [2**20, 2**20]}
    head = {"inputs": [{**entry, "parameters": {"binary_data_size": 4 * 2**40}}]}
    text = json.dumps(head).encode()
    tracemalloc.start()
    status, _, _ = ask(
        App({"unit": device}), environ("POST", "/v2/models/unit.forward/infer", text, len(text))
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert status == 400
    assert peak < 2**20
    device.close()
