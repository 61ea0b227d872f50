"""Damage of a recording is found and named, and nothing in one is ever run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_tensors

from tests.planted import Healthy
from tests.twin.tapes import drive, files, taped
from twin import recordingv1
from twin.blocks import CALLS, CLOSED, HEADER, block_path
from twin.errors import DataError
from twin.files import digest
from twin.key import Key
from twin.plain import pack
from twin.recording import Recording
from twin.recordingtold import describe
from twin.replay import replay
from twin.seal import BLANK, sealed, sealed_json
from twin.wrap import Recorded

GOLDEN_1 = Path(__file__).parent / "data" / "recording-format-1"


@pytest.fixture(params=["closed", "unclosed", "format 1"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "format 1":
        return Path(shutil.copytree(GOLDEN_1, tmp_path / "run"))
    return taped(tmp_path / "run", close=request.param == "closed")


def parts(folder: Path) -> list[Path]:
    return files(folder) if (folder / CALLS).exists() else sorted(folder.iterdir())


# ---- damage ----------------------------------------------------------------------


def test_a_file_cut_anywhere_is_refused_by_name(folder: Path) -> None:
    old = not (folder / CALLS).exists()
    for file in parts(folder):
        data = file.read_bytes()
        cuts = {0, 1, 7, 8, 9, len(data) // 2, len(data) - 65, len(data) - 1}
        for keep in sorted({*cuts, *range(0, len(data), 41)}):
            file.write_bytes(data[:keep])
            with pytest.raises(DataError, match="run" if old else file.name):
                Recording.load(folder)
        file.write_bytes(data)
    Recording.load(folder)


def test_any_flipped_bit_is_found_and_its_file_named(folder: Path) -> None:
    draw, old = Key(0).numpy(), not (folder / CALLS).exists()
    for file in parts(folder):
        data = file.read_bytes()
        for _ in range(120):
            spoilt = bytearray(data)
            spoilt[draw.integers(len(data))] ^= 1 << int(draw.integers(8))
            file.write_bytes(bytes(spoilt))
            # A link that is spoilt shows as a block that does not follow it.
            with pytest.raises(DataError, match="run" if old else r"\.block|json"):
                Recording.load(folder)
        file.write_bytes(data)
    Recording.load(folder)


@pytest.mark.slow
def test_a_flipped_bit_in_any_byte_of_a_recording_is_found(tmp_path: Path) -> None:
    folder = taped(tmp_path / "run")
    for file in parts(folder):
        data = file.read_bytes()
        for place in range(len(data)):
            spoilt = bytearray(data)
            spoilt[place] ^= 1 << place % 8
            file.write_bytes(bytes(spoilt))
            with pytest.raises(DataError):
                Recording.load(folder)
        file.write_bytes(data)


def test_damage_in_a_block_is_found_without_a_first_look_when_it_is_read(tmp_path: Path) -> None:
    folder = taped(tmp_path / "run")
    path = block_path(folder, 1)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"000000001\.block"):
        Recording.load(folder)
    calls = Recording.load(folder, verify=False).calls
    assert calls[0].kind == "program" and calls[2].kind == "wait"
    with pytest.raises(DataError, match=r"000000001\.block"):
        calls[1]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("closed", [True, False])
def test_a_missing_block_in_the_middle_is_named(number: int, closed: bool, tmp_path: Path) -> None:
    folder = taped(tmp_path / "run", close=closed)
    block_path(folder, number).unlink()
    with pytest.raises(DataError, match=rf"00000000{number}\.block: the block is missing"):
        Recording.load(folder)


def test_a_missing_last_block_shows_where_the_recording_was_closed(tmp_path: Path) -> None:
    folder = taped(tmp_path / "run")
    block_path(folder, 2).unlink()
    with pytest.raises(DataError, match=r"000000002\.block: the block is missing \(3 calls"):
        Recording.load(folder)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    for name in (HEADER, CALLS):
        folder = taped(tmp_path / name.strip("."))
        gone = folder / name
        gone.rename(tmp_path / f"gone {name}")
        with pytest.raises(DataError, match=name):
            Recording.load(folder)
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        Recording.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=HEADER):
        Recording.load(folder / HEADER)


def test_blocks_that_changed_places_or_came_from_elsewhere_are_refused(tmp_path: Path) -> None:
    folder, other = taped(tmp_path / "run"), taped(tmp_path / "other")
    a, b = block_path(folder, 0), block_path(folder, 1)
    one, two = a.read_bytes(), b.read_bytes()
    a.write_bytes(two)
    b.write_bytes(one)
    with pytest.raises(DataError, match=r"000000000\.block.*follow"):
        Recording.load(folder)
    a.write_bytes(one)
    b.write_bytes(block_path(other, 1).read_bytes())
    with pytest.raises(DataError, match=r"\.block.*follow"):
        Recording.load(folder)
    b.write_bytes(two)
    (folder / CLOSED).write_bytes((other / CLOSED).read_bytes())
    with pytest.raises(DataError, match=CLOSED):
        Recording.load(folder)


def test_calls_after_the_end_are_refused(tmp_path: Path) -> None:
    folder, short = taped(tmp_path / "run"), tmp_path / "short"
    recording = Recording.load(folder)
    Recording(recording.capabilities, recording.calls[:2]).save(short)
    end = json.loads((short / CLOSED).read_bytes())
    content = {"count": 2, "last": end["last"], "closed_unix_s": 0.0}
    (folder / CLOSED).write_bytes(sealed_json(content)[0])
    with pytest.raises(DataError, match="closes another recording"):
        Recording.load(folder)


def test_drafts_that_a_kill_left_are_no_calls(tmp_path: Path) -> None:
    folder = taped(tmp_path / "run", close=False)
    (folder / CALLS / ".000000003.block.0123.tmp").write_bytes(b"half")
    assert len(Recording.load(folder).calls) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", [HEADER, CLOSED, f"{CALLS}/000000001.block"])
def test_a_pipe_in_place_of_a_file_blocks_nobody(name: str, tmp_path: Path) -> None:
    folder = taped(tmp_path / "run")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DataError):
        Recording.load(folder)


# ---- malice ----------------------------------------------------------------------


class Bomb:
    fuse: Path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.fuse,))


def block(call: Any, previous: str, number: str = "0") -> bytes:
    """A block with right links and any content."""
    text = call if isinstance(call, str) else json.dumps(call)
    link = {"format": "2", "number": number, "previous": previous, "seal": BLANK}
    return sealed(save_tensors({}, metadata={**link, "call": text}))[0]


def test_a_malicious_pickle_is_refused_without_being_run(folder: Path, tmp_path: Path) -> None:
    Bomb.fuse = tmp_path / "exploded"
    for file in parts(folder):
        data = file.read_bytes()
        for bomb in (pickle.dumps(Bomb()), data[:8] + pickle.dumps(Bomb()), data + b"." * 9):
            file.write_bytes(bomb)
            for read in (Recording.load, replay):
                with pytest.raises(DataError):
                    read(folder)
            with suppress(DataError):  # or it tells the damage in a line
                assert "damaged" in dict(describe(folder))["digests"]
        file.write_bytes(data)
    assert not Bomb.fuse.exists()


def test_what_a_bomb_is_made_of_would_explode(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    Bomb.fuse = tmp_path / "exploded"
    pickle.loads(pickle.dumps(Bomb()))
    assert Bomb.fuse.exists()


DEEP = "[" * 100_000 + "]" * 100_000
FORGED_CALLS: dict[str, Any] = {
    "deep": DEEP,
    "deep map": '{"kind":"wait","inputs":' + '{"map":{"a":' * 20_000 + "1" + "}}" * 20_000 + "}",
    "not json": "import os",
    "number": "7",
    "long number": "9" * 5000,
    "list": [],
    "empty": {},
    "kind": {"kind": "__class__", "inputs": {"map": {}}, "key": None, "answer": None},
    "class": {"kind": {"kind": "Path", "fields": {}}, "inputs": {"map": {}}},
    "path": {"kind": "wait", "inputs": {"kind": "PosixPath", "fields": {"0": "/tmp"}}},
    "inputs": {"kind": "wait", "inputs": 3, "key": None, "answer": None, "error": None},
    "key": {"kind": "wait", "inputs": {"map": {}}, "key": 3, "answer": None, "error": None},
    "seed": {
        "kind": "wait",
        "inputs": {"map": {}},
        "key": {"kind": "Key", "fields": {"seed": "x"}},
        "answer": None,
        "error": None,
    },
    "tensor": {
        "kind": "wait",
        "inputs": {"map": {"seconds": {"tensor": "t0"}}},
        "key": None,
        "answer": None,
        "error": None,
    },
    "error": {"kind": "wait", "inputs": {"map": {}}, "key": None, "answer": None, "error": "boom"},
    "timing": {
        "kind": "wait",
        "inputs": {"map": {}},
        "key": None,
        "answer": None,
        "error": None,
        "timing": {"began": 1},
    },
}


@pytest.mark.parametrize("what", FORGED_CALLS)
def test_a_forged_block_with_right_seals_is_refused_by_name(what: str, tmp_path: Path) -> None:
    folder = taped(tmp_path / "run", close=False)
    seal = json.loads((folder / HEADER).read_bytes())["seal"]
    for number in (1, 2):
        block_path(folder, number).unlink()
    block_path(folder, 0).write_bytes(block(FORGED_CALLS[what], seal))
    with pytest.raises(DataError, match=r"000000000\.block"):
        _ = Recording.load(folder).calls[0]


def packed_chip() -> Any:
    return pack(Healthy(Key(3)).capabilities, {})


@pytest.mark.parametrize(
    "forged",
    [
        {"format": 2, "capabilities": None, "versions": {}},
        {"format": 2, "capabilities": {"kind": "Path", "fields": {}}, "versions": {}},
        {"format": 2, "capabilities": {"kind": "Port", "fields": {"nothing": 1}}, "versions": {}},
        {"format": 2, "capabilities": packed_chip(), "versions": 3},
        {"format": 2, "capabilities": packed_chip(), "versions": {"torch": {}}},
        {"format": 2, "capabilities": packed_chip(), "versions": {}, "created_unix_s": "x"},
        {"format": 3, "capabilities": packed_chip(), "versions": {}},
        {"capabilities": packed_chip()},
    ],
)
def test_a_forged_head_with_a_right_seal_is_refused(forged: Any, tmp_path: Path) -> None:
    (tmp_path / CALLS).mkdir()
    (tmp_path / HEADER).write_bytes(sealed_json(forged)[0])
    with pytest.raises(DataError):
        Recording.load(tmp_path)


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 50_000, "7", "[]", '{"format": NaN}', "\x00"])
def test_a_head_that_is_no_head_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / HEADER).write_text(text)
    with pytest.raises(DataError, match=HEADER):
        Recording.load(tmp_path)


@pytest.mark.parametrize(
    "forged",
    [
        {"format": 1, "capabilities": None, "calls": []},
        {"format": 1, "capabilities": {"kind": "Path", "fields": {}}, "calls": []},
        {"format": 1, "capabilities": {"tensor": "t99"}, "calls": []},
        {"format": 1, "capabilities": packed_chip(), "calls": [7]},
        {"format": 1, "calls": [{}]},
        {"format": 1},
    ],
)
def test_a_forged_old_recording_with_right_digests_is_refused(forged: Any, tmp_path: Path) -> None:
    content = {
        recordingv1.STRUCTURE: json.dumps(forged).encode(),
        recordingv1.TENSORS: save_tensors({}),
    }
    digests = {name: digest(data) for name, data in content.items()}
    content[recordingv1.MANIFEST] = json.dumps(digests, indent=1).encode()
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match="format 1"):
        Recording.load(tmp_path)


@pytest.mark.parametrize("length", [2**63, 2**40, 0])
def test_a_forged_length_allocates_nothing(length: int, tmp_path: Path) -> None:
    folder = taped(tmp_path / "run")
    path = block_path(folder, 0)
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(DataError, match=path.name):
        Recording.load(folder)


def test_names_that_look_like_a_seal_do_no_harm(tmp_path: Path) -> None:
    device = Recorded(Healthy(Key(3)), to=tmp_path / "run")
    key = Key(1).child(f'"seal":"{BLANK}"').for_call(f'"seal":"{BLANK}')
    reading = device.forward({"in": drive()}, key=key)
    device.close()
    (call,) = Recording.load(tmp_path / "run").calls
    assert call.id == key.call_id and torch.equal(call.answer.codes, reading.codes)
