"""Near-duplicates among real cells: known ones are found, and no two photographs are joined."""

import csv
import os
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from wbc_hf.data import describe, read_image
from wbc_hf.data.near_duplicates import link_images

DATA = Path(os.environ.get("WBC_HF_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no image sets in {DATA}; WBC_HF_DATA says where they are"),
]


def found_among(files: list[Path]) -> set[tuple[str, str]]:
    links = link_images(len(files), lambda index: describe(read_image(files[index])))
    return {tuple(sorted((files[first].name, files[second].name))) for first, second, *_ in links}


def test_known_near_duplicates_of_pbc():
    with (DATA / "pbc" / "overlap_pairs.csv").open(newline="") as file:
        known = {tuple(sorted((row["a"], row["b"]))) for row in csv.DictReader(file)}
    wanted = {name for pair in known for name in pair}
    files = [path for path in sorted((DATA / "pbc").rglob("*.jpg")) if path.name in wanted]
    assert len(files) == len(wanted)
    found = found_among(files)
    group = {name: name for name in wanted}
    for first, second in sorted(found):
        group = {name: group[first] if value == group[second] else value for name, value in group.items()}
    assert [pair for pair in sorted(known) if group[pair[0]] != group[pair[1]]] == []


@pytest.mark.parametrize("name", ["pbc", "bccd/crops"])
def test_changed_images_of_real_cells(name: str):
    folder = sorted((DATA / name / "neutrophil").iterdir())
    images = [read_image(path) for path in folder[:: len(folder) // 12][:12]]
    turned = [ImageOps.mirror(image).rotate(33, Image.Resampling.BICUBIC, fillcolor="white") for image in images]
    every = [*images, *turned]
    links = link_images(len(every), lambda index: describe(every[index]))
    right = {(index, index + 12) for index in range(12)}
    found = {link[:2] for link in links}
    # A false join is worse than a missed pair: some crops of BCCD hold hardly more key points than are asked for.
    assert found <= right
    assert len(found) >= 11
