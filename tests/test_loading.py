"""Loading: from class folders to three splits whose rows can be trusted, or an error that says what to do."""

import logging
import shutil
from collections import Counter
from pathlib import Path

import PIL.Image
import pytest
from datasets import ClassLabel, Features, Image, Value

from tests.tiny_sets import picture, write_set
from wbc_hf.data import Leucocytes, load_leucocytes
from wbc_hf.errors import WbcError
from wbc_hf.labels import CLASS_NAMES

FIVE = {"BASOPHIL": 20, "eos": 20, "Lymphocytes": 20, "monocyte": 40, "segmented neutrophils": 100}
KNOWN = (
    "Known, with other spellings: basophil (ba, bas, baso), eosinophil (eo, eos, eosino), "
    "lymphocyte (ly, lym, lymph), monocyte (mo, mon, mono), neutrophil (ne, neu, neut). "
    "Rename or remove what is unknown; train, evaluate and audit leave it out with --other-classes leave_out."
)


def refused(spec: str | Path | list, **options) -> str:
    with pytest.raises(WbcError) as caught:
        load_leucocytes(spec, **options)
    return str(caught.value)


def counts(cells: Leucocytes) -> dict[str, dict[str, int]]:
    return {
        name: {CLASS_NAMES[label]: count for label, count in sorted(Counter(split["label"]).items())}
        for name, split in cells.items()
    }


def groups(cells: Leucocytes) -> dict[str, str]:
    return {
        source: group
        for split in cells.values()
        for source, group in zip(split["source"], split["group"], strict=True)
    }


def by_laboratory(cells: Leucocytes) -> dict[str, Counter[tuple[str, str]]]:
    return {
        name: Counter(zip(split["laboratory"], (CLASS_NAMES[label] for label in split["label"]), strict=True))
        for name, split in cells.items()
    }


def split_of(cells: Leucocytes) -> dict[str, str]:
    return {source: name for name, split in cells.items() for source in split["source"]}


# Rows and splits


def test_rows(tmp_path: Path):
    cells = load_leucocytes(write_set(tmp_path, FIVE))
    expected = Features(
        {
            "image": Image(),
            "label": ClassLabel(names=["basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil"]),
            "group": Value("string"),
            "laboratory": Value("string"),
            "source": Value("string"),
        }
    )
    assert list(cells) == ["train", "validation", "test"]
    for split in cells.values():
        assert split.features == expected
        assert split.column_names == ["image", "label", "group", "laboratory", "source"]
        for row in split:
            assert row["image"].tobytes() == PIL.Image.open(tmp_path / row["source"]).tobytes()


def test_splits_are_cut_by_class(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        cells = load_leucocytes(write_set(tmp_path, FIVE))
    assert counts(cells) == {
        "train": {"basophil": 14, "eosinophil": 14, "lymphocyte": 14, "monocyte": 28, "neutrophil": 70},
        "validation": {"basophil": 3, "eosinophil": 3, "lymphocyte": 3, "monocyte": 6, "neutrophil": 15},
        "test": {"basophil": 3, "eosinophil": 3, "lymphocyte": 3, "monocyte": 6, "neutrophil": 15},
    }
    assert not cells.provenance.given_splits
    assert caplog.messages == []


def test_the_seed_decides_the_split_and_the_place_does_not(tmp_path: Path):
    write_set(tmp_path / "a", FIVE)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = load_leucocytes(tmp_path / "a")
    again = load_leucocytes(tmp_path / "b")
    other = load_leucocytes(tmp_path / "a", seed=1)
    assert split_of(first) == split_of(again)
    assert first.provenance.fingerprint == again.provenance.fingerprint
    assert split_of(first) != split_of(other)
    assert first.provenance.fingerprint != other.provenance.fingerprint


def test_the_fingerprint_tells_other_content(tmp_path: Path):
    first = load_leucocytes(write_set(tmp_path, FIVE)).provenance.fingerprint
    (tmp_path / "monocyte" / "000.png").write_bytes(picture(9999))
    assert load_leucocytes(tmp_path).provenance.fingerprint != first


def test_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_set(tmp_path / "cells", {"monocyte": 5})
    cells = load_leucocytes("~/cells")
    assert len(cells["train"]) == 3
    assert cells.provenance.spec == "~/cells"


def test_a_folder_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "data" / "cells", {"monocyte": 5})
    assert len(load_leucocytes("data/cells")["train"]) == 3


def test_given_splits_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_set(tmp_path, {"Train/eos": 5, "Train/mono": 4, "Val/eos": 1, "Val/mono": 1, "Test/eos": 2, "Test/mono": 3})
    with caplog.at_level(logging.WARNING):
        cells = load_leucocytes(tmp_path)
    assert counts(cells) == {
        "train": {"eosinophil": 5, "monocyte": 4},
        "validation": {"eosinophil": 1, "monocyte": 1},
        "test": {"eosinophil": 2, "monocyte": 3},
    }
    assert cells.provenance.given_splits
    assert caplog.messages == []


def test_a_missing_validation_split_is_cut_from_training_by_group(tmp_path: Path):
    write_set(tmp_path, {"TRAIN/eos": 100, "TRAIN/mono": 40, "TEST/eos": 7, "TEST/mono": 7})
    with (tmp_path / "metadata.csv").open("w") as file:
        file.write("file_name,group\n")
        for name, count in (("eos", 100), ("mono", 40)):
            file.writelines(f"TRAIN/{name}/{i:03d}.png,{name} {i // 4}\n" for i in range(count))
    cells = load_leucocytes(tmp_path)
    assert {source.split("/")[0] for source in cells["validation"]["source"]} == {"TRAIN"}
    assert counts(cells)["test"] == {"eosinophil": 7, "monocyte": 7}
    assert counts(cells)["validation"] == {"eosinophil": 16, "monocyte": 4}
    assert not set(cells["train"]["group"]) & set(cells["validation"]["group"])
    assert cells.provenance.given_splits


def test_a_missing_test_split_is_cut_from_training(tmp_path: Path):
    cells = load_leucocytes(write_set(tmp_path, {"train/eos": 20, "valid/eos": 5}))
    assert {name: len(split) for name, split in cells.items()} == {"train": 17, "validation": 5, "test": 3}
    assert not cells.provenance.given_splits


def test_nothing_to_train_on(tmp_path: Path):
    write_set(tmp_path, {"val/eos": 5, "test/eos": 5})
    assert refused(tmp_path) == f"{tmp_path}: has test, validation but nothing to train on."


def test_classes_inside_and_outside_of_splits(tmp_path: Path):
    write_set(tmp_path, {"train/eos": 5, "test/eos": 5, "mono": 5})
    assert refused(tmp_path) == (
        f"{tmp_path}: some class folders are below test, train and some do not. "
        "Move all of them into split folders, or none."
    )


def test_too_few_cells(tmp_path: Path):
    write_set(tmp_path, {"eos": 2, "mono": 1})
    assert refused(tmp_path) == (
        f"{tmp_path}: 3 images in 3 groups leave validation empty; "
        "at least three distinct cells of a class are needed."
    )


def test_classes_that_a_split_lacks(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_set(tmp_path, {"baso": 1, "eos": 2, "mono": 9})
    with caplog.at_level(logging.WARNING):
        load_leucocytes(tmp_path)
    assert caplog.messages == [
        f"{tmp_path}: validation has no basophil and no eosinophil, test has no basophil; "
        "nothing can be measured of them there."
    ]


def test_several_test_splits_have_names_of_their_own(tmp_path: Path):
    folders = {"Train/eos": 9, "Train/mono": 9, "Train/baso": 9, "Test-A/eos": 1, "Test-B/eos": 2, "Test-B/mono": 1}
    cells = load_leucocytes(write_set(tmp_path / "cells", folders))
    assert {name: set(split["laboratory"]) for name, split in cells.items()} == {
        "train": {"cells"},
        "validation": {"cells"},
        "test": {"cells Test-A", "cells Test-B"},
    }
    assert Counter(cells["test"]["laboratory"]) == {"cells Test-A": 1, "cells Test-B": 3}
    assert cells.provenance.given_splits
    shutil.rmtree(tmp_path / "cells" / "Test-A")
    assert set(load_leucocytes(tmp_path / "cells")["test"]["laboratory"]) == {"cells"}


def test_other_classes_are_left_out_or_kept_as_none_of_these(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_set(tmp_path, {"eos": 5, "mono": 5, "baso": 5, "blast": 3, "platelet": 40})
    (tmp_path / "blast" / "000.png").write_bytes(b"spoilt")
    cells = load_leucocytes(tmp_path, other_classes="leave_out")
    assert cells.others is None
    assert sum(map(len, cells.values())) == 15
    assert caplog.messages[0] == f"{tmp_path}: 43 images of other classes are left out: blast (3), platelet (40)."
    kept = load_leucocytes(tmp_path, other_classes="none_of_these")
    assert kept.provenance.fingerprint == cells.provenance.fingerprint
    assert kept.others is not None
    assert Counter(source.split("/")[0] for source in kept.others["source"]) == {"blast": 2, "platelet": 40}
    assert kept.others[0]["image"].size == (20, 20)


def test_no_class_is_left(tmp_path: Path):
    write_set(tmp_path, {"blast": 3})
    with pytest.raises(WbcError, match="the class 'blast' is not one of the five leucocytes"):
        load_leucocytes(tmp_path, other_classes="leave_out")


# Groups


def test_groups_come_from_metadata_and_from_identical_bytes(tmp_path: Path):
    write_set(tmp_path, {"eos": 12})
    shutil.copy(tmp_path / "eos" / "001.png", tmp_path / "eos" / "010.png")
    shutil.copy(tmp_path / "eos" / "002.png", tmp_path / "eos" / "011.png")
    (tmp_path / "metadata.csv").write_text("file_name,group\neos/000.png,a\neos/001.png,a\neos/005.png,b\n")
    cells = load_leucocytes(tmp_path)
    group = groups(cells)
    assert group["eos/000.png"] == group["eos/001.png"] == group["eos/010.png"] == "eos/000.png"
    assert group["eos/002.png"] == group["eos/011.png"] == "eos/002.png"
    assert len(set(group.values())) == 9
    split = split_of(cells)
    assert split["eos/000.png"] == split["eos/001.png"] == split["eos/010.png"]


def test_crops_of_one_photograph_are_one_group_whatever_lies_beside_them(tmp_path: Path):
    write_set(tmp_path, {"neutrophil": 6, "monocyte": 4})
    for index, name in enumerate(("00007_0", "00007_1", "00012_0")):
        (tmp_path / "neutrophil" / f"{index:03d}.png").rename(tmp_path / "neutrophil" / f"BloodImage_{name}.png")
    (tmp_path / "monocyte" / "000.png").rename(tmp_path / "monocyte" / "BloodImage_00007_2.png")
    cells = load_leucocytes(tmp_path)
    group = groups(cells)
    same = {f"{name}.png" for name in ("neutrophil/BloodImage_00007_0", "neutrophil/BloodImage_00007_1")}
    same.add("monocyte/BloodImage_00007_2.png")
    assert len({group[name] for name in same}) == 1
    assert len(set(group.values())) == 8
    # Not all of it is BCCD, so it is not credited as that.
    assert cells.provenance.title == str(tmp_path)


def test_a_known_set_is_told_by_its_file_names_though_a_text_lies_among_them(tmp_path: Path):
    write_set(tmp_path, {"neutrophil": 40})
    for index in range(40):
        (tmp_path / "neutrophil" / f"{index:03d}.png").rename(
            tmp_path / "neutrophil" / f"BloodImage_{index:05d}_0.png"
        )
    (tmp_path / "neutrophil" / "notes.txt").write_text("which microscope?")
    provenance = load_leucocytes(tmp_path).provenance
    assert provenance.title == "BCCD, one leucocyte cut out per file (Cheng 2017)"
    assert (provenance.licence, provenance.homepage) == ("MIT", "https://github.com/Shenggan/BCCD_Dataset")


def test_copies_on_both_sides_of_given_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_set(tmp_path, {"train/eos": 10, "validation/eos": 3, "test/eos": 4})
    for index in (2, 3):
        shutil.copy(tmp_path / "train" / "eos" / f"00{index}.png", tmp_path / "test" / "eos" / f"copy{index}.png")
    with caplog.at_level(logging.WARNING):
        cells = load_leucocytes(tmp_path)
    assert cells.provenance.groups_across == 2
    assert {name: len(split) for name, split in cells.items()} == {"train": 10, "validation": 3, "test": 6}
    assert groups(cells)["test/eos/copy2.png"] == groups(cells)["train/eos/002.png"]
    assert caplog.messages == [
        f"{tmp_path}: 2 groups (near-duplicates of one cell or photograph) are in more than one of its splits, for "
        f"example that of {min(groups(cells)[f'train/eos/00{index}.png'] for index in (2, 3))}; "
        "figures on its test split are optimistic because of this leakage."
    ]


def test_one_image_under_two_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_set(tmp_path, {"eos": 10, "mono": 10})
    for index in (1, 2):
        shutil.copy(tmp_path / "eos" / f"00{index}.png", tmp_path / "mono" / f"copy{index}.png")
    shutil.copy(tmp_path / "eos" / "003.png", tmp_path / "eos" / "harmless.png")
    with caplog.at_level(logging.WARNING):
        cells = load_leucocytes(tmp_path)
    assert cells.provenance.contradictions == 2
    assert split_of(cells)["eos/001.png"] == split_of(cells)["mono/copy1.png"]
    assert caplog.messages == [
        f"{tmp_path}: 2 images are in more than one class, byte for byte the same, for example eos/001.png "
        "(eosinophil) and mono/copy1.png (monocyte); only one of the classes can be right. Correct or remove them."
    ]


# Names


def test_an_unknown_class(tmp_path: Path):
    write_set(tmp_path, {"EOS": 3, "platelet": 2, "mono": 1})
    assert refused(tmp_path) == (
        f"{tmp_path}: the class 'platelet' is not one of the five leucocytes. "
        f"Found: 'EOS' (3), 'mono' (1), 'platelet' (2). {KNOWN}"
    )


def test_several_unknown_classes(tmp_path: Path):
    write_set(tmp_path, {"train/platelet": 2, "train/erythroblast": 2, "test/platelet": 3})
    assert refused(tmp_path) == (
        f"{tmp_path}: 'erythroblast', 'platelet' are not one of the five leucocytes. "
        f"Found: 'erythroblast' (2), 'platelet' (5). {KNOWN}"
    )


# Unreadable images


def test_unreadable_files_are_skipped_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_set(tmp_path, FIVE)
    (tmp_path / "eos" / "004.png").write_bytes(picture(0)[:200])
    (tmp_path / "eos" / "notes.txt").write_text("seen on Monday")
    (tmp_path / "monocyte" / "017.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        cells = load_leucocytes(tmp_path)
    assert sum(len(split) for split in cells.values()) == 198
    assert not {"eos/004.png", "eos/notes.txt", "monocyte/017.png"} & split_of(cells).keys()
    reasons = {error.name: error.reason for error in cells.provenance.skipped}
    assert list(reasons) == ["eos/004.png", "eos/notes.txt", "monocyte/017.png"]
    assert reasons["eos/004.png"].startswith("is broken or cut short (")
    assert reasons["eos/notes.txt"].startswith("is not a picture in a known format (")
    assert reasons["monocyte/017.png"] == "is empty (0 bytes)"
    assert caplog.messages == [f"Skipped {name}: {reason}" for name, reason in reasons.items()]


def test_a_file_that_is_gone(tmp_path: Path):
    write_set(tmp_path, FIVE)
    (tmp_path / "eos" / "link.png").symlink_to(tmp_path / "nowhere.png")
    assert sum(len(split) for split in load_leucocytes(tmp_path).values()) == 200


def test_many_unreadable_files_are_not_all_named_in_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_set(tmp_path, {"eos": 500})
    for index in range(25):
        (tmp_path / "eos" / f"{index:03d}.png").write_bytes(b"junk")
    with caplog.at_level(logging.WARNING):
        cells = load_leucocytes(tmp_path)
    assert len(cells.provenance.skipped) == 25
    assert len(caplog.messages) == 21
    assert caplog.messages[-1] == "Skipped 5 more; the report names them all."


def test_more_than_5_percent_unreadable(tmp_path: Path):
    write_set(tmp_path, {"eos": 95})
    for index in range(5):
        (tmp_path / "eos" / f"junk{index}.png").write_bytes(b"")
    assert len(load_leucocytes(tmp_path).provenance.skipped) == 5
    (tmp_path / "eos" / "junk5.png").write_bytes(b"")
    assert refused(tmp_path) == (
        f"{tmp_path}: 6 of 101 files are not readable images, more than 5%: eos/junk0.png: is empty (0 bytes); "
        "eos/junk1.png: is empty (0 bytes); eos/junk2.png: is empty (0 bytes). Check the download, or remove them."
    )


def test_a_class_of_which_nothing_is_readable(tmp_path: Path):
    write_set(tmp_path, {"eos": 100})
    (tmp_path / "baso").mkdir()
    (tmp_path / "baso" / "1.png").write_bytes(b"")
    assert refused(tmp_path) == (
        f"{tmp_path}: not one file of the class basophil is a readable image. Replace them, or remove the class."
    )


# What is no data set: the texts are in test_folders.py


@pytest.mark.parametrize("spec", ["cells", "./cells", "cells/", "a/b/cells"])
def test_no_such_folder(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "there is no such folder. A data set is" in refused(spec)


def test_a_set_without_labels(tmp_path: Path):
    assert "a set without labels" in refused(write_set(tmp_path, {"train": 3}))


# Several sets


def test_several_sets_are_several_laboratories(tmp_path: Path):
    north = write_set(tmp_path / "north", {"eos": 20, "mono": 40})
    south = write_set(tmp_path / "south", {"EOSINOPHIL": 60, "mono": 20}, first_seed=1000)
    cells = load_leucocytes([north, south])
    shares = {("north", "eosinophil"): 20, ("north", "monocyte"): 40}
    shares |= {("south", "eosinophil"): 60, ("south", "monocyte"): 20}
    assert by_laboratory(cells) == {
        "train": {stratum: 0.7 * count for stratum, count in shares.items()},
        "validation": {stratum: 0.15 * count for stratum, count in shares.items()},
        "test": {stratum: 0.15 * count for stratum, count in shares.items()},
    }
    for row in cells["test"]:
        assert row["source"].startswith(f"{row['laboratory']}/")
        assert row["image"].tobytes() == PIL.Image.open(tmp_path / row["source"]).tobytes()
    provenance = cells.provenance
    assert provenance.laboratories == ["north", "south"]
    assert provenance.spec == f"{north} {south}"
    assert provenance.licence == "not known (north), not known (south)"


def test_laboratories_of_one_name_are_numbered(tmp_path: Path):
    sets = [write_set(tmp_path / name / "cells", {"eos": 4}, seed) for name, seed in (("a", 0), ("b", 100))]
    sets.append(write_set(tmp_path / "others", {"eos": 4}, first_seed=200))
    cells = load_leucocytes(sets)
    assert cells.provenance.laboratories == ["cells 1", "cells 2", "others"]
    assert {source.split("/")[0] for source in split_of(cells)} == {"cells 1", "cells 2", "others"}


def test_a_set_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "cells", {"eos": 5})
    assert refused(["cells/", tmp_path / "cells"]) == (
        f"{tmp_path / 'cells'}: is the same set as cells/. Each set is one laboratory; give it once."
    )
    assert refused(["synthetic:5", "synthetic:5"]).startswith("synthetic:5: is the same set as synthetic:5.")
    assert "no data set is given" in refused([])
    assert "streaming is for a single Hub data set" in refused(["me/cells", "you/cells"], streaming=True)


def test_given_splits_of_one_set_and_none_of_the_other(tmp_path: Path):
    given = write_set(tmp_path / "given", {"train/eos": 12, "val/eos": 4, "test/eos": 5})
    whole = write_set(tmp_path / "whole", {"eos": 20}, first_seed=1000)
    cells = load_leucocytes([given, whole])
    assert {name: Counter(split["laboratory"]) for name, split in cells.items()} == {
        "train": {"given": 12, "whole": 14},
        "validation": {"given": 4, "whole": 3},
        "test": {"given": 5, "whole": 3},
    }
    assert all(name == source.split("/")[1] for source, name in split_of(cells).items() if source[:10] == "given/test")
    assert [origin.given_splits for origin in cells.provenance.origins] == [True, False]
    assert not cells.provenance.given_splits


def test_what_two_sets_share_stays_together_and_equal_names_mean_nothing(tmp_path: Path):
    north = write_set(tmp_path / "north", {"eos": 30})
    south = write_set(tmp_path / "south", {"eos": 30}, first_seed=1000)
    for index in range(10):
        shutil.copy(north / "eos" / f"00{index}.png", south / "eos" / f"copy{index}.png")
    for folder in (north, south):
        (folder / "metadata.csv").write_text("file_name,group\neos/020.png,a\neos/021.png,a\n")
    cells = load_leucocytes([north, south])
    group, split = groups(cells), split_of(cells)
    for index in range(10):
        one, other = f"north/eos/00{index}.png", f"south/eos/copy{index}.png"
        assert group[one] == group[other]
        assert split[one] == split[other]
    assert cells.provenance.groups_across == 0
    assert group["north/eos/020.png"] == group["north/eos/021.png"] != group["south/eos/020.png"]


def test_a_slide_stays_on_one_side(tmp_path: Path):
    write_set(tmp_path, {"neutrophil": 40})
    for index in range(40):
        name = f"95-8-10-{index // 4}_{index}_0.jpg"
        (tmp_path / "neutrophil" / f"{index:03d}.png").rename(tmp_path / "neutrophil" / name)
    cells = load_leucocytes(tmp_path)
    assert cells.provenance.laboratories == ["Raabin"]
    assert len(set(groups(cells).values())) == 40
    sides = {source.split("_")[0]: set() for source in split_of(cells)}
    for source, name in split_of(cells).items():
        sides[source.split("_")[0]].add(name)
    assert len(sides) == 10
    assert all(len(names) == 1 for names in sides.values())
