"""Two sites in one process, step by step: what is learnt, published, consumed, repeated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from pib.network import Network
from tests.validation import sitecases as cases
from twin.backend import Port
from twin.errors import ConfigError, DataError, Unsupported
from twin.key import Key
from twin.ledger import Ledger
from validation.experiment import build_network, build_plans, build_trainer
from validation.sites import durable, joint, run, timeline
from validation.sites.mailbox import LATEST, FilePost, Scheduled, file_name
from validation.sites.order import ORDER, PROGRESS, ROLES, Order, read
from validation.sites.own import Elsewhere, own_network, stand_in
from validation.sites.publication import Code, Publication, coded, packed, unpacked
from validation.sites.site import Site

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def loaded() -> cases.Tensors:
    return cases.data()


def interleaved(folder: Path, loaded: cases.Tensors, key: Key) -> tuple[Site, Site]:
    """Both sites to their ends, in an order drawn from `key`."""
    up = cases.site(cases.order(folder, "upstream"), loaded)
    down = cases.site(cases.order(folder, "downstream"), loaded)
    turns = torch.rand(1000, generator=key.torch()).tolist()
    while not (up.finished and down.finished):
        turn = up if (turns.pop() < 0.5 or down.finished) and not up.finished else down
        turn.advance()
    return up, down


def publication(version: int = 1, step: int = 5, fill: float = 0.5) -> Publication:
    codes = coded(torch.full((4, 3), fill), 1.0, "uint8")
    return Publication(version=version, step=step, last=False, scale=2.0, codes=codes)


# -- what is learnt -------------------------------------------------------------


def test_the_upstream_site_learns_exactly_what_it_would_in_sequential_training(
    tmp_path: Path, loaded: cases.Tensors
) -> None:
    config, key = cases.config(), Key(7)
    network = build_network(config, 64, key=key)
    trainer = build_trainer(network, loaded, build_plans(config), key=key.child("train"))
    while trainer.unit_index == 0:
        trainer.advance()
    up = cases.finish(cases.site(cases.order(tmp_path, "upstream"), loaded))
    for name, parameter in network.units[0].parameters.items():
        assert torch.equal(parameter, up.local.unit.parameters[name])
    assert network.scales[0] == up.network.scales[0]


@given(seed=SEEDS)
@settings(max_examples=2, deadline=None)
def test_a_recorded_schedule_repeats_the_downstream_weights_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    loaded, folder = cases.data(), tmp_path_factory.mktemp("sites")
    _, down = interleaved(folder, loaded, Key(seed))
    schedule = down.record.schedule()
    assert schedule  # something was consumed
    again = cases.site(down.order, loaded, Scheduled(down.order.post, schedule))
    assert torch.equal(cases.weights(cases.finish(again)), cases.weights(down))
    later = {step + 2: version for step, version in schedule.items()}
    other = cases.site(down.order, loaded, Scheduled(down.order.post, later))
    assert not torch.equal(cases.weights(cases.finish(other)), cases.weights(down))


def test_what_was_published_is_what_drives_the_downstream_device(
    tmp_path: Path, loaded: cases.Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = cases.site(cases.order(tmp_path, "downstream"), loaded)
    down.advance()  # the stand-in first, so that the store has been in use
    codes = torch.randint(0, 256, (len(loaded.train[0]), 16), generator=Key(4).torch())
    sent = Publication(version=1, step=1, last=True, scale=1.0, codes=codes.to(torch.uint8))
    FilePost(down.order.post).publish(sent)
    shown: list[torch.Tensor] = []
    capture = down.local.unit.capture

    def spy(drive: torch.Tensor, **given: object) -> object:
        shown.append(drive)
        return capture(drive, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(down.local.unit, "capture", spy)
    down.advance()
    published = {tuple(row) for row in codes.tolist()}
    [batch] = shown
    assert {tuple(row) for row in (batch * 255).round().long().tolist()} <= published


def test_a_schedule_whose_publication_was_not_kept_is_refused(
    tmp_path: Path, loaded: cases.Tensors
) -> None:
    made = cases.order(tmp_path, "downstream")
    with pytest.raises(DataError, match="version 3"):
        cases.finish(cases.site(made, loaded, Scheduled(made.post, {1: 3})))


@pytest.mark.parametrize("skip", [True, False])
def test_without_any_news_the_downstream_site_goes_on_and_says_so_once(
    tmp_path: Path, loaded: cases.Tensors, skip: bool
) -> None:
    config = cases.config(skip=skip).model_dump_json()
    made = cases.order(tmp_path, "downstream", config=config, silence=1.0)
    down = cases.finish(cases.site(made, loaded))
    assert len(down.record.steps) == down.local.steps
    assert [line for line in down.said if "stand-in" in line] == down.said
    assert len(down.said) == 1
    assert down.silence_steps == 3


def test_the_alarm_of_silence_is_not_sounded_once_upstream_is_complete(
    tmp_path: Path, loaded: cases.Tensors
) -> None:
    cases.finish(cases.site(cases.order(tmp_path, "upstream"), loaded))
    down = cases.finish(cases.site(cases.order(tmp_path, "downstream", silence=0.5), loaded))
    assert down.said == []
    assert {row[2] for row in down.record.steps} == {5.0}


def test_fresh_features_change_which_examples_are_drawn(
    tmp_path: Path, loaded: cases.Tensors
) -> None:
    cases.finish(cases.site(cases.order(tmp_path, "upstream"), loaded))
    weighed = cases.site(cases.order(tmp_path, "downstream"), loaded)
    evenly = cases.site(cases.order(tmp_path, "downstream"), loaded)
    evenly.offset = None
    for site in (weighed, evenly):
        site.advance()
    found, none = (site.local.state()[0].get("unit.weights") for site in (weighed, evenly))
    assert none is None
    assert found is not None
    assert float(found.min()) >= cases.config().network.hard_offset - 1e-6


def test_what_stands_elsewhere_cannot_be_called(loaded: cases.Tensors) -> None:
    network = own_network(cases.config(), 64, 1, key=Key(0), ledger=Ledger())
    assert isinstance(network.units[0], Elsewhere)
    for name in ("fence", "capture", "deploy", "calibrate", "pre_activation", "gradients"):
        with pytest.raises(Unsupported, match="another site"):
            getattr(network.units[0], name)
    with pytest.raises(Unsupported):
        network.features(loaded.test[0], key=Key(0))


def test_both_sites_have_the_devices_and_first_weights_of_the_whole_network() -> None:
    config, key = cases.config(), Key(3)
    whole = build_network(config, 64, key=key)
    for index in (0, 1):
        own = own_network(config, 64, index, key=key, ledger=Ledger()).units[index]
        assert own.fence.capabilities.device_id == whole.units[index].fence.capabilities.device_id
        for name, parameter in whole.units[index].parameters.items():
            assert torch.equal(parameter, own.parameters[name])


def test_a_network_of_another_number_of_units_is_refused() -> None:
    config = cases.config()
    with pytest.raises(ConfigError, match="two units, got 1"):
        own_network(
            config.model_copy(update={"unit": config.unit[:1]}), 64, 0, key=Key(0), ledger=Ledger()
        )


def test_the_stand_in_is_dark_beside_an_image_and_the_image_in_a_chain() -> None:
    images = torch.rand(5, 64, generator=Key(1).torch())
    assert not stand_in(images, 16, skip=True).any()
    assert torch.equal(stand_in(images, 64, skip=False), images)
    shown = stand_in(images, 100, skip=False)
    assert shown.shape == (5, 100)
    assert 0 <= float(shown.min()) <= float(shown.max()) <= 1


# -- what is published ----------------------------------------------------------


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_uint8_codes_cost_nothing_before_an_eight_bit_converter(seed: int) -> None:
    port = Port(name="in", shape=(16,), low=0.0, high=1.0, levels=256, unit="V")
    # Up to four thirds of a full drive, so that clipping is met too.
    features = torch.rand(32, 16, generator=Key(seed).torch()) * 4
    sent = Publication(
        version=1, step=0, last=False, scale=3.0, codes=coded(features, 3.0, "uint8")
    ).fractions()
    assert torch.equal(port.on_grid(sent), port.on_grid((features / 3.0).clamp(0, 1)))


@pytest.mark.parametrize("code", ["uint8", "float16"])
def test_a_publication_comes_back_as_it_was_sent(code: Code) -> None:
    features = torch.rand(6, 4, generator=Key(0).torch())
    sent = Publication(
        version=3, step=40, last=True, scale=1.5, codes=coded(features, 1.5, code)
    )  # fmt: skip
    got = unpacked(packed(sent))
    assert (got.version, got.step, got.last, got.scale) == (3, 40, True, 1.5)
    assert torch.equal(got.codes, sent.codes)
    assert packed(got) == packed(sent)
    limit = 0.5 / 255 if code == "uint8" else 2**-11
    assert float((got.fractions() - features / 1.5).abs().max()) <= limit + 1e-6


def test_what_is_no_publication_is_refused() -> None:
    with pytest.raises(ConfigError, match="uint8 or float16"):
        coded(torch.zeros(1, 1), 1.0, "int4")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="publication"):
        unpacked(b"not safetensors at all")


def test_only_what_is_newer_is_read(tmp_path: Path) -> None:
    post = FilePost(tmp_path)
    assert post.latest(0, 0) is None
    post.publish(publication(1))
    got = post.latest(0, 0)
    assert got is not None
    assert got.version == 1
    assert post.latest(1, 0) is None
    assert (post.traffic.read, post.traffic.looks) == (1, 3)
    assert (
        post.traffic.bytes_in == post.traffic.bytes_out == (tmp_path / file_name(1)).stat().st_size
    )


def test_the_latest_publication_never_goes_back(tmp_path: Path) -> None:
    post = FilePost(tmp_path)
    for version in (1, 2, 1):
        post.publish(publication(version))
    got = post.latest(0, 0)
    assert got is not None
    assert got.version == 2
    assert post.traffic.published == 2


def test_a_damaged_publication_is_passed_over_and_the_next_one_taken(tmp_path: Path) -> None:
    writer, reader = FilePost(tmp_path), FilePost(tmp_path)
    writer.publish(publication(1))
    path = tmp_path / file_name(1)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert reader.latest(0, 0) is None
    assert reader.latest(0, 1) is None
    assert reader.traffic.refused == 1
    writer.publish(publication(2))
    got = reader.latest(0, 2)
    assert got is not None
    assert got.version == 2


@pytest.mark.parametrize("text", [b"", b"[]", b"{not json"])
def test_a_torn_pointer_is_no_news(tmp_path: Path, text: bytes) -> None:
    (tmp_path / LATEST).write_bytes(text)
    assert FilePost(tmp_path).latest(0, 0) is None


def test_old_publications_make_room(tmp_path: Path) -> None:
    post = FilePost(tmp_path, keep=2)
    for version in range(1, 6):
        post.publish(publication(version))
    names = sorted(p.name for p in tmp_path.glob("publication-*"))
    assert names == [file_name(4), file_name(5)]


def test_versions_are_a_function_of_the_step_and_have_no_gaps(
    tmp_path: Path, loaded: cases.Tensors
) -> None:
    up = cases.finish(cases.site(cases.order(tmp_path, "upstream"), loaded))
    rows = [(int(row[0]), int(row[1])) for row in up.record.published]
    assert rows == [(1, 1), (2, 3), (3, 6), (4, 9), (5, 12)]


# -- stop and go on -------------------------------------------------------------


@pytest.mark.parametrize("role", ["upstream", "downstream"])
@pytest.mark.parametrize("after", [1, 6])
def test_a_site_that_was_killed_goes_on_from_its_last_durable_state(
    tmp_path: Path, loaded: cases.Tensors, role: str, after: int
) -> None:
    if role == "downstream":
        cases.finish(cases.site(cases.order(tmp_path, "upstream"), loaded))
    made = cases.order(tmp_path, role)  # type: ignore[arg-type]
    undisturbed = cases.site(made, loaded)
    for _ in range(after):
        undisturbed.advance()
    durable.save(undisturbed)
    cases.finish(undisturbed)
    back = cases.site(made, loaded)
    durable.resume(back)
    assert back.local.step == after
    cases.finish(back)
    assert torch.equal(cases.weights(back), cases.weights(undisturbed))
    assert [row[1:4] for row in back.record.steps] == [row[1:4] for row in undisturbed.record.steps]


@pytest.mark.parametrize("keep", [2, None])
@pytest.mark.parametrize("killed", [7, 12])
def test_publications_after_the_last_checkpoint_are_counted_once_and_keep_their_times(
    tmp_path: Path, loaded: cases.Tensors, killed: int, keep: int | None
) -> None:
    whole = cases.finish(cases.site(cases.order(tmp_path / "whole", "upstream"), loaded))
    made = cases.order(tmp_path, "upstream", keep=keep)
    first = cases.site(made, loaded)
    while first.local.step < 4:
        first.advance()
    durable.save(first)
    while first.local.step < killed:
        first.advance()
    back = cases.site(made, loaded)
    durable.resume(back)
    cases.finish(back)
    counted, expected = back.door.traffic, whole.door.traffic
    assert expected.published == 5
    assert (counted.published, counted.bytes_out) == (expected.published, expected.bytes_out)
    rows = [(row[0], row[1], row[3]) for row in back.record.published]
    assert rows == [(row[0], row[1], row[3]) for row in whole.record.published]
    before = [row[2] for row in first.record.published]
    after = [row[2] for row in back.record.published]
    assert after == sorted(after)
    if keep is None:
        assert after[: len(before)] == before
    # One that was pruned has its successor's time, which is before the kill as well.
    assert max(after[: len(before)]) == max(before)


def test_a_publication_that_is_said_to_be_out_and_is_gone_is_an_error(tmp_path: Path) -> None:
    FilePost(tmp_path).publish(publication(1))
    (tmp_path / file_name(1)).unlink()
    with pytest.raises(DataError, match="begin the run anew"):
        FilePost(tmp_path).publish(publication(1))


class Ended:
    """A process that has ended well, or does so while one looks."""

    def __init__(self, seen: bool) -> None:
        self.seen = seen

    def poll(self) -> int | None:
        return 0 if self.seen else None

    def wait(self, timeout: float | None = None) -> int:
        return 0

    def kill(self) -> None:
        """Too late."""

    def send_signal(self, number: int) -> None:
        """Nobody is there."""


@pytest.mark.parametrize("ended", [("upstream", "downstream"), ("downstream",), ()])
def test_a_site_that_finished_before_it_was_killed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: tuple[str, ...]
) -> None:
    made = {role: cases.order(tmp_path, role) for role in ROLES}
    run.claim(made["upstream"], resume=False)

    def start(command: list[str], **given: object) -> Ended:
        role = Path(command[3]).parent.name
        # Its last word, from before it ended.
        (tmp_path / role / PROGRESS).write_text('{"step": 6, "steps": 10}')
        return Ended(role in ended)

    monkeypatch.setattr(run.subprocess, "Popen", start)
    with pytest.raises(ConfigError, match="earlier `at`"):
        run.run(made, run.Kill("downstream", 0.5, 0.0))
    events = json.loads((tmp_path / run.EVENTS).read_bytes())
    assert {"killed"}.isdisjoint(event["event"] for event in events)


def test_a_run_that_is_resumed_after_its_kill_is_not_killed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {role: cases.order(tmp_path, role) for role in ROLES}
    rows = [{"site": "downstream", "event": "killed", "time_s": 0.0, "step": 5}]
    (tmp_path / run.EVENTS).write_text(json.dumps(rows))
    monkeypatch.setattr(run.subprocess, "Popen", lambda *_, **__: Ended(seen=True))
    run.run(made, run.Kill("downstream", 0.5, 0.0))
    events = [event["event"] for event in json.loads((tmp_path / run.EVENTS).read_bytes())]
    assert sorted(events) == ["done", "done", "killed", "started", "started"]


def test_the_joint_network_is_what_both_sites_left(tmp_path: Path, loaded: cases.Tensors) -> None:
    up, down = interleaved(tmp_path, loaded, Key(5))
    for site in (up, down):
        durable.save(site)
    network = build_network(cases.config(), 64, key=Key(7))
    joint.assemble(network, [up.order, down.order])
    images = loaded.test[0]
    own = Network([up.local.unit])
    [first] = own.features(images, key=Key(1))
    both = network.features(images, key=Key(1))
    assert torch.equal(both[0], first)
    drive = (first / up.network.scales[0]).clamp(0, 1)
    record = down.local.unit.capture(drive, key=Key(1).child("unit 2"))
    assert torch.equal(both[1], torch.relu(down.local.unit.pre_activation(record)))


def test_an_order_survives_its_file(tmp_path: Path) -> None:
    made = cases.order(tmp_path, "downstream", data=tmp_path / "images")
    (tmp_path / ORDER).write_text(made.text())
    assert read(tmp_path / ORDER) == made
    assert isinstance(made, Order)
    (tmp_path / ORDER).write_text("{}")
    with pytest.raises(DataError, match="not an order"):
        read(tmp_path / ORDER)


# -- what is told of it ---------------------------------------------------------


def test_staleness_counts_what_upstream_did_since() -> None:
    upstream = np.array([[1.0 + i, 0, 0, 0, 0] for i in range(10)])  # a step a second
    published = np.array([[1, 1, 1.5, 10], [2, 5, 5.5, 10]])
    downstream = np.array([
        [0.5, 0, 0, -1, 0],  # before anything
        [4.2, 0, 1, 1, 0],  # upstream has done 4 steps, the features are of step 1
        [5.7, 0, 1, 1, 0],  # the second is out, but not taken yet
        [9.2, 0, 2, 5, 0],
    ])  # fmt: skip
    found = timeline._staleness(upstream, downstream, published)
    np.testing.assert_array_equal(found["staleness_steps"], [np.nan, 3, 4, 4])
    np.testing.assert_array_equal(found["staleness_publications"], [np.nan, 0, 1, 0])


def test_steps_made_while_the_other_site_was_away_are_counted() -> None:
    data = xr.Dataset(
        {
            "upstream_time": ("u", np.arange(10.0)),
            "downstream_time": ("d", [0.0, 1.0, 6.5, 8.0]),
        },
        attrs={"events": '[{"site": "downstream", "event": "killed", "time_s": 2.5}]'},
    )
    assert timeline.survived(data) == 4  # at 3, 4, 5 and 6
    assert timeline.survived(data.assign_attrs(events="[]")) is None


def test_the_overlap_is_the_share_of_steps_made_side_by_side() -> None:
    data = xr.Dataset(
        {"upstream_time": ("u", [1.0, 2.0]), "downstream_time": ("d", [0.5, 1.0, 1.5, 3.0])}
    )
    assert timeline.overlap(data) == 0.75
