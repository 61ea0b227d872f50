"""`pib-twin fit-device` from the CSV file to the files it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from substrates.memristor.technology import load
from tests.substrates.test_fitting import Lab
from twin.errors import DataError
from twin.key import Key
from validation import summary as summaries
from validation.devicefit import main, read

LAB = Lab(cells=24)


def csv(path: Path, lab: Lab = LAB, seed: int = 1) -> Path:
    pd.DataFrame(lab.table(Key(seed))).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", ["log", "power"])
def test_a_table_becomes_a_device_file_a_picture_and_a_summary(kind: str, tmp_path: Path) -> None:
    path = csv(tmp_path / "my-cells.csv", Lab(kind=kind, cells=40))
    out = tmp_path / "out"
    summary = main(path, out, "pib-twin fit-device my-cells.csv")
    assert sorted(f.name for f in out.iterdir()) == ["fit.png", "my-cells.toml", "summary.json"]
    made = load(out / "my-cells.toml")
    assert made.relaxation is not None and made.relaxation.kind == kind
    assert made.name == "my-cells"
    assert (made.low_siemens, made.high_siemens) == pytest.approx((4e-6, 16e-6))
    assert summary.holds, summary.failed
    assert summaries.read(out).figures == summary.figures
    with Image.open(out / "fit.png") as picture:
        assert picture.width > 1000 and len(np.unique(np.asarray(picture))) > 50


def test_every_parameter_has_its_error_in_the_summary_and_in_the_file(tmp_path: Path) -> None:
    path = csv(tmp_path / "cells.csv")
    summary = main(path, tmp_path, "x")
    text = (tmp_path / "cells.toml").read_text()
    document = json.loads((tmp_path / "summary.json").read_text())
    estimates = document["extra"]["estimates"]
    assert len(estimates) == 3 + 5
    for estimate in estimates:
        figure = next(f for f in summary.figures if f.name == estimate["name"])
        assert figure.standard_error == estimate["standard_error"] > 0
        low, high = estimate["interval_95"]
        assert low < estimate["value"] < high
        assert f"# {estimate['name']} = " in text
    assert "analytic" in text and "held-out" in text


def test_the_same_file_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    path = csv(tmp_path / "cells.csv")
    for folder in ("a", "b"):
        main(path, tmp_path / folder, "x", seed=3)
    for name in ("cells.toml", "fit.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_without_a_folder_the_results_lie_beside_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(csv(tmp_path / "cells.csv"), None, "x")
    assert (tmp_path / "cells-device" / "cells.toml").is_file()


def test_a_systematic_offset_fails_its_check(tmp_path: Path) -> None:
    table = LAB.table(Key(2))
    table["conductance_siemens"] = table["conductance_siemens"] + 1.5e-6
    path = tmp_path / "cells.csv"
    pd.DataFrame(table).to_csv(path, index=False)
    figure = next(
        f for f in main(path, tmp_path, "x").figures if f.name == "largest offset from target"
    )
    assert figure.value is not None and figure.value > 0.8


def test_wandering_between_visits_fails_its_check(tmp_path: Path) -> None:
    table = pd.DataFrame(LAB.table(Key(2)))
    # Each cell jumps at each visit by ten times its read noise.
    visit = np.floor(np.log10(table["time_s"]) + 0.01).astype(int)
    steps = Key(3).numpy().normal(size=(72, 4)) * 0.06
    cell = table["cell"].str[1:].astype(int)
    table["conductance_siemens"] *= 1 + steps[cell, visit]
    table.to_csv(tmp_path / "cells.csv", index=False)
    assert "read variance over repeats'" in main(tmp_path / "cells.csv", tmp_path, "x").failed


def test_read_noise_that_depends_on_the_state_fails_its_check(tmp_path: Path) -> None:
    table = pd.DataFrame(LAB.table(Key(2)))
    # Four times as much at the lowest target: about each visit's mean.
    visit = np.floor(np.log10(table["time_s"]) + 0.01)
    g = table["conductance_siemens"]
    mean = g.groupby([table["cell"], visit]).transform("mean")
    low = table["target_siemens"] < 5e-6
    table["conductance_siemens"] = g + 3 * (g - mean) * low
    table.to_csv(tmp_path / "cells.csv", index=False)
    assert "read noise, targets' ratio" in main(tmp_path / "cells.csv", tmp_path, "x").failed


def test_numbers_as_names_spaces_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    table = pd.DataFrame(LAB.table(Key(1)))
    table["cell"] = table["cell"].str[1:]
    text = table.to_csv(index=False).replace(",", ", ").replace("\n", "\r\n")
    path = tmp_path / "cells.csv"
    path.write_bytes(text.encode("utf-8-sig"))
    found = read(path)
    assert len(found.names) == 72 and found.taken.sum() == len(table)


def written(path: Path, table: pd.DataFrame) -> Path:
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("rename", "words"),
    [
        ({"conductance_siemens": "conductance_uS"}, ("conductance_uS", "1e-6", "siemens")),
        ({"time_s": "time_ms"}, ("time_ms", "1e-3", "seconds")),
        ({"cell": "cel"}, ("'cel'", "Did you mean 'cell'")),
        ({"target_siemens": "cell"}, ("'cell'", "twice")),
    ],
)
def test_unknown_columns_are_refused_with_a_hint(
    tmp_path: Path, rename: dict[str, str], words: tuple[str, ...]
) -> None:
    table = pd.DataFrame(LAB.table(Key(1))).rename(columns=rename)
    path = tmp_path / "cells.csv"
    path.write_text(table.to_csv(index=False))
    with pytest.raises(DataError) as caught:
        main(path, tmp_path / "out", "x")
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_column_and_further_ones_are_named(tmp_path: Path) -> None:
    table = pd.DataFrame(LAB.table(Key(1)))
    with pytest.raises(DataError, match="'time_s' is missing"):
        read(written(tmp_path / "a.csv", table.drop(columns="time_s")))
    with pytest.raises(DataError, match="unknown column 'operator'"):
        read(written(tmp_path / "b.csv", table.assign(operator="me")))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2.3 uS", "is no number"),
        ("", "missing or not finite"),
        ("nan", "missing or not finite"),
        ("inf", "missing or not finite"),
        ("-1e-6", "expected >= 0"),
        ("23.4", "multiply the column by 1e-6"),
    ],
)
def test_a_bad_reading_is_refused_with_its_file_and_row(
    tmp_path: Path, value: str, words: str
) -> None:
    table = pd.DataFrame(LAB.table(Key(1))).astype(str)
    table.loc[6, "conductance_siemens"] = value
    path = written(tmp_path / "cells.csv", table)
    with pytest.raises(DataError, match=r"cells\.csv: conductance_siemens.*row 7") as caught:
        read(path)
    assert words in str(caught.value)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty.csv", tmp_path / "binary.csv"
    empty.write_text("")
    binary.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(DataError, match="no table"):
        read(empty)
    with pytest.raises(DataError, match=r"binary\.csv"):
        read(binary)
    with pytest.raises(DataError, match="cannot be read"):
        main(tmp_path / "none.csv", None, "x")
    (tmp_path / "head.csv").write_text("time_s,target_siemens,conductance_siemens,cell\n")
    with pytest.raises(DataError, match="no readings"):
        read(tmp_path / "head.csv")


def test_a_reading_without_a_cell_is_refused(tmp_path: Path) -> None:
    table = pd.DataFrame(LAB.table(Key(1)))
    table.loc[3, "cell"] = " "
    with pytest.raises(DataError, match="row 4 has no cell"):
        read(written(tmp_path / "cells.csv", table))
