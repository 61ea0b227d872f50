"""Faults and drift in the loop, on handfuls of digits."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.errors import ConfigError, UnknownName
from twin.key import Key
from validation import datasets
from validation.adaptation import deployment, drift, main, training
from validation.adaptation.fault import Fault, breakable
from validation.adaptation.methods import METHODS, trained
from validation.adaptation.retrain import Recipe, retrained, some_of
from validation.adaptation.standing import Standing, since, spent
from validation.config import RunConfig, load_config
from validation.experiment import (
    Tensors,
    build_network,
    build_plans,
    build_trainer,
    tensors,
)

HALF = Fault(name="stuck_column_fraction", value=0.5, unit=0)


def small(epochs: int = 4, limit: int = 500) -> RunConfig:
    config = load_config("memristor-digits")
    units = tuple(u.model_copy(update={"epochs": epochs, "outputs": 48}) for u in config.unit)
    data = config.data.model_copy(update={"limit": limit})
    training_ = config.training.model_copy(update={"batch": 100})
    return config.model_copy(update={"unit": units, "data": data, "training": training_})


@cache
def digits(limit: int = 500) -> Tensors:
    return tensors(datasets.load("digits", limit=limit))


@cache
def met(method: str) -> xr.Dataset:
    case = deployment.Case(config=small(), faults=(HALF,), passes=(0.5, 4.0), method=method)
    return deployment.met(case, digits()).isel(fault=0)


# 360 test images: one standard error of a share near 0.9 is 0.016, of one near 0.5 0.026.


def test_a_fault_in_deployment_costs_much_and_retraining_wins_most_of_it_back() -> None:
    found = met("pib")
    assert float(found["before"]) > 0.85
    assert float(found["after"]) < float(found["before"]) - 5 * 0.026
    mended = found["units"].values
    assert mended[-1] > float(found["after"]) + 5 * 0.026
    assert mended[-1] > float(found["before"]) - 5 * 0.016


def test_in_silico_weights_have_only_a_readout_to_retrain() -> None:
    found = met("backprop")
    assert found["units"].isnull().all()
    assert float(found["after_head"]) < float(found["before_head"]) - 5 * 0.026
    assert found["readout"].values[-1] > float(found["after"])


def test_more_passes_cost_more_passes_and_more_writes() -> None:
    found = met("pib")
    assert found["units_passes"].values[0] < found["units_passes"].values[1]
    assert found["units_writes"].values[0] <= found["units_writes"].values[1]
    assert (found["readout_writes"] == 0).all()
    assert (found["units_passes"] > found["readout_passes"]).all()


def test_a_case_is_repeated_to_the_bit() -> None:
    case = deployment.Case(config=small(), faults=(HALF,), passes=(0.5,), method="pib")
    again = deployment.met(case, digits()).isel(fault=0)
    for name in ("before", "after"):
        assert float(again[name]) == float(met("pib")[name])
    assert float(again["units"][0]) == float(met("pib")["units"][0])


def test_rates_are_chosen_with_the_first_seed_and_kept_for_the_others() -> None:
    found = deployment.work_tuned_once(
        [0, 1], config=small(epochs=1).model_dump(mode="json"),
        faults=[{"name": HALF.name, "value": 0.5, "unit": 0}], passes=[0.5], method="pib",
        folder=None, factors=[0.5, 2.0],
    )  # fmt: skip
    for way in deployment.WAYS:
        factors = found[f"{way}_factor"].values[:, 0, 0]
        assert factors[0] == factors[1] and factors[0] in (0.5, 2.0)
        # Validation is looked at where something is chosen by it, and only there.
        assert found[f"{way}_validation"].notnull().values[:, 0, 0].tolist() == [True, False]
    assert found["seed"].values.tolist() == [0, 1] and found.attrs["tuned_with_seed"] == 0


@pytest.mark.parametrize("method", ["pib", "backprop"])
def test_everything_that_is_told_of_a_case_has_a_unit(method: str) -> None:
    found = met(method)
    assert all("units" in found[name].attrs for name in [*found.data_vars, "passes"])


def test_faults_do_not_add_up_over_a_case() -> None:
    """Each fault starts from the healthy network: 10 % after 50 % is 10 %."""
    light = Fault(name="stuck_column_fraction", value=0.1, unit=0)
    config = small(epochs=1)
    both = deployment.met(
        deployment.Case(config=config, faults=(HALF, light), passes=(0.5,), method="pib"), digits()
    )
    alone = deployment.met(
        deployment.Case(config=config, faults=(light,), passes=(0.5,), method="pib"), digits()
    )
    for name in ("after", "units", "readout"):
        assert both[name].values[1] == pytest.approx(alone[name].values[0], abs=0)


# ---- a network put aside ----------------------------------------------------------


def test_a_network_put_back_reads_and_spends_as_before() -> None:
    healthy = trained(small(epochs=1), digits(), METHODS["pib"], Key(1))
    network, images = healthy.network, digits().test[0][:64]
    stood = Standing.of(network)
    first = network.features(images, key=Key(5))
    HALF.turn(network, Key(1))
    retrained(
        small(), network, some_of(digits(), 0.5, Key(2)), Recipe(passes=0.5), first=0, key=Key(3)
    )
    assert not torch.equal(first[0], network.features(images, key=Key(5))[0])
    stood.put(network)
    before = spent(network)
    again = network.features(images, key=Key(5))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
    assert since(network, before)["passes"] == 2 * len(images)


def test_units_before_the_hit_one_are_left_alone() -> None:
    healthy = trained(small(epochs=1), digits(), METHODS["pib"], Key(1))
    network = healthy.network
    before = {n: p.clone() for n, p in network.parameters().items()}
    scale = network.scales[0]
    writes = network.units[0].fence.ledger.total("unit 1").writes
    measured = retrained(small(), network, digits(), Recipe(passes=1), first=1, key=Key(3))
    after = network.parameters()
    assert torch.equal(before["unit 1.weight"], after["unit 1.weight"])
    assert not torch.equal(before["unit 2.weight"], after["unit 2.weight"])
    assert network.scales[0] == scale
    assert network.units[0].fence.ledger.total("unit 1").writes == writes
    assert [len(z) for z in measured] == [len(digits().train[1])] * 2


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.floats(0.05, 0.95))
def test_a_part_of_a_pass_shows_every_class_its_share(seed: int, share: float) -> None:
    part = some_of(digits(), share, Key(seed))
    whole, seen = (torch.bincount(d.train[1], minlength=10) for d in (digits(), part))
    assert ((seen - share * whole).abs() <= 0.5 + 4 * (share * whole < 4)).all()
    assert part.test is digits().test


@pytest.mark.parametrize("passes", [0.0, -1.0, 1.5])
def test_passes_that_cannot_be_made_are_refused(passes: float) -> None:
    with pytest.raises(ConfigError, match="passes"):
        Recipe(passes=passes)


# ---- faults -------------------------------------------------------------------------


def test_a_fault_is_read_from_text_and_bad_text_is_refused() -> None:
    assert Fault.parsed("dead_column=0.25", 1) == Fault(name="dead_column", value=0.25, unit=1)
    for text in ("dead_column", "dead_column=", "dead_column=many"):
        with pytest.raises(ConfigError, match="NAME=VALUE"):
            Fault.parsed(text)


def test_a_dial_that_a_backend_lacks_is_laid_over_it() -> None:
    fault = Fault(name="dead_column", value=0.5, unit=0)
    config = load_config("optics-digits")
    broken = breakable(config, fault, 64)
    assert broken.unit[0].backend == "broken+optics"
    assert broken.unit[1:] == config.unit[1:]
    assert breakable(small(), HALF, 64) == small()


def test_the_share_of_a_map_is_broken_and_the_rest_is_not() -> None:
    """48 columns, share 0.5: within five standard errors, 5 sqrt(48) / 2 = 17 columns."""
    network = build_network(small(), 64, key=Key(0))
    images = digits().test[0][:64]
    for index, unit in enumerate(network.units):
        unit.deploy(Key(7).child(index))
    Fault(name="dead_column", value=0.5, unit=0).turn(network, Key(3))
    record = network.units[0].capture(images, key=Key(4))
    dead = int((record.values.amax(0) == record.values.amin(0)).sum())
    assert abs(dead - 24) <= 17
    with pytest.raises(ConfigError, match="share"):
        Fault(name="dead_column", value=2.0, unit=0).turn(network, Key(3))


def test_a_unit_that_is_not_there_cannot_be_hit() -> None:
    network = build_network(small(), 64, key=Key(0))
    with pytest.raises(ConfigError, match="2 units"):
        Fault(name="stuck_column_fraction", value=0.5, unit=5).turn(network, Key(0))


# ---- a fault in training ---------------------------------------------------------------


def test_training_goes_on_over_a_fault_in_its_middle() -> None:
    found = training.met(small(), HALF, 0.5, [2.0], "pib", digits(), Key(0))
    assert float(found["after"]) < float(found["before"]) - 5 * 0.026
    assert float(found["scheduled"]) > float(found["after"]) + 5 * 0.026
    assert float(found["units"][0]) > float(found["after"])


def test_without_a_fault_the_middle_of_a_training_is_only_looked_at() -> None:
    """Both ends, with and without "no fault", are that of a training never stopped."""
    none = Fault(name="stuck_column_fraction", value=0.0, unit=0)
    found = training.met(small(), none, 0.5, [1.0], "pib", digits(), Key(0))
    assert float(found["healthy"]) == float(met_before_once())
    assert float(found["scheduled"]) == float(found["healthy"])


@pytest.mark.parametrize("name", ["pib", "lce"])
def test_a_run_rewound_to_the_middle_without_a_fault_equals_the_healthy_run(name: str) -> None:
    config, who = small(epochs=2), METHODS[name]
    network = build_network(config, 64, key=Key(0))
    plans = build_plans(config, who.objective, who.rate(config))
    trainer = build_trainer(network, digits(), plans, key=Key(0).child("train"))
    training._go_to(trainer, 0, 0.5)
    (arrays, text), stood = trainer.state(), Standing.of(network)
    ends = []
    for _ in range(2):
        features = [z.clone() for z in trainer.run()]
        ends.append([*features, *(p.clone() for p in network.parameters().values())])
        stood.put(network)
        trainer.load(arrays, text)
    for once, again in zip(*ends, strict=True):
        assert torch.equal(once, again)


def met_before_once() -> float:
    from validation.adaptation.retrain import classifier, judged

    healthy = trained(small(), digits(), METHODS["pib"], Key(0))
    readout = classifier(small(), healthy.measured, digits(), Key(0).child("readout"))
    return judged(small(), healthy.network, readout, digits().test, Key(0).child("test"))


def test_in_silico_training_meets_no_fault() -> None:
    with pytest.raises(ConfigError, match="in the loop"):
        training.met(small(), HALF, 0.5, [1.0], "backprop", digits(), Key(0))


# ---- drift ---------------------------------------------------------------------------------

DRIFT = {"relaxation_mean": 0.01, "relaxation_spread": 0.02}
POLICIES = (
    drift.Policy(what="nothing"),
    drift.Policy(what="rewrite", every_s=2e6),
    drift.Policy(what="readout", every_s=2e6),
    drift.Policy(what="network", every_s=1e6),
    drift.Policy(what="readout", drop=0.9),
    drift.Policy(what="readout", drop=0.02),
)


@cache
def aged() -> xr.Dataset:
    return drift.aged(
        small(), digits(), DRIFT, POLICIES, Recipe(passes=1), 4e6, 4, Key(0)
    )  # fmt: skip


def test_a_network_left_alone_loses_and_a_treated_one_loses_less() -> None:
    ends = aged()["accuracy_after"].isel(time=-1).values
    assert ends[0] < aged()["accuracy_after"].values[0, 0] - 5 * 0.026
    for policy in (1, 2, 3, 5):
        assert ends[policy] > ends[0] + 3 * 0.026


def test_treatments_come_when_the_policy_says() -> None:
    treated = aged()["treated"].values
    assert treated.tolist()[:4] == [
        [0, 0, 0, 0, 0], [0, 0, 1, 0, 1], [0, 0, 1, 0, 1], [0, 1, 1, 1, 1]
    ]  # fmt: skip
    assert treated[4].sum() == 0 and treated[5].sum() >= 1


def test_a_check_judges_before_and_after_a_treatment() -> None:
    found = aged()
    before, after = found["accuracy_before"], found["accuracy_after"]
    hit = found["treated"] > 0
    assert (before.where(~hit) == after.where(~hit)).values[~hit.values].all()
    # Rewritten twice, and each time at its worst just before.
    teeth = (after - before).isel(policy=1).values[hit.values[1]]
    assert len(teeth) == 2 and teeth.mean() > 3 * 0.026 / 2**0.5


def test_what_is_not_done_costs_nothing_and_costs_never_fall() -> None:
    found = aged()
    assert (found["passes"].isel(policy=0) == 0).all()
    for name in ("passes", "writes", "device_seconds", "joules"):
        assert (found[name].diff("time") >= 0).all()
    ends = found.isel(time=-1)
    assert (ends["writes"].values[[0, 2, 4, 5]] == 0).all()
    assert 0 < ends["writes"].values[1] < ends["writes"].values[3]
    # A probe that never calls for treatment is still paid for.
    assert ends["passes"].values[4] > 0


def test_every_policy_begins_with_the_same_network() -> None:
    assert len(set(aged()["accuracy_after"].values[:, 0])) == 1


def test_policies_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(UnknownName, match="readout"):
        drift.Policy(what="readouts", every_s=1.0)
    for bad in ({"what": "readout"}, {"what": "nothing", "drop": 0.1}):
        with pytest.raises(ConfigError, match="either every_s or drop"):
            drift.Policy(**bad)


# ---- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["deployment", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("training", "drift"))],
)
def test_the_command_leaves_a_picture_data_and_figures(kind: str, tmp_path: Path) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(
        'about = "tiny"\n[data]\nname = "digits"\nlimit = 200\n[training]\nbatch = 50\n'
        "[network]\nshared_clock = false\n[[unit]]\noutputs = 16\nepochs = 1\n"
        "[[unit]]\noutputs = 12\nepochs = 1\n"
    )
    request = main.Request(
        preset=str(config), out=tmp_path / "out", jobs=1, quiet=True, passes=(0.5,),
        fault=None if kind == "drift" else "stuck_column_fraction=0.5", unit=1,
        when="training" if kind == "training" else "deployment", methods=("pib", "backprop"),
        checks=2, for_s=2e6,
    )  # fmt: skip
    summary = main.main(request)
    assert summary.figures
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "adaptation.png", "adaptation.nc", "summary.json", "parts"
    }  # fmt: skip
