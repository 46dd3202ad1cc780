"""Every file in targets/soc is a chip, and says of it what ExecuTorch's own table says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mobilepack.errors import UsageError
from mobilepack.soc import load_soc, soc_models, socs_folder
from mobilepack.target import load_target, target_names

FILES = sorted((Path(__file__).parent.parent / "targets" / "soc").glob("*.toml"))


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    """Return ExecuTorch's table by the chip's name."""
    from executorch.backends.qualcomm.serialization import qc_schema

    return {chip.name: info.htp_info for chip, info in qc_schema._soc_info_table.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_agrees_with_executorch(path: Path, theirs: dict[str, Any]) -> None:
    soc = load_soc(path.stem)
    info = theirs[path.stem]
    assert soc.model == path.stem
    assert f"V{soc.hexagon}" == info.htp_arch.name
    assert soc.vtcm_mb == info.vtcm_size_in_mb


def test_there_is_a_file_for_every_chip_that_executorch_knows(theirs: dict[str, Any]) -> None:
    assert set(soc_models()) == set(theirs)
    assert len(theirs) == 21


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_a_chip_may_use_follows_from_its_hexagon(path: Path) -> None:
    """LPBQ from V69, weight sharing and 16x16 products from V73 (QNN's HTP documentation)."""
    soc = load_soc(path.stem)
    assert soc.block_quantisation == (soc.hexagon >= 69)
    assert soc.weight_sharing == (soc.hexagon >= 73)
    assert soc.matmul_16x16 == (soc.hexagon >= 73)
    assert soc.hexagon != 68 or not soc.fp16
    assert (soc.memory_gb_per_s is None) == (soc.memory_source == "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_bandwidth_is_transfers_times_width(path: Path) -> None:
    soc = load_soc(path.stem)
    rate = re.match(r"LPDDR5X?-(\d+), (\d+) bit", soc.memory_source)
    if rate is not None:
        expected = int(rate[1]) * int(rate[2]) / 8 / 1000
        assert soc.memory_gb_per_s == pytest.approx(expected, abs=0.3)


def test_names_are_found_in_either_case_and_with_a_suffix() -> None:
    assert load_soc("sm8650").model == "SM8650"
    assert load_soc("SM8650-AB").model == "SM8650"


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("SM8560", "'SM8650' (Snapdragon 8 Gen 3)"),
        ("SM875", "'SM8750' (Snapdragon 8 Elite)"),
        ("snapdragon 8 gen 3", "'SM8650'"),
        ("Snapdragon 8 Elite", "'SM8750'"),
        ("iPhone", "choose from"),
        ("", "choose from"),
    ],
)
def test_a_wrong_name_is_answered_with_near_misses(asked: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_soc(asked)
    assert near in caught.value.why


def test_the_default_of_every_target_is_a_chip() -> None:
    chips = [load_target(name).soc_model for name in target_names()]
    assert load_target("qnn").soc_model in soc_models()
    assert all(chip is None or chip in soc_models() for chip in chips)


def test_the_files_lie_where_the_package_looks() -> None:
    assert socs_folder() == FILES[0].parent
