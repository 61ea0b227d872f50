"""A streamed data set: the same frames for any chunk, whole after any kill, one chunk in memory."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from substrates.ideal import make as make_ideal
from substrates.optics.rig import make as make_rig
from twin.backend import Capabilities, Port, Reading
from twin.errors import CheckpointError, ConfigError, DataError, DriveError
from twin.fence import Fence, Measured
from twin.key import SAMPLE_BLOCK, Key
from validation import framefile, streaming, streamjob
from validation.framefile import FrameFile, opened
from validation.framelayout import Layout
from validation.streaming import stream
from validation.summary import read

INPUTS, PIXELS = 9, 20
KEY = Key(3).child("stream")
SEEDS = st.integers(0, 2**32 - 1)


def images(samples: int, seed: int = 0, width: int = INPUTS) -> Tensor:
    """Drives (samples, width) in [0, 1]."""
    return torch.rand((samples, width), generator=Key(seed).child("images").torch())


def rig(seed: int = 1, **options: Any) -> Fence:
    return Fence(
        make_rig(key=Key(seed), **{"inputs": INPUTS, "pixels": PIXELS, **options}), name="r"
    )


def codes(path: Path) -> np.ndarray:
    """Everything done so far, as it lies on disk."""
    with xr.open_dataset(path, engine="h5netcdf", mask_and_scale=False) as held:
        return held["frames"].values[: int(held["samples_done"])]


def contents(path: Path) -> dict[str, Any]:
    """All variables and attributes of a finished file."""
    with xr.open_dataset(path, engine="h5netcdf", mask_and_scale=False) as held:
        found = {str(name): value.values for name, value in held.variables.items()}
        frames = {f"frames.{n}": np.asarray(v) for n, v in held["frames"].attrs.items()}
        return found | frames | {str(n): np.asarray(v) for n, v in held.attrs.items()}


def assert_same(one: Path, other: Path) -> None:
    a, b = contents(one), contents(other)
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


class Killed(Exception):
    """Stands for the end of the process."""


def killer(at: int) -> Callable[[int, int], None]:
    """A progress that ends the run once `at` samples are done."""

    def progress(done: int, total: int) -> None:
        if done >= at:
            raise Killed

    return progress


# ------------------------------------------------------------ same frames


@given(
    seed=SEEDS,
    samples=st.integers(1, 330),
    blocks=st.integers(1, 6),
    noise=st.sampled_from(["poisson", "gaussian"]),
)
@settings(max_examples=6, deadline=None)
def test_the_size_of_a_chunk_changes_no_bit_of_any_sample(
    tmp_path_factory: pytest.TempPathFactory, seed: int, samples: int, blocks: int, noise: str
) -> None:
    folder = tmp_path_factory.mktemp("chunks")
    drives = images(samples, seed)
    for name, chunk in (("one", SAMPLE_BLOCK), ("other", blocks * SAMPLE_BLOCK)):
        device = rig(seed, shot_noise=noise, phase_flicker_rad=0.1)
        stream(device, drives, folder / name, key=Key(seed), chunk=chunk)
    np.testing.assert_array_equal(codes(folder / "one"), codes(folder / "other"))
    assert len(codes(folder / "one")) == samples


def test_a_sample_is_that_of_a_plain_call_with_its_number(tmp_path: Path) -> None:
    drives = images(300)
    stream(rig(), drives, tmp_path / "f.nc", key=KEY, chunk=128)
    first = 192
    alone = rig().forward(drives[first:261], key=KEY, first_sample=first).values
    with opened(tmp_path / "f.nc") as held:
        values = held["frames"][first:261].values
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, alone.numpy())  # to the last bit


@pytest.mark.parametrize(
    ("bits", "dtype"), [(1, np.uint8), (8, np.uint8), (9, np.uint16), (16, np.uint16)]
)
def test_codes_of_more_than_eight_bits_lie_in_sixteen(
    tmp_path: Path, bits: int, dtype: type
) -> None:
    device = rig(camera_bits=bits, full_scale_over_mean=2.0)
    drives = images(80)
    stream(device, drives, tmp_path / "f.nc", key=KEY, chunk=64)
    backend = make_rig(
        key=Key(1), inputs=INPUTS, pixels=PIXELS, camera_bits=bits, full_scale_over_mean=2.0
    )
    expected = backend.forward(drives, key=KEY).codes
    found = codes(tmp_path / "f.nc")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected.numpy())
    assert found.max() > 0.9 * (2**bits - 1)


@given(
    bits=st.integers(1, 16), signed=st.booleans(), ratio=st.floats(1e-3, 1e3), uneven=st.booleans()
)
def test_every_code_of_any_port_comes_back_from_its_decoded_value(
    bits: int, signed: bool, ratio: float, uneven: bool
) -> None:
    n = 2**bits
    low, high = (-1.0, (n // 2 - 1) / (n // 2)) if signed else (0.0, 1.0)
    port = Port(name="p", shape=(n,), low=low, high=high, levels=n, dtype="int32")
    every = torch.arange(int(port.code_low), int(port.code_high) + 1, dtype=torch.int32)
    force = torch.linspace(ratio, 2 * ratio, n) if uneven else ratio
    values = port.decode(every[None], force)
    measured = Measured(
        values=values, saturated=0.0, state_version=0, clock_s=0.0, extra={}, ratio=force
    )
    back = streamjob._codes(measured, port, streamjob._ratio(force, port))
    np.testing.assert_array_equal(back[0].numpy(), every.numpy())
    kept = every.numpy().astype(Layout(samples=1, chunk=64, port=port, attributes={}).dtype)
    np.testing.assert_array_equal(kept, every.numpy())
    assert kept.itemsize <= 2


# ------------------------------------------------------------ after a kill


@pytest.mark.parametrize(
    ("drift", "killed_at"), [("static", 64), ("static", 128), ("tissue-like", 64)]
)
def test_a_resumed_stream_ends_in_the_same_file(tmp_path: Path, drift: str, killed_at: int) -> None:
    n = 150
    drives, labels = images(n), torch.arange(n) % 7
    whole, cut = tmp_path / "whole.nc", tmp_path / "cut.nc"
    given: dict[str, Any] = {"key": KEY, "chunk": 64, "labels": labels}
    stream(rig(drift=drift), drives, whole, **given)
    with pytest.raises(Killed):
        stream(rig(drift=drift), drives, cut, progress=killer(killed_at), **given)
    with opened(cut) as held:
        assert held.sizes["sample"] == int(held["samples_done"]) == killed_at
        assert held.sizes["chunk"] == killed_at // 64
    np.testing.assert_array_equal(codes(cut), codes(whole)[:killed_at])
    made = stream(rig(drift=drift), drives, cut, resume=True, **given)
    assert (made.first, made.samples) == (killed_at, n)
    assert_same(whole, cut)
    assert not made.path.with_name("cut.nc.state").exists()
    if drift != "static":  # or the state would not matter
        stream(rig(), drives, tmp_path / "static.nc", **given)
        assert (codes(tmp_path / "static.nc") != codes(whole)).mean() > 0.5


def test_between_state_and_mark_a_kill_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drives = images(256)
    stream(rig(drift="slow"), drives, tmp_path / "whole.nc", key=KEY, chunk=64)

    def unmarked(self: FrameFile, done: int) -> None:
        if done == 192:
            raise Killed
        marked(self, done)

    marked = FrameFile.mark
    monkeypatch.setattr(FrameFile, "mark", unmarked)
    with pytest.raises(Killed):
        stream(rig(drift="slow"), drives, tmp_path / "cut.nc", key=KEY, chunk=64)
    monkeypatch.undo()
    made = stream(rig(drift="slow"), drives, tmp_path / "cut.nc", key=KEY, chunk=64, resume=True)
    assert made.first == 192
    assert_same(tmp_path / "whole.nc", tmp_path / "cut.nc")


def test_at_every_moment_the_file_on_disk_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the bytes after the frames of a chunk, unflushed, opens and says what is done."""
    path, copy = tmp_path / "f.nc", tmp_path / "copy.nc"
    seen: list[int] = []
    lengths: set[int] = set()

    def watched(self: FrameFile) -> None:
        for _ in range(2):  # before and after the flush
            shutil.copy(path, copy)
            lengths.add(copy.stat().st_size)
            with opened(copy) as held:
                seen.append(held.sizes["sample"])
                assert held["frames"].values.shape == (seen[-1], PIXELS)
            flush(self)

    flush = FrameFile._flush
    monkeypatch.setattr(FrameFile, "_flush", watched)
    stream(rig(), images(200), path, key=KEY, chunk=64)
    assert sorted(seen) == seen
    assert {0, 64, 128, 192, 200} <= set(seen)
    assert len(lengths) == 1  # all space is taken at making, so no structure changes


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from substrates.optics.rig import make
from twin.fence import Fence
from twin.key import Key
from validation.streaming import stream
def progress(done, total):
    if done == 128:
        os.kill(os.getpid(), signal.SIGKILL)
drives = torch.rand((200, 9), generator=Key(0).child("images").torch())
device = Fence(make(key=Key(1), inputs=9, pixels=20), name="r")
path, key = Path(sys.argv[1]), Key(3).child("stream")
stream(device, drives, path, key=key, chunk=64, progress=progress)
"""


def test_a_process_that_is_really_killed_leaves_a_file_that_goes_on(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", KILLED, str(tmp_path / "f.nc")]
    ended = subprocess.run(command, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ended.returncode == -signal.SIGKILL
    path, whole = tmp_path / "f.nc", tmp_path / "whole.nc"
    assert len(codes(path)) == 128
    assert stream(rig(), images(200), path, key=KEY, chunk=64, resume=True).first == 128
    stream(rig(), images(200), whole, key=KEY, chunk=64)
    assert_same(path, whole)


def test_resuming_what_is_complete_measures_nothing(tmp_path: Path) -> None:
    stream(rig(), images(70), tmp_path / "f.nc", key=KEY, chunk=64)
    before = codes(tmp_path / "f.nc")
    device = rig()
    assert stream(device, images(70), tmp_path / "f.nc", key=KEY, chunk=64, resume=True).first == 70
    assert device.ledger.total().passes == 0
    np.testing.assert_array_equal(codes(tmp_path / "f.nc"), before)


# ------------------------------------------------------------ wrong inputs


def half(path: Path) -> None:
    """A stream that was killed after 64 of 192 samples."""
    with pytest.raises(Killed):
        stream(rig(), images(192), path, key=KEY, chunk=64, progress=killer(64))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"key": Key(4)}, "seed = 3, this run has 4"),
        ({"key": KEY.child("further")}, "key"),
        ({"chunk": 128}, "chunk_samples"),
        ({"drives": images(192, seed=9)}, "another drive"),
        ({"drives": images(191)}, "Give the same data set"),
        ({"options": {"pixels": 21}}, "options"),
        ({"fence": rig(seed=2)}, "device_id"),
        ({"fence": rig(camera_bits=12)}, "device"),
    ],
)
def test_another_run_is_not_resumed_and_its_file_is_left_alone(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    path = tmp_path / "f.nc"
    half(path)
    before = path.read_bytes()
    usual = {"fence": rig(), "drives": images(192), "key": KEY, "chunk": 64}
    arguments = {**usual, **changed}
    fence, drives = arguments.pop("fence"), arguments.pop("drives")
    with pytest.raises(CheckpointError, match=message):
        stream(fence, drives, path, resume=True, **arguments)
    assert path.read_bytes() == before
    assert fence.ledger.total().passes == 0


def test_a_drifting_device_without_its_state_is_not_resumed(tmp_path: Path) -> None:
    half(tmp_path / "f.nc")
    state = tmp_path / "f.nc.state"
    for damage in (b"nothing of the kind", None):
        state.unlink() if damage is None else state.write_bytes(damage)
        with pytest.raises(CheckpointError, match="state"):
            stream(rig(), images(192), tmp_path / "f.nc", key=KEY, chunk=64, resume=True)


def test_nothing_is_overwritten_and_nothing_resumed_where_nothing_is(tmp_path: Path) -> None:
    path = tmp_path / "f.nc"
    with pytest.raises(CheckpointError, match="no stream"):
        stream(rig(), images(5), path, key=KEY, resume=True)
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match="exists already"):
        stream(rig(), images(5), path, key=KEY)
    with pytest.raises(DataError, match="opened for writing"):
        stream(rig(), images(5), path, key=KEY, resume=True)
    with pytest.raises(DataError, match="not a readable file"):
        opened(path)
    assert path.read_bytes() == b"mine"


def test_a_file_of_something_else_is_no_file_of_frames(tmp_path: Path) -> None:
    path = tmp_path / "f.nc"
    xr.Dataset({"x": ("t", np.arange(3))}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(DataError, match="not a file of frames"):
        opened(path)
    with pytest.raises(DataError, match="not a file of frames"):
        stream(rig(), images(5), path, key=KEY, resume=True)


@pytest.mark.parametrize("chunk", [0, -64, 1, 100, 65])
def test_a_chunk_that_is_no_whole_number_of_blocks_is_refused(tmp_path: Path, chunk: int) -> None:
    with pytest.raises(ConfigError, match="multiple of 64"):
        stream(rig(), images(5), tmp_path / "f.nc", key=KEY, chunk=chunk)
    assert not (tmp_path / "f.nc").exists()


@pytest.mark.parametrize("labels", [[0, 1], [[0]] * 5, [0.5] * 5, [-1] * 5, ["a"] * 5], ids=str)
def test_labels_are_one_integer_per_sample(tmp_path: Path, labels: Any) -> None:
    with pytest.raises(DataError, match="labels"):
        stream(rig(), images(5), tmp_path / "f.nc", key=KEY, labels=labels)


def test_no_samples_a_bad_level_and_a_full_disk_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="one sample or more"):
        stream(rig(), images(0), tmp_path / "f.nc", key=KEY)
    with pytest.raises(ConfigError, match="gzip level"):
        stream(rig(), images(5), tmp_path / "f.nc", key=KEY, compression=10)
    full = type("Usage", (), {"free": 99})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(DataError, match="do not fit"):
        stream(rig(), images(5), tmp_path / "f.nc", key=KEY)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_drive_in_mid_stream_names_its_samples_and_the_rest_is_kept(tmp_path: Path) -> None:
    drives = images(192)
    drives[130, 2] = float("nan")
    with pytest.raises(DriveError, match="samples 128 to 191"):
        stream(rig(), drives, tmp_path / "f.nc", key=KEY, chunk=64)
    stream(rig(), images(192), tmp_path / "f.nc", key=KEY, chunk=64, resume=True)
    stream(rig(), images(192), tmp_path / "whole.nc", key=KEY, chunk=64)
    assert_same(tmp_path / "f.nc", tmp_path / "whole.nc")


def test_a_range_that_changes_in_mid_stream_is_refused(tmp_path: Path) -> None:
    device = rig()

    def ranged(done: int, total: int) -> None:
        if done == 64:
            device.set_range(images(64, seed=8), key=Key(0))

    with pytest.raises(DataError, match="range of the device changed"):
        stream(device, images(192), tmp_path / "f.nc", key=KEY, chunk=64, progress=ranged)
    assert len(codes(tmp_path / "f.nc")) == 64


# ------------------------------------------------------------ one chunk in memory


class Thrifty:
    """Drives that exist only while somebody holds a slice of them."""

    def __init__(self, samples: int) -> None:
        self.samples, self.largest = samples, 0

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, rows: slice) -> Tensor:
        start, stop, _ = rows.indices(self.samples)
        self.largest = max(self.largest, stop - start)
        return torch.full((stop - start, INPUTS), 0.5)


def held_bytes() -> int:
    """Bytes in all tensors and arrays that are alive."""
    gc.collect()
    tensors = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
               for t in gc.get_objects() if type(t) is Tensor}  # fmt: skip
    return sum(tensors.values())


def test_memory_holds_one_chunk_whatever_the_number_of_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def measured(self: streamjob.Job, start: int) -> framefile.Part:
        part = original(self, start)
        if start in (64, 19 * 64):
            sizes.append(held_bytes())
        assert part.codes.nbytes <= 64 * PIXELS
        return part

    original = streamjob.Job._measured
    monkeypatch.setattr(streamjob.Job, "_measured", measured)
    drives = Thrifty(20 * 64)
    stream(rig(), drives, tmp_path / "f.nc", key=KEY, chunk=64)
    assert drives.largest == 64
    second, last = sizes
    assert last - second < 64 * PIXELS  # not one chunk more after eighteen


def test_a_file_is_opened_without_reading_its_frames(tmp_path: Path) -> None:
    stream(rig(), images(200), tmp_path / "f.nc", key=KEY, chunk=64)
    with opened(tmp_path / "f.nc") as held:
        assert not held["frames"].variable._in_memory
        assert held["frames"][130].values.shape == (PIXELS,)
        assert not held["frames"].variable._in_memory


# ------------------------------------------------------------ other devices


def test_any_backend_can_be_streamed_a_float_port_as_floats(tmp_path: Path) -> None:
    ideal = Fence(make_ideal(key=Key(0), inputs=INPUTS, outputs=3, noise_v=0.1), name="i")
    ideal.program(torch.ones(INPUTS, 3), key=Key(0))
    stream(ideal, images(100), tmp_path / "f.nc", key=KEY, chunk=64)
    expected = ideal.forward(images(100), key=KEY).values
    found = codes(tmp_path / "f.nc")
    assert found.dtype == np.float32
    # Products of another number of rows may differ in the last bit.
    np.testing.assert_allclose(found, expected, rtol=1e-5)


class Counter:
    """A device that takes a few samples a call; each pixel has a range of its own."""

    def __init__(self, most: int) -> None:
        self.most, self.largest = most, 0
        self.capabilities = Capabilities(
            device_id=f"counter-{most}",
            drives=(Port(name="in", shape=(1,)),),
            readings=(Port(name="out", shape=(2, 3), levels=1001, dtype="int32"),),
            seedable=True,
            max_batch=most,
        )

    def program(self, setting: Any, *, key: Key) -> Any:
        raise NotImplementedError

    def forward(
        self, drive: Any, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        self.largest = max(self.largest, len(drive))
        numbers = torch.arange(first_sample, first_sample + len(drive), dtype=torch.int32)
        ratio = torch.arange(1.0, 7.0).view(2, 3)
        return Reading(codes=numbers[:, None, None].expand(-1, 2, 3), ratio=ratio)

    def close(self) -> None:
        """Nothing to make safe."""


@pytest.mark.parametrize("most", [1, 5, 63, 64, 100, 129, 1000])
def test_a_device_that_takes_few_samples_gets_few(tmp_path: Path, most: int) -> None:
    device = Counter(most)
    path = tmp_path / "f.nc"
    stream(Fence(device, name="c"), torch.zeros(300, 1), path, key=KEY, chunk=192)
    assert 0 < device.largest <= most
    np.testing.assert_array_equal(codes(path), np.arange(300)[:, None].repeat(6, 1))
    with opened(path) as held:
        np.testing.assert_array_equal(held["ratio"], np.arange(1.0, 7.0))
        frames = held["frames"]
        assert "scale_factor" not in frames.encoding  # one number would be wrong
        assert json.loads(frames.attrs["reading_shape"]) == [2, 3]
        values = frames * frames.attrs["value_per_code"] * held["ratio"]
        assert float(values[299, 5]) == pytest.approx(0.299 * 6)


# ------------------------------------------------------------ the file and the command


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    device = rig(camera_bits=12)
    labels = np.arange(130) % 2
    stream(
        device, images(130), tmp_path / "f.nc", key=KEY, chunk=64, labels=labels,
        classes=("cat", "dog"), options={"camera_bits": 12},
    )  # fmt: skip
    with opened(tmp_path / "f.nc") as held:
        about, frames = held.attrs, held["frames"].attrs
        assert about["device_id"] == device.capabilities.device_id
        assert (about["reading_port"], about["drive_port"]) == ("frame", "phases")
        assert (about["seed"], json.loads(about["key"])) == ("3", [3, "stream"])
        assert json.loads(about["options"]) == {"camera_bits": 12}
        assert json.loads(about["versions"])["torch"] == torch.__version__
        port = device.reading_port
        assert (frames["bits"], frames["levels"]) == (12, 4096)
        assert (frames["full_scale"], frames["full_scale_unit"]) == (port.full_scale, "electron")
        assert float(held["ratio"]) == 1.0
        assert held["clock_s"].attrs["units"] == "s"
        # 60 frames per second, in chunks of 64, 64 and 2.
        np.testing.assert_allclose(held["clock_s"], np.array([64, 128, 130]) / 60)
        np.testing.assert_array_equal(held["labels"], labels)
        assert json.loads(held["labels"].attrs["class_names"]) == ["cat", "dog"]


def test_saturation_is_counted_chunk_by_chunk(tmp_path: Path) -> None:
    stream(rig(full_scale_over_mean=1.0), images(130), tmp_path / "f.nc", key=KEY, chunk=64)
    found = codes(tmp_path / "f.nc")
    parts = [found[0:64], found[64:128], found[128:]]
    with opened(tmp_path / "f.nc") as held:
        expected = [(part == 255).mean() for part in parts]
        np.testing.assert_allclose(held["saturated"], expected)
        assert min(expected) > 0.1


def test_a_compressed_file_holds_the_same_in_less(tmp_path: Path) -> None:
    plain, small = tmp_path / "plain.nc", tmp_path / "small.nc"
    dim = {"full_scale_over_mean": 100.0}
    stream(rig(**dim), images(1000), plain, key=KEY, chunk=64)
    stream(rig(**dim), images(1000), small, key=KEY, chunk=64, compression=4)
    assert_same(plain, small)
    with xr.open_dataset(small, engine="h5netcdf") as held:
        assert held["frames"].encoding["zlib"]
    assert small.stat().st_size < plain.stat().st_size
    made = stream(rig(**dim), images(1000), small, key=KEY, chunk=64, resume=True, compression=4)
    assert made.first == 1000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain.nc", "small.nc"]


@pytest.fixture
def young_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no earlier test had used this process: its peak would be theirs."""
    monkeypatch.setattr(streaming, "peak_resident_gb", lambda: 0.5)


@pytest.mark.usefixtures("young_process")
def test_the_command_streams_images_and_says_what_it_took(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "name": "optics", "options": ["pixels=30"], "dataset": "digits", "limit": 200,
        "out": tmp_path, "chunk": 64, "seed": 2, "data": None, "command": "typed", "quiet": True,
    }  # fmt: skip
    threads = torch.get_num_threads()
    made = streaming.main(resume=False, **given)
    assert torch.get_num_threads() == threads
    figures = {figure.name: figure for figure in read(tmp_path).figures}
    assert figures["samples"].value == figures["samples measured now"].value == 200
    assert figures["peak resident memory"].bound == "< 2"
    assert made.extra["options"] == {"inputs": 64, "pixels": 30}
    again = streaming.main(resume=True, **given)
    assert again.extra["begun_at_sample"] == 200
    with opened(tmp_path / "frames.nc") as held:
        assert held["frames"].shape == (200, 30)
        assert set(np.unique(held["labels"])) == set(range(10))


@pytest.mark.usefixtures("young_process")
def test_the_command_gives_a_programmable_device_a_setting(tmp_path: Path) -> None:
    options = ["outputs=5", "noise_v=0.0"]
    streaming.main("ideal", options, "digits", 80, tmp_path, 64, False, 0, None, "", True)
    found = codes(tmp_path / "frames.nc")
    assert found.std(0).min() > 0.1


def test_the_command_fails_where_memory_is_over_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "peak_resident_gb", lambda: 2.5)
    with pytest.raises(typer.Exit):
        streaming.main("ideal", [], "digits", 80, tmp_path, 64, False, 0, None, "", True)
    assert read(tmp_path).failed == ["peak resident memory"]


def test_peak_memory_is_in_gigabytes() -> None:
    # torch alone takes more than 0.1 GB; this process fits the machine.
    assert 0.1 < streaming.peak_resident_gb() < 64
