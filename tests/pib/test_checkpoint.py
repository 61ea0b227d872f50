"""A checkpoint is whole, or refused by name; nothing in it is ever run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pib import checkpoint
from tests.pib import tiny
from twin.errors import CheckpointError
from twin.files import digest, write_atomic
from twin.key import Key

ARRAYS = {
    "trainer.network.w": torch.arange(6.0).view(2, 3),
    "trainer.measured.0": torch.rand((4, 3), generator=Key(0).torch()),
    "trainer.measured.1": torch.rand((4, 2), generator=Key(1).torch()),
    "device.codes": torch.arange(4, dtype=torch.int64),
}
TEXT = {"trainer.step": "3", "note.wall_seconds": "1.5", "note.name": "Größe µ"}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    checkpoint.save(folder, ARRAYS, TEXT)
    return folder


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "run")
    return tmp_path / "run"


def test_what_is_saved_comes_back(good: Path) -> None:
    loaded = checkpoint.load(good)
    assert tiny.same_tensors(dict(loaded.arrays), ARRAYS)
    assert loaded.text == TEXT
    assert len(checkpoint.files(good)) == 4  # a manifest, the state, two bulky blocks


def test_saving_does_not_alias_and_leaves_one_checkpoint(tmp_path: Path) -> None:
    arrays = {n: t.clone() for n, t in ARRAYS.items()}
    checkpoint.save(tmp_path, arrays, TEXT)
    arrays["trainer.network.w"] += 1
    assert torch.equal(
        checkpoint.load(tmp_path).arrays["trainer.network.w"], ARRAYS["trainer.network.w"]
    )
    checkpoint.save(tmp_path, arrays, TEXT)
    assert torch.equal(
        checkpoint.load(tmp_path).arrays["trainer.network.w"], arrays["trainer.network.w"]
    )
    del arrays["trainer.measured.1"]
    checkpoint.save(tmp_path, arrays, TEXT)
    assert set(checkpoint.load(tmp_path).arrays) == set(arrays)
    assert len(list(tmp_path.iterdir())) == 3, "old blocks are removed"


def test_a_bulky_block_is_written_again_only_when_it_changed(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, ARRAYS, TEXT)
    bulky = {p: p.stat().st_mtime_ns for p in tmp_path.glob("trainer.measured*")}
    assert len(bulky) == 2
    changed = dict(ARRAYS)
    changed["trainer.measured.1"] = ARRAYS["trainer.measured.1"] + 1
    checkpoint.save(tmp_path, changed, TEXT)
    kept = [p for p, at in bulky.items() if p.exists() and p.stat().st_mtime_ns == at]
    assert [p.name[:18] for p in kept] == ["trainer.measured.0"]
    assert tiny.same_tensors(dict(checkpoint.load(tmp_path).arrays), changed)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), in_place=st.booleans())
def test_a_bulky_block_with_the_same_sum_is_not_taken_for_another(
    tmp_path_factory: pytest.TempPathFactory, seed: int, in_place: bool
) -> None:
    """The same numbers in another order, in a new tensor or in the old one."""
    folder = tmp_path_factory.mktemp("run")
    arrays = {n: t.clone() for n, t in ARRAYS.items()}
    checkpoint.save(folder, arrays, TEXT)
    bulky = arrays["trainer.measured.0"]
    order = torch.randperm(bulky.numel(), generator=Key(seed).torch())
    other = bulky.flatten()[order].view(bulky.shape)
    if in_place:
        bulky.copy_(other)
    else:
        arrays["trainer.measured.0"] = other
    checkpoint.save(folder, arrays, TEXT)
    assert tiny.same_tensors(dict(checkpoint.load(folder).arrays), arrays)


def test_an_unchanged_bulky_tensor_is_not_even_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serialised: list[str] = []
    whole = checkpoint.save_tensors

    def counted(tensors: dict[str, torch.Tensor]) -> bytes:
        serialised.extend(tensors)
        return whole(tensors)

    monkeypatch.setattr(checkpoint, "save_tensors", counted)
    checkpoint.save(tmp_path, ARRAYS, TEXT)
    serialised.clear()
    checkpoint.save(tmp_path, ARRAYS, TEXT)
    assert serialised == ["trainer.network.w", "device.codes"]


def test_a_resumed_process_finds_its_bulky_blocks_written(tmp_path: Path) -> None:
    """Equal numbers in other tensors, as after loading."""
    checkpoint.save(tmp_path, ARRAYS, TEXT)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("trainer.measured*")}
    checkpoint.save(tmp_path, checkpoint.load(tmp_path).arrays, TEXT)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.glob("trainer.measured*")}


def test_the_same_tensor_is_written_into_every_folder(tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        checkpoint.save(folder, ARRAYS, TEXT)
        assert tiny.same_tensors(dict(checkpoint.load(folder).arrays), ARRAYS)


@settings(max_examples=60, deadline=None)
@given(which=st.integers(0, 3), at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(good: Path, which: int, at: float, bit: int) -> None:
    path = checkpoint.files(good)[which]
    whole = path.read_bytes()
    spoilt = bytearray(whole)
    spoilt[int(at * len(whole))] ^= 1 << bit
    _refused(good, path, bytes(spoilt), whole)


@settings(max_examples=40, deadline=None)
@given(which=st.integers(0, 3), at=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_found(good: Path, which: int, at: float) -> None:
    path = checkpoint.files(good)[which]
    whole = path.read_bytes()
    _refused(good, path, whole[: int(at * len(whole))], whole)


@settings(max_examples=20, deadline=None)
@given(which=st.integers(0, 3), more=st.binary(min_size=1, max_size=9))
def test_a_file_with_something_appended_is_found(good: Path, which: int, more: bytes) -> None:
    path = checkpoint.files(good)[which]
    whole = path.read_bytes()
    if path.suffix == ".json" and not more.strip(b" \t\r\n"):
        return  # white space after JSON says nothing
    _refused(good, path, whole + more, whole)


def _refused(folder: Path, path: Path, spoilt: bytes, whole: bytes) -> None:
    try:
        path.write_bytes(spoilt)
        with pytest.raises(CheckpointError, match=path.name.split(".")[0]) as caught:
            checkpoint.load(folder)
        assert str(path) in str(caught.value)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("which", range(4))
def test_a_missing_file_is_named(copy: Path, which: int) -> None:
    path = checkpoint.files(copy)[which]
    path.unlink()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(copy)
    assert str(path) in str(caught.value)


class Malice:
    """Unpickling this leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_offered_as_a_checkpoint_is_refused_and_never_run(copy: Path) -> None:
    trap = copy.parent / "trapped"
    evil = pickle.dumps(Malice(trap))
    pickle.loads(evil)
    assert trap.exists(), "the trap works"
    trap.rmdir()
    for path in checkpoint.files(copy):
        whole = path.read_bytes()
        _refused(copy, path, evil, whole)
    assert not trap.exists()


def test_a_pickle_under_a_valid_digest_is_refused_too(copy: Path) -> None:
    trap = copy.parent / "trapped"
    evil = pickle.dumps(Malice(trap))
    sealed = json.loads((copy / checkpoint.MANIFEST).read_bytes())
    manifest = json.loads(sealed["manifest"])
    manifest["blocks"]["state"] = {"file": "evil", "digest": digest(evil)}
    (copy / "evil").write_bytes(evil)
    body = json.dumps(manifest)
    sealed = {"digest": digest(body.encode()), "manifest": body}
    (copy / checkpoint.MANIFEST).write_text(json.dumps(sealed))
    with pytest.raises(CheckpointError, match="evil: cannot be read"):
        checkpoint.load(copy)
    assert not trap.exists()


def test_a_checkpoint_of_a_later_format_is_refused(copy: Path) -> None:
    body = json.dumps({"format": 99, "blocks": {}, "text": {}})
    sealed = {"digest": digest(body.encode()), "manifest": body}
    (copy / checkpoint.MANIFEST).write_text(json.dumps(sealed))
    with pytest.raises(CheckpointError, match="its format is 99, this version reads 1"):
        checkpoint.load(copy)


def test_a_damaged_checkpoint_can_be_replaced(copy: Path) -> None:
    (copy / checkpoint.MANIFEST).write_bytes(b"{")
    checkpoint.save(copy, ARRAYS, TEXT)
    assert tiny.same_tensors(dict(checkpoint.load(copy).arrays), ARRAYS)


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("at", range(1, 6))
@pytest.mark.parametrize("after", [False, True], ids=["before the rename", "after the rename"])
def test_a_kill_while_writing_leaves_the_previous_or_the_new_checkpoint(
    copy: Path, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    new = {n: t + 1 for n, t in ARRAYS.items()}
    calls = 0

    def killed(path: Path, content: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == at and not after:
            path.with_name(f".{path.name}.1.tmp").write_bytes(content[: len(content) // 2])
            raise Killed
        write_atomic(path, content)
        if calls == at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomic", killed)
        try:
            checkpoint.save(copy, new, {})
            ended = True
        except Killed:
            ended = False
    arrays = dict(checkpoint.load(copy).arrays)
    is_new = tiny.same_tensors(arrays, new)
    assert is_new or tiny.same_tensors(arrays, ARRAYS)
    # Four writes: three blocks, then the manifest, whose rename decides.
    assert is_new is (ended or (after and at == 4))
    checkpoint.save(copy, ARRAYS, TEXT)
    assert tiny.same_tensors(dict(checkpoint.load(copy).arrays), ARRAYS)
    assert not [p for p in copy.glob("*.safetensors") if p not in checkpoint.files(copy)]


def test_a_kill_while_removing_old_blocks_leaves_the_new_checkpoint(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = {n: t + 1 for n, t in ARRAYS.items()}

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".safetensors":
            raise Killed
        if path.exists():
            os.unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(Killed):
            checkpoint.save(copy, new, TEXT)
    assert tiny.same_tensors(dict(checkpoint.load(copy).arrays), new)


def test_a_checkpoint_of_another_chip_is_refused(tmp_path: Path) -> None:
    trainer = tiny.trainer(("memristor",))
    trainer.advance()
    checkpoint.save_training(tmp_path, trainer, {})
    tiny_options = tiny.OPTIONS["memristor"]
    tiny.OPTIONS["memristor"] = {**tiny_options, "read_noise": 0.5}
    try:
        other = tiny.trainer(("memristor",))
    finally:
        tiny.OPTIONS["memristor"] = tiny_options
    with pytest.raises(ValueError, match="the snapshot is of"):
        checkpoint.load_training(tmp_path, other)
