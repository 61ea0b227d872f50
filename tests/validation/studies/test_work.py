"""What a point of a study does: the same for the same point, shared or alone, and honest costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pib.local import LocalTraining
from pib.readout import ReadoutRecipe
from substrates.memristor.cost import cost_sheet
from twin.errors import ConfigError, DialError, UnknownName, Unsupported
from validation.baselines.registry import STUDIED
from validation.config import parse_config
from validation.studies import measures, points
from validation.studies.kept import Keeper
from validation.studies.points import Point, Value
from validation.studies.settings import run_config
from validation.studies.sharing import Training
from validation.studies.work import work

HEAD = """
[augment]
noise = 0.1

[training]
batch = 50
warm_up = 2
range_every = 3

[quick]
limit = 60
epochs = 3
"""
CHIP = '\n[[unit]]\nbackend = "memristor"\noutputs = {n}\nepochs = 1\n'
RIG = (
    '\n[[unit]]\nbackend = "optics"\nkind = "broken-isomorphism"\nrecapture = "epoch"\n'
    "outputs = {n}\nepochs = 1\nrecord_dropout = 0.1\noptions = {{ pixels = 30 }}\n"
)
OWN_CLOCKS = "\n[network]\nshared_clock = false\n"
NETWORKS = {
    "chips": OWN_CLOCKS + CHIP.format(n=12) + CHIP.format(n=8),
    "chips with one clock": CHIP.format(n=12) + CHIP.format(n=8),
    "rig and chip": RIG.format(n=12) + CHIP.format(n=8),
    "rigs": OWN_CLOCKS + RIG.format(n=12) + RIG.format(n=8),
    "chips with traps": "".join(
        CHIP.format(n=n) + "options = { rtn_active_fraction = 0.5 }\n" for n in (12, 8)
    ),
    "rigs that drift": "".join(
        RIG.format(n=n).replace("pixels", 'drift = "tissue-like", pixels') for n in (12, 8)
    ),
    "chip": CHIP.format(n=12),
    "ideal": '\n[[unit]]\nbackend = "ideal"\noutputs = 12\nepochs = 1\n',
}
LATER = {"dial.read_noise": 0.3, "dial.stuck_column_fraction": 0.25}

Make = Callable[..., Point]
Figures = dict[str, float]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own."""
    return use(tmp_path / "cache", monkeypatch)


@pytest.fixture(scope="module", autouse=True)
def _short_readouts() -> Iterator[None]:
    """A fifth of the steps: no claim here is about how well a readout arrives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ReadoutRecipe.__init__.__kwdefaults__, "min_steps", 100)
        yield


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIB_TWIN_CACHE", str(folder))
    return folder / "trained"


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Points on 100 digits with a tiny network: make(network, {path: value}, method=...)."""
    folder = tmp_path_factory.mktemp("bases")
    for name, text in NETWORKS.items():
        (folder / f"{name}.toml").write_text(HEAD + text)

    def made(network: str, given: dict[str, Value] | None = None, **changes: object) -> Point:
        fields = {"method": "pib", "seed": 3, "limit": 100} | changes
        base = str(folder / f"{network}.toml")
        return Point(base=base, settings=tuple(sorted((given or {}).items())), **fields)  # type: ignore[arg-type]

    return made


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The units whose training is begun, in order."""
    begun: list[str] = []
    begin = LocalTraining.begin

    def noted(self: LocalTraining) -> None:
        begun.append(self.unit.name)
        begin(self)

    monkeypatch.setattr(LocalTraining, "begin", noted)
    return begun


def steady(figures: Figures) -> Figures:
    return {n: v for n, v in figures.items() if n not in points.VOLATILE}


def alone(point: Point) -> Figures:
    return steady(work(point, share=False))


def shared(point: Point) -> Figures:
    return steady(work(point))


# ---- the same point, the same figures ---------------------------------------


@pytest.mark.parametrize(
    ("network", "method"),
    [*(("rig and chip", m) for m in STUDIED), ("chips", "pib"), ("chips with one clock", "lce")],
)
def test_a_network_found_trained_gives_the_figures_of_one_trained_alone_to_the_bit(
    make: Make, network: str, method: str, cache: Path
) -> None:
    point = make(network, method=method)
    expected = alone(point)
    assert not cache.exists()
    assert [shared(point), shared(point)] == [expected, expected]
    assert list(cache.glob("network-*"))


@pytest.mark.parametrize("network", ["chips with one clock", "rigs"])
def test_a_network_found_trained_is_tested_later_as_one_trained_alone(
    make: Make, network: str
) -> None:
    dials = {"chips with one clock": LATER, "rigs": {"dial.read_noise_electrons": 300.0}}
    later = make(network, dials[network] | {"test.wait_s": 100.0}, when="test")
    expected = alone(later)
    shared(make(network))
    assert shared(later) == expected
    assert expected["accuracy"] != shared(make(network))["accuracy"]


@settings(max_examples=6, deadline=None)
@given(
    before=st.fixed_dictionaries(
        {}, optional={
            "unit.0.epochs": st.just(2), "unit.1.epochs": st.just(2),
            "unit.1.options.adc_bits": st.just(4), "unit.0.dial.read_noise": st.just(0.2),
            "unit.1.dial.read_noise": st.just(0.2), "network.readout": st.just("last"),
            "network.hard_examples": st.just(False),
        },
    ),
    network=st.sampled_from(["chips", "chips with one clock"]),
    method=st.sampled_from(["pib", "lce"]),
)  # fmt: skip
@example(before={"unit.1.options.adc_bits": 4}, network="chips", method="pib")
@example(before={"unit.1.dial.read_noise": 0.2}, network="chips with one clock", method="pib")
def test_whatever_was_trained_before_a_point_gives_what_it_gives_alone(
    make: Make,
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[str, Value],
    network: str,
    method: str,
) -> None:
    point = make(network, method=method)
    with pytest.MonkeyPatch.context() as patch:
        use(tmp_path_factory.mktemp("empty"), patch)
        shared(make(network, before, method=method))
        assert shared(point) == known(point)


KNOWN: dict[Point, Figures] = {}


def known(point: Point) -> Figures:
    if point not in KNOWN:
        KNOWN[point] = alone(point)
    return KNOWN[point]


def test_a_point_trains_only_the_units_that_no_other_point_has(
    make: Make, trained: list[str]
) -> None:
    for bits in (8, 6, 4):
        shared(make("chips", {"unit.1.options.adc_bits": bits}))
    assert trained == ["unit 1", "unit 2", "unit 2", "unit 2"]
    for noise in (0.0, 0.1):
        shared(make("chips", {"dial.read_noise": noise}, when="test"))
    assert trained[4:] == ["unit 2"]  # the base has other bits; its first unit is known


def test_with_one_clock_a_later_device_is_part_of_what_a_unit_was_trained_beside(
    make: Make, trained: list[str]
) -> None:
    for bits in (8, 4):
        shared(make("chips with one clock", {"unit.1.options.adc_bits": bits}))
    assert trained == ["unit 1", "unit 2"] * 2


@pytest.mark.parametrize("network", ["chips with traps", "rigs that drift"])
def test_devices_that_waited_for_a_shared_unit_are_as_old_as_if_they_had(
    make: Make, trained: list[str], network: str
) -> None:
    point = make(network)
    shared(make(network, {"readout.epochs": 9}))
    trained.clear()
    found = shared(point)
    assert trained == ["unit 2"]
    assert found == alone(point)


def test_a_point_uses_one_thread_and_gives_the_others_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, begin = [], LocalTraining.begin

    def noted(self: LocalTraining) -> None:
        seen.append(torch.get_num_threads())
        begin(self)

    monkeypatch.setattr(LocalTraining, "begin", noted)
    torch.set_num_threads(2)
    try:
        work(make("chip"))
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(1)


def test_backends_that_cannot_be_restored_are_trained_alone(make: Make, cache: Path) -> None:
    assert shared(make("ideal")) == alone(make("ideal"))
    assert not cache.exists()


def test_two_folders_hold_equal_bytes_after_the_same_point(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    for name in ("one", "two"):
        folder = use(tmp_path / name, monkeypatch)
        shared(make("rig and chip"))
        kept.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert kept[0] == kept[1]
    assert sorted(name.split("-")[0] for name in kept[0]) == ["network", "units"]


@pytest.mark.parametrize("spoil", ["torn", "empty", "flipped"])
def test_a_damaged_file_is_computed_again(make: Make, cache: Path, spoil: str) -> None:
    point = make("chips")
    expected = shared(point)
    whole = {path: path.read_bytes() for path in cache.iterdir()}
    for path, content in whole.items():
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"torn": content[:middle], "empty": b"", "flipped": flipped}[spoil])
    assert shared(point) == expected
    assert {path: path.read_bytes() for path in cache.iterdir()} == whole


def test_workers_that_train_the_same_at_once_find_the_same(make: Make) -> None:
    later = [make("chips", {"dial.read_noise": s}, when="test") for s in (0.1, 0.1, 0.2)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(shared, later))
    assert found == [alone(point) for point in later]


# ---- what is kept ---------------------------------------------------------------


def numbers(seed: int) -> dict[str, torch.Tensor]:
    return {"x": torch.randn(40, generator=torch.Generator().manual_seed(seed))}


def test_readers_never_see_half_of_what_writers_replace(tmp_path: Path) -> None:
    keeper, stop, expected = Keeper(tmp_path), threading.Event(), numbers(1)["x"]

    def write() -> None:
        while not stop.is_set():
            keeper.put("same", numbers(1), {"seed": 1})

    with ThreadPoolExecutor(2) as pool:
        keeper.put("same", numbers(1), {"seed": 1})
        writers = [pool.submit(write) for _ in range(2)]
        seen = [keeper.get("same") for _ in range(200)]
        stop.set()
        for writer in writers:
            writer.result()
    assert all(kept and torch.equal(kept.arrays["x"], expected) for kept in seen)
    assert [path.name for path in tmp_path.iterdir()] == ["same.kept"]


def test_the_longest_unused_make_room(tmp_path: Path) -> None:
    Keeper(tmp_path).put("one", numbers(1), {})
    size = (tmp_path / "one.kept").stat().st_size
    keeper = Keeper(tmp_path, limit_bytes=2 * size)
    keeper.put("two", numbers(2), {})
    assert keeper.get("one") is not None  # used again: now "two" is the oldest
    keeper.put("three", numbers(3), {})
    assert [keeper.get(name) is not None for name in ("one", "two", "three")] == [True, False, True]


def test_a_folder_that_cannot_be_written_costs_time_only(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    use(tmp_path / "file", monkeypatch)
    assert shared(make("chip")) == alone(make("chip"))


CONCERNS = {
    "augment.noise": (0.2, True), "objective.alpha": (1.01, True), "training.batch": (40, True),
    "unit.0.epochs": (2, True), "unit.0.options.adc_bits": (4, True), "unit.0.outputs": (13, True),
    "unit.1.epochs": (2, False), "unit.1.options.adc_bits": (4, False),
    "unit.1.outputs": (9, False),
    "network.skip": (False, False), "network.readout": ("last", False),
    "network.hard_offset": (0.2, False), "readout.epochs": (9, False),
    "network.shared_clock": (True, True), "data.limit": (90, True),
}  # fmt: skip


@pytest.mark.parametrize("path", CONCERNS)
def test_a_setting_renames_what_it_concerns(path: str) -> None:
    value, first_unit = CONCERNS[path]
    config = parse_config(HEAD + NETWORKS["chips"], "test")
    table = config.model_dump()
    points.put(table, path, value)
    one, two = (
        Training(config=c, family="pib", seed=1, data="d") for c in (config, type(config)(**table))
    )
    assert one.whole() != two.whole()
    assert (one.until(0) != two.until(0)) is first_unit


def test_seed_data_family_and_dials_rename_what_they_concern() -> None:
    config = parse_config(HEAD + NETWORKS["chips"], "test")
    plain = Training(config=config, family="pib", seed=1, data="d")
    for changed in ({"seed": 2}, {"data": "e"}, {"family": "lce"}, {"dials": ((0, "a", 1.0),)}):
        other = replace(plain, **changed)  # type: ignore[arg-type]
        assert plain.whole() != other.whole() and plain.until(0) != other.until(0)
    upper = replace(plain, dials=((1, "a", 1.0),))
    assert plain.whole() != upper.whole() and plain.until(0) == upper.until(0)


# ---- when the settings hold -------------------------------------------------------


@pytest.fixture(scope="module")
def delivered(make: Make) -> Figures:
    return alone(make("chips", {"unit.epochs": 12}))


def test_a_test_without_settings_is_the_end_of_training(make: Make, delivered: Figures) -> None:
    later = alone(make("chips", {"unit.epochs": 12}, when="test"))
    assert 0.3 < later.pop("accuracy_readout_redone") <= 1
    assert later == delivered


def test_columns_that_break_in_the_field_hurt_less_with_a_new_readout_or_in_training(
    make: Make, delivered: Figures
) -> None:
    broken: dict[str, Value] = {"unit.epochs": 12, "dial.stuck_column_fraction": 0.5}
    later = alone(make("chips", broken, when="test"))
    assert later["accuracy"] < delivered["accuracy"] - 0.2
    assert later["accuracy_readout_redone"] > later["accuracy"] + 0.1
    assert alone(make("chips", broken))["accuracy"] > later["accuracy"] + 0.1
    for name in ("passes", "writes", "joules_training", "device_seconds_training"):
        assert later[name] == delivered[name]


def test_without_any_signal_everybody_guesses(make: Make) -> None:
    """One answer for all images: no digit has more than 37 of 360 or 15 of 143."""
    for when in points.WHENS:
        found = alone(make("chips", {"dial.dead_column_fraction": 1.0}, when=when))
        for name, value in found.items():
            most = 15 / 143 if name == "accuracy_validation" else 37 / 360
            assert not name.startswith("accuracy") or value <= most


def test_an_option_at_test_time_is_another_device_for_the_same_weights(
    make: Make, delivered: Figures, trained: list[str]
) -> None:
    """360 test images: five standard errors of an accuracy are at most 0.14."""
    sound, coarse, random = (
        shared(make("chips", {"unit.epochs": 12, f"unit.options.{name}": value}, when="test"))
        for name, value in (("adc_bits", 8), ("adc_bits", 2), ("programming_error", 1.0))
    )
    assert trained == ["unit 1", "unit 2"]
    assert abs(sound["accuracy"] - delivered["accuracy"]) < 0.14
    assert random["accuracy"] < delivered["accuracy"] - 0.28
    assert coarse["area_m2"] < sound["area_m2"] == delivered["area_m2"]
    assert random["writes"] == delivered["writes"]


@pytest.mark.usefixtures("nothing_trained")
def test_an_option_that_changes_the_shape_cannot_come_after_training(make: Make) -> None:
    with pytest.raises(ConfigError, match="change the shape of a trained unit"):
        work(make("rigs", {"unit.options.pixels": 31}, when="test"))


def test_waiting_lets_the_cells_relax(make: Make) -> None:
    given = {"dial.relaxation_mean": 0.05}
    now, later = (
        alone(make("chip", given | {"test.wait_s": seconds}, when="test")) for seconds in (0.0, 1e6)
    )
    assert later["joules_per_image"] < 0.9 * now["joules_per_image"]


# ---- costs ----------------------------------------------------------------------------


def test_costs_are_those_of_the_devices(make: Make) -> None:
    found = alone(make("chips", method="readout"))
    chips = [{"inputs": 64, "outputs": 12}, {"inputs": 76, "outputs": 8}]
    sheets = [cost_sheet(options) for options in chips]
    assert found["area_m2"] == pytest.approx(sum(s.area_m2 for s in sheets))
    assert found["latency_s"] == pytest.approx(sum(s.pass_seconds for s in sheets))
    converters = sum(s.converter_joules for s in sheets)
    assert converters < found["joules_per_image"] < 3 * sum(s.pass_joules for s in sheets)
    # Ranging, the link below each unit, and the features for the readout.
    assert found["passes"] == 100 * (2 + 3 + 2)
    assert found["writes"] == 2
    assert found["device_seconds_training"] >= found["passes"] * sheets[0].pass_seconds


def test_a_rig_has_no_silicon_and_its_frames_for_backpropagation_are_counted(make: Make) -> None:
    assert "area_m2" not in alone(make("rigs", method="readout"))
    hybrid = alone(make("rig and chip", method="backprop"))
    # Frames and calibration for learning, then for both deployed units.
    assert hybrid["passes"] == 100 * (2 + 2 + 2)
    assert hybrid["accuracy"] == hybrid["accuracy_own_readout"]
    retrained = alone(make("rig and chip", method="backprop-retrained"))
    assert retrained["accuracy"] != retrained["accuracy_own_readout"]
    chosen: Figures = {"accuracy": 0.0, "accuracy_validation": 0.0}
    assert {**retrained, **chosen} == {**hybrid, **chosen}


# ---- what is refused ---------------------------------------------------------------


@pytest.fixture
def nothing_trained(trained: list[str]) -> Iterator[None]:
    yield
    assert trained == []


@pytest.mark.usefixtures("nothing_trained")
@pytest.mark.parametrize("when", points.WHENS)
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"dial.read_noize": 0.1}, UnknownName, "'read_noise'"),
        ({"unit.1.dial.read_noize": 0.1}, UnknownName, "'read_noise'"),
        ({"unit.2.dial.read_noise": 0.1}, ConfigError, "units 0 to 1"),
        ({"dial.read_noise": 2.0}, DialError, "between 0 and 1"),
        ({"dial.read_noise": "much"}, ConfigError, "takes a number"),
        ({"unit.options.adc_bitz": 3}, ConfigError, "'adc_bits'"),
        ({"unit.options.adc_bits": 1}, ConfigError, "greater than or equal to 2"),
        ({"unit.epoch": 3}, ConfigError, "'epochs'"),
        ({"test.wait_s": -1.0}, ConfigError, "a number >= 0"),
        ({"test.wait": 1.0}, ConfigError, "unknown key"),
        ({"unit.epochs": 0}, ConfigError, "epochs"),
        ({"data.name": "digitz"}, UnknownName, "'digits'"),
    ],
)
def test_what_a_point_cannot_mean_is_refused_before_anything_is_trained(
    make: Make, when: str, given: dict[str, Value], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        work(make("chips", given, when=when))


@pytest.mark.usefixtures("nothing_trained")
def test_unknown_methods_and_times_are_refused_with_the_nearest_name(make: Make) -> None:
    with pytest.raises(UnknownName, match="'pib'"):
        work(make("chips", method="pibb"))
    with pytest.raises(UnknownName, match="'training'"):
        work(make("chips", when="trainings"))


@pytest.mark.parametrize("method", ["backprop", "backprop-retrained"])
def test_backpropagation_is_refused_behind_a_second_medium(make: Make, method: str) -> None:
    with pytest.raises(Unsupported, match="second broken-isomorphism unit"):
        work(make("rigs", method=method))


def test_a_study_can_name_exactly_the_methods_there_are() -> None:
    assert set(STUDIED) == set(points.METHODS) - {points.SYNTHETIC}


def test_settings_go_before_quick_and_a_limit_before_both(make: Make) -> None:
    plain = run_config(make("chips", quick=True, limit=None))
    assert ([u.epochs for u in plain.unit], plain.data.limit) == ([3, 3], 60)
    given: dict[str, Value] = {"unit.1.epochs": 5, "data.limit": 70, "test.wait_s": 1.0}
    set_ = run_config(make("chips", given, quick=True, limit=None))
    assert ([u.epochs for u in set_.unit], set_.data.limit) == ([3, 5], 70)
    assert run_config(make("chips", given, quick=True)).data.limit == 100


def test_the_cost_of_an_image_is_that_of_its_units(make: Make) -> None:
    found = alone(make("chips", method="readout"))
    for name in ("joules_per_image", "latency_s"):
        parts = [found[f"{name}_unit_{index}"] for index in (1, 2)]
        assert min(parts) > 0 and sum(parts) == pytest.approx(found[name], rel=1e-12)


def test_what_is_chosen_by_is_not_what_is_reported(make: Make) -> None:
    """Accuracies on other images: multiples of 1/143 and of 1/360."""
    found = alone(make("chips"))
    for name, images in (("accuracy_validation", 143), ("accuracy", 360)):
        assert found[name] * images == pytest.approx(round(found[name] * images), abs=1e-6)
    assert found["accuracy_validation"] != found["accuracy"]


def test_a_quick_point_sees_fewer_test_images(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    point = make("chip", method="readout")
    assert alone(point)["test_images"] == 360
    assert alone(replace(point, quick=True))["test_images"] == 360
    monkeypatch.setattr(measures, "QUICK_TESTS", 50)
    assert alone(point)["test_images"] == 360
    quick = alone(replace(point, quick=True))
    assert quick["test_images"] == 50
    assert quick["accuracy"] * 50 == pytest.approx(round(quick["accuracy"] * 50))


@pytest.mark.slow
def test_a_quick_point_on_digits_takes_less_than_six_seconds_of_a_core(cache: Path) -> None:
    import time

    begun = time.process_time()
    work(Point("memristor-digits", "pib", 0, quick=True))
    assert time.process_time() - begun < 6
