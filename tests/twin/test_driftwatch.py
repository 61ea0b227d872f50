"""The alarm's rates, counted on streams of scores and on devices, against its own arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from substrates.ideal import Ideal, IdealConfig
from twin.driftwatch import REFERENCE_PROBES, Alarm, Limits, Reference, Watch
from twin.errors import ConfigError, ReadingError, Unsupported
from twin.fence import Fence
from twin.key import Key
from twin.registry import open_backend

SEEDS = st.integers(0, 2**32)
BATCH, OUTPUTS = 8, 16


def readings(key: Key, probes: int, sigma: float = 0.1, offset: float = 0.0) -> Tensor:
    """Probes (probes, BATCH, OUTPUTS) of a device with noise `sigma`, off by `offset`."""
    noise = key.numpy().standard_normal((probes, BATCH, OUTPUTS), dtype=np.float32)
    return torch.from_numpy(sigma * noise) + torch.linspace(0, 1, OUTPUTS) + offset


def chip(noise_v: float = 0.05) -> Fence:
    backend = Ideal(IdealConfig(inputs=4, outputs=3, noise_v=noise_v))
    fence = Fence(backend, name="chip")
    fence.program(torch.full((4, 3), 0.5), key=Key(0))
    return fence


def probes() -> Tensor:
    return torch.rand((2, 4), generator=Key(1).torch())


def alarms(scores: np.ndarray, limits: Limits | None = None) -> int:
    alarm = Alarm(limits)
    for score in scores.tolist():
        alarm.note(score)
    return alarm.alarms


# ---- the rates ------------------------------------------------------------


def test_the_default_limits_have_the_stated_rates() -> None:
    limits = Limits()
    assert limits.probes_between_alarms() == pytest.approx(3840, rel=0.01)
    assert limits.missed(2.0) == pytest.approx(0.0040, abs=1e-4)
    # At most 60 in 1e5 asks for 1667; at most 1 % missed.
    assert limits.probes_between_alarms() > 1667
    assert limits.missed(2.0) < 0.01


@pytest.mark.parametrize("step", [0.0, 0.3])
def test_the_computed_rate_is_the_rate_counted(step: float) -> None:
    # Limits of an alarm every 100 or so of 40,000 scores: five standard errors of a count.
    limits = Limits(slack=0.65, alarm=2.5)
    scores = Key(0).child("rate", str(step)).numpy().normal(step, 1.0, 40_000)
    expected = len(scores) / limits.probes_between_alarms(step)
    assert 200 < expected < 2000
    assert alarms(scores, limits) == pytest.approx(expected, abs=5 * math.sqrt(expected))


def test_a_wrong_reference_alarms_more_often_as_computed() -> None:
    # The errors of a reference of 1,000 probes, 2.6 standard errors each.
    limits, n = Limits(), REFERENCE_PROBES
    for step, scale in ((2.6 / math.sqrt(n), 1.0), (0.0, 1 + 2.6 / math.sqrt(2 * n))):
        assert 1667 < limits.probes_between_alarms(step, scale) < 3840


@pytest.mark.parametrize("seed", range(3))
def test_at_most_60_false_alarms_in_100000_probes_with_an_estimated_reference(seed: int) -> None:
    # 26 are expected of Gaussian scores, 35 of an RMS over 128 numbers, which is skewed;
    # counts scatter by 6, and by as much again with the reference.
    key = Key(seed).child("nominal")
    reference = Reference.of(readings(key.child("reference"), REFERENCE_PROBES))
    assert reference.is_enough
    found = 0
    alarm = Alarm()
    for part in range(20):
        seen = readings(key.child("probe", part), 5000)
        residual = (seen.double() - reference.mean).square().mean((1, 2))
        scores = (residual / (1 + 1 / reference.probes)).sqrt()
        assert float(scores[0]) == pytest.approx(reference.score(seen[0]), rel=1e-12)
        for score in ((scores - reference.level) / reference.repeatability).tolist():
            found += alarm.note(score)
    assert alarm.probes == 100_000
    assert found == alarm.alarms <= 60


@pytest.mark.parametrize("direction", [1, -1])
def test_a_step_of_two_is_found_within_ten_probes_in_99_of_100_runs(direction: int) -> None:
    # 1,000 runs, each with its own reference estimated from 1,000 scores.
    found = 0
    for run in range(1000):
        draw = Key(direction + 1).child("step", run).numpy()
        reference = draw.standard_normal(REFERENCE_PROBES)
        scores = 2.0 * direction + draw.standard_normal(10)
        alarm = Alarm()
        standardised = (scores - reference.mean()) / reference.std(ddof=1)
        found += any(alarm.note(score) for score in standardised.tolist())
    assert found >= 990


# ---- reference and re-sync ----------------------------------------------------


def test_a_probe_of_the_reference_scores_like_a_new_one() -> None:
    # 300 references of 5 probes of 128 numbers: without the corrections the two levels
    # would be 10 % below and above the noise. Bound: five standard errors.
    inside, outside = [], []
    for n in range(300):
        key = Key(2).child(n)
        reference = Reference.of(readings(key.child(0), 5))
        inside.append(reference.level)
        outside.append(reference.score(readings(key.child(1), 1)[0]))
    for levels in (inside, outside):
        # The mean of a root is below the root of the mean by 1 / (4 x 128).
        error = np.std(levels) / math.sqrt(len(levels))
        assert np.mean(levels) == pytest.approx(0.1 * (1 - 1 / 512), abs=5 * error + 3e-5)


@pytest.mark.parametrize("sigma", [0.1, 0.13])
def test_after_re_sync_the_score_is_back_within_5_percent(sigma: float) -> None:
    # A drift by half a sigma, and one that also changes the noise.
    watch = Watch(
        chip(), probes(), Reference.of(readings(Key(3), REFERENCE_PROBES)), key=Key(0), keep=40
    )
    before = watch.reference
    for reading in readings(Key(4), 40):
        watch.note(reading)
    assert watch.state == "in-sync"
    drifted = readings(Key(5), 50, sigma, offset=0.05)
    verdicts = [watch.note(reading) for reading in drifted]
    assert any(v.alarm for v in verdicts[:10]) and watch.state == "drifting"
    after = watch.resync()
    assert watch.state == "in-sync"
    assert after.probes == 40
    level = np.mean([watch.note(r).score for r in readings(Key(6), 400, sigma, offset=0.05)])
    # As a ratio to what the device's own noise gives now; 400 probes: 0.3 %.
    assert level / (before.level * sigma / 0.1) == pytest.approx(1, abs=0.05)
    assert watch.state == "in-sync"


def test_the_prior_keeps_the_false_alarms_few_after_a_short_re_sync() -> None:
    # 20 probes alone would estimate the repeatability to 16 %, and alarm several times as
    # often. 20,000 probes: 7 expected, and not more than five standard deviations above.
    old = Reference.of(readings(Key(7), REFERENCE_PROBES))
    new = old.refitted(readings(Key(8), 20, offset=0.2))
    alarm = Alarm()
    for part in range(4):
        seen = readings(Key(9).child(part), 5000, offset=0.2).double()
        scores = ((seen - new.mean).square().mean((1, 2)) / (1 + 1 / new.probes)).sqrt()
        for score in ((scores - new.level) / new.repeatability).tolist():
            alarm.note(score)
    assert alarm.alarms <= 20
    assert new.is_enough


@given(seed=SEEDS)
def test_only_a_changed_noise_changes_the_level(seed: int) -> None:
    key = Key(seed)
    old = Reference.of(readings(key.child(0), 200))
    same = old.refitted(readings(key.child(1), 30, offset=1.0))
    assert same.level == pytest.approx(old.level, rel=0.03)
    assert (same.scored, same.repeatability) == (230, old.repeatability)
    louder = old.refitted(readings(key.child(2), 30, 0.2))
    assert louder.level == pytest.approx(2 * old.level, rel=0.1)
    assert louder.repeatability / louder.level == pytest.approx(old.repeatability / old.level)
    assert louder.scored == 30 and not louder.is_enough


# ---- states -----------------------------------------------------------------


def test_a_device_is_lost_then_drifting_then_in_sync() -> None:
    alarm, states = Alarm(), []
    for ratio in [1.0] * 3 + [8.0] * 3 + [1.0] * 40:
        alarm.note((ratio - 1) / 0.06, ratio)
        states.append(alarm.state)
    assert states[:3] == ["in-sync"] * 3
    assert states[3] == "lost"
    assert states[-1] == "in-sync"
    first = states.index("drifting")
    assert states[first : first + 20] == ["drifting"] * 20


def test_a_drift_that_goes_on_stays_drifting() -> None:
    alarm = Alarm()
    states = []
    for score in Key(10).numpy().normal(2.0, 1.0, 300).tolist():
        alarm.note(score, 1 + 0.06 * score)
        states.append(alarm.state)
    assert set(states[10:]) == {"drifting"}


def test_the_ewma_is_the_weighted_mean_of_the_scores() -> None:
    alarm = Alarm(Limits(ewma_weight=0.25))
    for ratio in (2.0, 1.0, 3.0):
        alarm.note(0.0, ratio)
    weights = [0.25 * 0.75**2, 0.25 * 0.75, 0.25]
    assert alarm.level == pytest.approx(0.75**3 + np.dot(weights, [2, 1, 3]))


@given(wrong=st.sampled_from([math.nan, math.inf, -math.inf]), ratio=st.booleans())
def test_a_reading_that_is_no_number_is_refused_and_changes_nothing(
    wrong: float, ratio: bool
) -> None:
    alarm = Alarm()
    alarm.note(0.5, 1.1)
    before = dict(vars(alarm))
    with pytest.raises(ReadingError, match="finite score"):
        alarm.note(*((0.0, wrong) if ratio else (wrong, 1.0)))
    assert vars(alarm) == before
    # A large change is still found.
    assert alarm.note(50.0, 30.0) and alarm.state == "lost"


def test_a_watch_and_a_reference_refuse_readings_that_are_no_numbers() -> None:
    reference = Reference.of(readings(Key(0), 10))
    watch = Watch(chip(), probes(), reference, key=Key(0))
    seen = readings(Key(1), 9)
    for reading in seen[:8]:
        watch.note(reading)
    broken = seen[8].clone()
    broken[0, 0] = math.nan
    with pytest.raises(ReadingError, match="finite"):
        watch.note(broken)
    assert watch.resync().probes == 8  # the broken one is not among the recent ones
    seen[3, 0, 0] = math.nan
    with pytest.raises(ReadingError, match="Leave out"):
        Reference.of(seen)


# ---- on a device ----------------------------------------------------------------


def test_a_watch_probes_every_k_steps_and_its_passes_are_counted() -> None:
    fence = chip()
    reference = Watch.measured(fence, probes(), key=Key(0), repeats=50)
    watch = Watch(fence, probes(), reference, key=Key(0), every=10)
    verdicts = [watch.step(n) for n in range(30)]
    assert [n for n, verdict in enumerate(verdicts) if verdict] == [0, 10, 20]
    assert fence.ledger.total("chip", "watch").passes == (50 + 3) * 2
    scores = [verdict.score for verdict in verdicts if verdict]
    assert len(set(scores)) == 3  # every probe has noise of its own
    assert not reference.is_enough


def test_a_lost_setting_is_lost_and_re_sync_accepts_it() -> None:
    fence = chip()
    reference = Watch.measured(fence, probes(), key=Key(0), repeats=200)
    watch = Watch(fence, probes(), reference, key=Key(1))
    assert {watch.probe().state for _ in range(5)} == {"in-sync"}
    fence.program(torch.zeros(4, 3), key=Key(2))
    assert watch.probe().state == "lost"
    for _ in range(10):
        watch.probe()
    watch.resync([fence.forward(probes(), key=Key(3).child(n)).values for n in range(30)])
    assert watch.state == "in-sync"
    assert watch.probe().state == "in-sync"


def test_what_cannot_be_watched_is_refused() -> None:
    with pytest.raises(Unsupported, match="repeats itself"):
        Watch.measured(chip(0.0), probes(), key=Key(0), repeats=5)
    with pytest.raises(Unsupported, match="no repeatability"):
        Reference.of(torch.zeros(5, 2, 3))
    with pytest.raises(ConfigError, match="probes >= 3"):
        Reference.of(torch.zeros(2, 2, 3))
    reference = Reference.of(readings(Key(0), 10))
    with pytest.raises(ConfigError, match="the probes that the reference"):
        reference.score(torch.zeros(2, 3))
    watch = Watch(chip(), probes(), reference, key=Key(0))
    with pytest.raises(ConfigError, match="no recent"):
        watch.resync()
    with pytest.raises(ConfigError, match="probes >= 8"):
        watch.resync(readings(Key(0), 7))
    with pytest.raises(ConfigError, match="every"):
        Watch(chip(), probes(), reference, key=Key(0), every=0)
    with pytest.raises(ConfigError, match="slack"):
        Limits(slack=0.0)


@pytest.mark.slow
def test_the_rates_hold_on_a_simulated_chip() -> None:
    # 20,000 probes of a memristor chip at rest: 5 to 7 alarms expected, at most 12 by the bound
    # (60 in 1e5) and 20 by five standard deviations. Then 100 runs of a step of two.
    device = open_backend("memristor", key=Key(0), inputs=16, outputs=8)
    fence = Fence(device, name="chip")
    drive = torch.rand((8, 16), generator=Key(1).torch())
    fence.program(2 * torch.rand((16, 8), generator=Key(2).torch()) - 1, key=Key(3))
    fence.set_range(drive, key=Key(4))
    # The freshly written chip relaxes with the logarithm of its age; let that pass.
    fence.wait(1e7)
    watch = Watch(fence, drive, Watch.measured(fence, drive, key=Key(5)), key=Key(6))
    clean = [watch.probe() for _ in range(20_000)]
    assert watch.alarms <= 20
    scores = np.array([verdict.standardised for verdict in clean])
    # Its reference is of 1,000 probes, so its mean is off by 0.03 and its spread by 2 %.
    assert abs(scores.mean()) < 5 / math.sqrt(1000)
    assert scores.std() == pytest.approx(1, abs=5 / math.sqrt(2000))
    found = 0
    for run in range(100):
        alarm = Alarm()
        found += any(alarm.note(score + 2.0) for score in scores[run * 10 : run * 10 + 10])
    assert found >= 97  # 99.6 expected
