"""Study files: whatever is written there either runs or is refused by name."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.validation.studies.helpers import Inline, Seen, toml
from twin.errors import ConfigError, UnknownName
from validation.studies.collect import collect, save
from validation.studies.engine import run
from validation.studies.study import Study, load_study, parse_study

HERE = "some/study.toml"
SYNTHETIC = {"base": "synthetic", "methods": ["synthetic"]}

# ---- any file ----------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
SCALAR = st.one_of(
    st.booleans(),
    st.integers(-3, 20),
    st.sampled_from([10**30, -(10**400), 4097]),
    st.floats(),
    st.sampled_from(["plain", "fancy", "3 uS", ""]) | TEXT,
)
RANGE = st.fixed_dictionaries(
    {"from": SCALAR, "to": SCALAR, "steps": st.integers(0, 5)},
    optional={"log": st.booleans(), "stepz": st.just(3)},
)
AXIS = st.lists(SCALAR, max_size=3) | st.lists(st.integers(1, 9), max_size=3) | RANGE | SCALAR
NAMES = st.sampled_from(
    ["bits", "size", "noise", "kind", "shared", "fail", "rounds", "bitz", "dial.noise", "a.b"]
)
HEAD = st.fixed_dictionaries(
    {},
    optional={
        "base": st.sampled_from(["synthetic", "synthetic", "synthetik", "x.toml"]) | SCALAR,
        "methods": st.just(["synthetic"]) | st.lists(st.sampled_from(["pib", "sgd"])) | SCALAR,
        "seeds": st.integers(-1, 3) | st.lists(st.integers(-1, 3), max_size=3) | SCALAR,
        "about": SCALAR,
        "when": st.sampled_from(["training", "test", "later"]),
        "limit": SCALAR,
        "record": st.lists(st.sampled_from(["accuracy", "latency_s", "speed"]), max_size=2),
        "seed": SCALAR,
    },
)
TRUE_HEAD = HEAD.map(lambda head: head | SYNTHETIC)


def runs_or_is_refused(head: dict[str, Any], axes: dict[str, Any]) -> None:
    named = [*head, *axes, "base", "TOML"]
    try:
        study = parse_study(toml(head, axes), HERE)
    except ConfigError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert message.startswith(HERE) and any(name in message for name in named), message
        return
    points = list(study.points())
    assert len(set(points)) == len({p.key() for p in points}) == study.size
    with tempfile.TemporaryDirectory() as folder:
        run(points[:6], folder, Inline())
        data = collect(folder, study)
        save(data, Path(folder) / "x.nc")
    assert data["status"].size == study.size
    assert int((data["status"] == "missing").sum()) == study.size - len(points[:6])


@settings(max_examples=50)
@given(HEAD | TRUE_HEAD, st.dictionaries(NAMES, AXIS, max_size=3))
def test_any_study_file_runs_or_is_refused_by_name(
    head: dict[str, Any], axes: dict[str, Any]
) -> None:
    runs_or_is_refused(head, axes)


GOOD = {
    "bits": st.lists(st.integers(1, 16), min_size=2, max_size=3, unique=True),
    "noise": st.lists(st.floats(0, 10), min_size=2, max_size=3, unique=True)
    | st.fixed_dictionaries(
        {"from": st.floats(0.001, 1), "to": st.floats(2, 9), "steps": st.integers(2, 4)},
        optional={"log": st.booleans()},
    ),
    "kind": st.permutations(["plain", "fancy"]),
    "fail": st.just([False, True]),
}
GOOD_AXES = st.fixed_dictionaries({}, optional=GOOD)


@settings(max_examples=25)
@given(GOOD_AXES, st.integers(1, 2), st.sampled_from([(), ("accuracy",)]))
def test_a_good_study_file_runs(axes: dict[str, Any], seeds: int, record: tuple[str, ...]) -> None:
    head = SYNTHETIC | {"seeds": seeds, "record": list(record)}
    study = parse_study(toml(head, axes), HERE)
    points = list(study.points())[:8]
    with tempfile.TemporaryDirectory() as folder:
        run(points, folder, Inline(), seen := Seen())
    assert [result.point for result in seen.computed()] == points
    assert all((r.status == "failed") == dict(r.point.settings).get("fail", False) for r, _ in seen)


FAULTS = [
    ({}, {"bitz": [2, 3]}, r"axes\.bitz.*'bits'"),
    ({}, {"bits": [2]}, r"axes\.bits.*at least two"),
    ({}, {"bits": [2, 2]}, r"axes\.bits.*twice"),
    ({}, {"bits": [2, 2.0]}, r"axes\.bits.*twice"),
    ({}, {"bits": [2, 17]}, r"axes\.bits.*16"),
    ({}, {"noise": [0.1, math.inf]}, r"axes\.noise.*finite"),
    ({}, {"noise": [0.1, "a"]}, r"axes\.noise.*one kind"),
    ({}, {"noise": ["1 mV", "2 mV"]}, r"axes\.noise.*unit belongs to the parameter's name"),
    ({}, {"noise": [0.1, [1]]}, r"axes\.noise"),
    ({}, {"noise": 0.1}, r"axes\.noise.*list"),
    ({}, {"noise": {"from": 0, "to": 1, "steps": 3, "log": True}}, r"axes\.noise.*log"),
    ({}, {"noise": {"from": 0, "to": 1}}, r"axes\.noise\.steps"),
    ({}, {"noise": {"from": 1, "to": 1, "steps": 3}}, r"axes\.noise.*twice"),
    ({}, {"bits": {"from": 2, "to": 4, "steps": 4}}, r"axes\.bits.*integer"),
    ({}, {"rounds": {"from": 0, "to": 10**6, "steps": 10**5}}, r"axes\.rounds\.steps"),
    ({}, {"rounds": {"from": 0, "to": 9999, "steps": 10**4},
          "noise": {"from": 0, "to": 1, "steps": 100}}, "at most 100000"),
    ({"base": "synthetik"}, {}, r"base.*synthetik"),
    ({"base": "no.toml"}, {}, r"base.*no\.toml"),
    ({"methods": ["pib"]}, {}, r"methods.*synthetic"),
    ({"methods": ["pip"]}, {}, r"methods.*'pib'"),
    ({"methods": []}, {}, r"methods.*at least one"),
    ({"seeds": [1, 1]}, {}, r"seeds.*twice"),
    ({"seeds": 0}, {}, r"seeds"),
    ({"record": ["acuracy"]}, {}, r"record.*'accuracy'"),
    ({"when": "later"}, {}, r"when"),
    ({"method": ["pib"]}, {}, r"method: unknown key.*'methods'"),
]  # fmt: skip


@pytest.mark.parametrize(("head", "axes", "named"), FAULTS)
def test_a_planted_fault_is_refused_by_file_and_key(
    head: dict[str, Any], axes: dict[str, Any], named: str
) -> None:
    good = SYNTHETIC | {"seeds": 2}
    parse_study(toml(good, {"size": [2, 3]}), HERE)
    with pytest.raises(ConfigError, match=rf"(?s){HERE}.*{named}"):
        parse_study(toml(good | head, {"size": [2, 3], **axes}), HERE)


# ---- real networks --------------------------------------------------------------


def of_network(base: str = "memristor-digits", /, methods: str = "pib", **axes: Any) -> Study:
    named = {name.replace("__", "."): values for name, values in axes.items()}
    return parse_study(toml({"base": base, "methods": [methods]}, named), HERE)


def refused(named: str, *given: str, **axes: Any) -> None:
    with pytest.raises(ConfigError, match=rf"(?s){HERE}.axes.*{named}"):
        of_network(*given, **axes)


def test_options_dials_and_run_parameters_are_axes() -> None:
    study = of_network(
        unit__options__adc_bits=[4, 8], dial__read_noise=[0, 0.1], unit__0__epochs=[1, 2],
        objective__alpha={"from": 0.5, "to": 2, "steps": 3, "log": True}, test__wait_s=[0, 10],
    )  # fmt: skip
    assert study.size == 2 * 2 * 2 * 3 * 2
    assert study.axes["objective.alpha"] == (0.5, 1, 2)


def test_a_misspelt_option_or_dial_is_refused_with_the_nearest_name() -> None:
    refused("'adc_bits'", unit__options__adc_bit=[4, 8])
    refused("'read_noise'", dial__read_nois=[0, 0.1])
    refused("'prnu'", "hybrid-fashion", unit__options__sensor__prn=[0, 0.1])
    refused("'epochs'", unit__epochz=[1, 2])


def test_a_value_out_of_range_is_refused_with_the_range() -> None:
    refused("16, got 60", unit__options__adc_bits=[4, 60])
    refused("expected 0 to 1", dial__read_noise=[0, 2])
    refused("greater than or equal to 1", unit__epochs=[0, 1])
    refused("from 0", test__wait_s=[0, -1])
    refused("at most 1e", unit__outputs=[8, 10**15])


def test_a_value_that_only_fits_beside_another_axis_is_let_in() -> None:
    refused("widen the window", unit__options__g_min_siemens=[1e-6, 30e-6])
    study = of_network(
        unit__options__g_min_siemens=[1e-6, 30e-6], unit__options__g_max_siemens=[20e-6, 40e-6]
    )
    assert study.size == 4


def test_an_axis_on_a_disabled_part_is_refused_with_what_enables_it() -> None:
    refused("technology", dial__rtn_scale=[0, 1])
    refused("encoding", unit__options__slices=[2, 3])
    refused("beta is 0", objective__sigma_input=[1, 2])
    refused("which the study does not name", methods="lce", objective__alpha=[1, 2])
    refused("map", dial__dead_row=[0, 1])
    assert of_network(
        dial__rtn_scale=[0, 1], unit__options__technology=["cmo-hfox-2", "pcm-nandakumar"]
    )
    assert of_network(unit__options__slices=[2, 3], unit__options__encoding=["pair", "sliced"])


REAL_NAMES = st.sampled_from(
    ["unit.options.adc_bits", "unit.1.options.technology", "unit.options.slices", "unit.epochs",
     "dial.read_noise", "unit.1.dial.word_ohm", "dial.rtn_scale", "unit.3.dial.word_ohm",
     "objective.beta", "data.name", "network.skip", "unit.options", "unit.0", "dial.",
     "unit.options.", "training.batch", "about", "unit.backend", "unit.options.inputs"]
)  # fmt: skip


@settings(max_examples=25)
@given(
    st.dictionaries(REAL_NAMES, st.lists(SCALAR, min_size=2, max_size=2), min_size=1, max_size=2)
)
def test_any_study_of_a_network_is_expanded_or_refused_by_name(axes: dict[str, Any]) -> None:
    try:
        study = parse_study(toml({"base": "memristor-digits"}, axes), HERE)
    except ConfigError as error:
        message = str(error)
    else:
        assert len(list(study.points())) == study.size
        return
    assert message.startswith(HERE)
    assert "TOML" in message or any(name in message for name in axes)


# ---- files ----------------------------------------------------------------------


def test_dotted_paths_may_be_quoted_or_not() -> None:
    head = 'base = "memristor-digits"\n[axes]\n'
    bare = parse_study(head + "dial.read_noise = [0, 0.1]", HERE)
    assert bare == parse_study(head + '"dial.read_noise" = [0, 0.1]', HERE)
    with pytest.raises(ConfigError, match="twice"):
        parse_study(head + 'dial.read_noise = [0, 1]\n"dial.read_noise" = [0, 1]', HERE)


def test_paths_of_configurations_start_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_text("[[unit]]\nepochs = 3\n")
    (tmp_path / "study.toml").write_text('base = "net.toml"\n')
    study = load_study(tmp_path / "study.toml", data="/somewhere")
    assert study.base == str(tmp_path / "net.toml")
    assert [p.data for p in study.points()] == ["/somewhere"]


@pytest.mark.parametrize("content", [b"base = ", b"\xff", b"axes = 3", b"seeds = " + b"9" * 5000])
def test_what_is_no_study_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"study\.toml"):
        load_study(path)
    with pytest.raises(ConfigError, match="no study file"):
        load_study(tmp_path / "missing.toml")


def test_an_unknown_method_is_an_unknown_name() -> None:
    with pytest.raises(UnknownName):
        parse_study(toml({"base": "synthetic", "methods": ["x"]}, {}), HERE)


@given(st.floats(1e-6, 1e6), st.floats(1.1, 1e6), st.integers(2, 9))
def test_a_log_range_has_equal_factors_and_its_ends(
    start: float, factor: float, steps: int
) -> None:
    head = toml({"base": "synthetic", "methods": ["synthetic"]}, {})
    text = f"rounds = {{ from = 1, to = 10000, steps = 5, log = true }}\nnoise = {{ from = {start}"
    stop = start * factor
    if stop > 10:
        start, stop = 10 / factor, 10.0
        text = f"noise = {{ from = {start}"
    study = parse_study(f"{head}{text}, to = {stop}, steps = {steps}, log = true }}", HERE)
    values = [float(v) for v in study.axes["noise"]]
    assert values[0] == start and values[-1] == stop and len(values) == steps
    ratios = [b / a for a, b in itertools.pairwise(values)]
    assert max(ratios) / min(ratios) < 1 + 1e-9
