"""Unlabelled runs by configuration: the preset, what it refuses, and a whole run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pib.batches import Classes, Instances
from pib.objective import InformationBottleneck
from pib.target import Target
from pib.unsupervised import Spread
from twin.errors import ConfigError
from validation import datasets
from validation.baselines.lce import LocalCrossEntropy
from validation.config import RunConfig, load_config, parse_config
from validation.experiment import build_plans
from validation.job import Job
from validation.run import run
from validation.training import Request, configured

UNIT = '[[unit]]\nbackend = "memristor"\noutputs = 16\n'
BLIND = "[network]\nhard_examples = false\n[augment]\nshift_px = 1\n"
PLAIN = "[network]\nhard_examples = false\n"


def config(text: str) -> RunConfig:
    return parse_config(text + UNIT, "here")


def test_the_preset_shows_views_of_instances_and_no_labels() -> None:
    plans = build_plans(load_config("memristor-unsupervised"))
    assert [p.batches for p in plans] == [Instances(instances=32, views=8)] * 2
    assert all(isinstance(p.objective, InformationBottleneck) for p in plans)
    assert all(p.hard_offset is None and p.steps is not None for p in plans)


def test_a_control_with_labels_is_given_labels() -> None:
    plans = build_plans(load_config("memristor-unsupervised"), LocalCrossEntropy, 0.01)
    assert all(isinstance(p.batches, Classes) and p.rate == 0.01 for p in plans)


@pytest.mark.parametrize("target", list(Target))
def test_every_target_can_be_asked_for_by_name(target: Target) -> None:
    (plan,) = build_plans(config(f'{BLIND}[unsupervised]\ntarget = "{target}"\n'))
    assert isinstance(plan.objective, Spread) == (target == Target.SPREAD)
    assert plan.batch == 256


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[unsupervised]\n", "hard_examples looks at labels"),
        (f"{BLIND}[objective]\nsigma_end = 0.7\n[unsupervised]\n", "sigma_end"),
        (f'{BLIND}[unsupervised]\ntarget = "instanzes"\n', "instances"),
        (f"{BLIND}[unsupervised]\nviews = 1\n", "views"),
        (f"{PLAIN}[unsupervised]\n", "differ by read noise only"),
        (f'{PLAIN}[unsupervised]\ntarget = "two-views"\n', "differ by read noise only"),
        (f'{PLAIN}[unsupervised]\ntarget = "clusters"\nclusters = 257\n', "257 clusters"),
    ],
)
def test_what_does_not_fit_together_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config(text)


def test_a_unit_s_own_batch_is_for_clusters_only() -> None:
    def sized(target: str, batch: int) -> RunConfig:
        text = f'{BLIND}[unsupervised]\ntarget = "{target}"\n{UNIT}batch = {batch}\n'
        return parse_config(text, "here")

    for target in set(Target) - {Target.CLUSTERS}:
        with pytest.raises(ConfigError, match=r"unit\.0\.batch is not used"):
            sized(target, 300)
    assert build_plans(sized("clusters", 300))[0].batch == 300
    with pytest.raises(ConfigError, match="a batch of 99 cannot hold every one of 100 clusters"):
        sized("clusters", 99)


def test_units_that_live_in_the_computer_refuse_cheap_writes() -> None:
    text = '[[unit]]\nbackend = "optics"\nkind = "broken-isomorphism"\nprogram_every = 2\n'
    with pytest.raises(ConfigError, match="isomorphic units"):
        parse_config(text, "here")


def test_quick_and_epochs_replace_steps() -> None:
    preset = load_config("memristor-unsupervised")
    quick = configured(Request(preset="memristor-unsupervised", quick=True))
    assert [u.steps for u in quick.unit] == [preset.quick.steps] * 2
    epochs = configured(Request(preset="memristor-unsupervised", epochs=3))
    assert [(u.steps, u.epochs) for u in epochs.unit] == [(None, 3)] * 2
    assert configured(Request(preset="memristor-unsupervised")) == preset


def test_an_unlabelled_run_leaves_a_run_folder(tmp_path: Path) -> None:
    """Digits: the readout on unlabelled features is far above chance."""
    text = f"{BLIND}[unsupervised]\ninstances = 12\nviews = 4\n"
    made = config(text).model_copy(update={"about": "test"})
    unit = made.unit[0].model_copy(update={"steps": 12})
    made = made.model_copy(update={"unit": (unit,)})
    data = datasets.load("digits", limit=300)
    summary = run(Job(config=made, data=data, seed=0, out=tmp_path, references=False))
    found = {f.name: f.value for f in summary.figures}
    assert float(found["accuracy"] or 0) > 0.5
    assert (tmp_path / "summary.json").is_file()
