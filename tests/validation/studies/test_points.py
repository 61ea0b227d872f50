"""Points: each combination once, and names that depend on all that matters."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.validation.studies.helpers import cheap
from twin.errors import ConfigError, DataError
from validation.studies import codeversion
from validation.studies.points import Point, Turn, canonical, configured, expand, turns

VALUES = st.one_of(
    st.lists(st.integers(-9, 9), min_size=1, max_size=4, unique=True),
    st.lists(st.floats(-1, 1), min_size=1, max_size=4, unique=True),
    st.lists(st.text("abc", max_size=3), min_size=1, max_size=3, unique=True),
)
AXES = st.dictionaries(st.text("pqr.", min_size=1, max_size=4), VALUES, max_size=4)
SETTINGS = st.dictionaries(
    st.text("xyz.", min_size=1, max_size=5),
    st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text("ab", max_size=2),
    max_size=4,
)


def point(settings: dict[str, Any] | None = None, base: str = "synthetic") -> Point:
    method = "synthetic" if base == "synthetic" else "pib"
    return Point(base=base, method=method, seed=0, settings=tuple((settings or {}).items()))


@given(AXES, st.integers(1, 3), st.integers(1, 2))
def test_expanding_axes_gives_each_combination_exactly_once(
    axes: dict[str, list[Any]], seeds: int, methods: int
) -> None:
    names = [f"m{i}" for i in range(methods)]
    found = [
        (p.method, p.seed, p.settings)
        for p in expand("synthetic", axes, methods=names, seeds=range(seeds))
    ]
    wanted = {
        (method, seed, tuple(sorted(zip(axes, values, strict=True))))
        for method in names
        for seed in range(seeds)
        for values in itertools.product(*axes.values())
    }
    assert len(found) == len(wanted)
    assert {(m, s, tuple(sorted(settings))) for m, s, settings in found} == wanted


@given(SETTINGS, st.randoms(use_true_random=False))
def test_the_order_of_settings_changes_nothing(settings: dict[str, Any], random: Any) -> None:
    shuffled = list(settings.items())
    random.shuffle(shuffled)
    assert point(settings) == point(dict(shuffled))
    assert point(settings).key() == point(dict(shuffled)).key()


@given(SETTINGS, SETTINGS)
def test_other_settings_have_another_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    def meaning(settings: dict[str, Any]) -> set[tuple[str, str, Any]]:
        # True is no number here, 1.0 is 1.
        kind = {bool: "bool", str: "text"}
        return {(name, kind.get(type(v), "number"), v) for name, v in settings.items()}

    same = meaning(one) == meaning(other)
    assert (point(one).key() == point(other).key()) == same


@given(SETTINGS, st.integers(0, 99), st.none() | st.integers(20, 99))
def test_a_point_survives_its_way_through_json(
    settings: dict[str, Any], seed: int, limit: int | None
) -> None:
    before = replace(point(settings), seed=seed, limit=limit, when="test", quick=True, data="/d")
    after = Point.parsed(json.loads(canonical(before.plain())))
    assert after == before and after.key() == before.key()


@pytest.mark.parametrize("content", [{}, {"base": 3}, {"settings": 4}, {"settings": [[1]]}])
def test_what_is_no_point_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        Point.parsed(content)


def test_each_field_but_the_place_of_the_data_is_in_the_key() -> None:
    one = Point(base="memristor-digits", method="pib", seed=0)
    others = [
        replace(one, base="memristor-mnist"), replace(one, method="lce"), replace(one, seed=1),
        replace(one, settings=(("unit.epochs", 3),)), replace(one, when="test"),
        replace(one, quick=True), replace(one, limit=100),
    ]  # fmt: skip
    assert len({p.key() for p in [one, *others]}) == 1 + len(others)
    assert replace(one, data="/elsewhere").key() == one.key()


def test_a_path_is_set_once() -> None:
    with pytest.raises(ConfigError, match="twice"):
        Point(base="synthetic", method="synthetic", seed=0, settings=(("bits", 2), ("bits", 3)))


def test_the_contents_of_a_base_are_in_the_key_and_its_name_is_not(tmp_path: Path) -> None:
    text = '[data]\nname = "digits"\n[[unit]]\nepochs = 3\n'
    one, same, other = (tmp_path / f"{name}.toml" for name in ("a", "b", "c"))
    one.write_text(text)
    same.write_text('about = "the same run"\n' + text)
    other.write_text(text.replace("3", "4"))
    keys = [point(base=str(path)).key() for path in (one, same, other)]
    assert keys[0] == keys[1] != keys[2]


def test_options_go_to_the_units_that_know_them() -> None:
    settings = {"unit.options.pixels": 256, "unit.options.adc_bits": 6, "unit.epochs": 2}
    config = configured(point(settings, "hybrid-fashion"))
    optics, chip = config.unit
    assert optics.options["pixels"] == 256 and "adc_bits" not in optics.options
    assert chip.options["adc_bits"] == 6 and "pixels" not in chip.options
    assert optics.epochs == chip.epochs == 2


def test_one_unit_can_be_set_alone_and_tables_are_made_on_the_way() -> None:
    settings = {"unit.1.options.adc_bits": 5, "unit.0.options.sensor.prnu": 0.02, "data.limit": 50}
    config = configured(point(settings, "hybrid-fashion"))
    assert config.unit[0].options["sensor"] == {"prnu": 0.02}
    assert config.unit[1].options["adc_bits"] == 5 and config.data.limit == 50
    assert configured(point(base="hybrid-fashion")).unit[1].options.get("adc_bits") is None


def test_dials_are_no_part_of_the_configuration() -> None:
    turned = point({"dial.read_noise": 1, "unit.1.dial.word_ohm": 2.5}, "memristor-digits")
    assert configured(turned) == configured(point(base="memristor-digits"))
    assert turns(turned) == [Turn(None, "read_noise", 1.0), Turn(1, "word_ohm", 2.5)]


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [("trainng.batch", 50, "training"), ("unit.7.epochs", 2, r"unit\.7"), ("unit", 2, "unit"),
     ("unit.epocs", 2, "epochs"), ("unit.0", 2, r"unit\.0"), ("data.name.x", 2, r"data\.name\.x"),
     ("unit.0.epochs", 0, r"unit\.0\.epochs")],
)  # fmt: skip
def test_a_wrong_path_is_named(path: str, value: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        configured(point({path: value}, "memristor-digits"))


def test_comments_do_not_change_the_version_of_the_code_and_numbers_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(text: str) -> str:
        # A fresh folder each time: files are read once in a process.
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        module = root / "validation" / "studies" / "synthetic.py"
        module.parent.mkdir(parents=True)
        module.write_text("from validation.studies.other import law\n" + "x = 1\n")
        (module.parent / "other.py").write_text(text)
        monkeypatch.setattr(codeversion, "ROOT", root)
        codeversion.version_of.cache_clear()
        return codeversion.code_version()

    law = 'def law(x):\n    """A law."""\n    return 2 * x\n'
    polished = '# Better said.\n\ndef law(x):\n    """The law."""\n    return (2 * x)\n'
    try:
        assert version(law) == version(polished)
        assert version(law) != version(law.replace("2 *", "3 *"))
    finally:
        codeversion.version_of.cache_clear()


def test_a_network_on_other_hardware_has_another_version_of_the_code() -> None:
    versions = {codeversion.code_version(*b) for b in ((), ("memristor",), ("optics",))}
    assert len(versions) == 3


def test_synthetic_points_have_figures_that_depend_on_settings_and_seed() -> None:
    from validation.studies.synthetic import synthetic

    figures = {str(synthetic(dict(p.settings), p.seed)) for p in cheap(3, bits=[2, 4], size=[8, 9])}
    assert len(figures) == 12
