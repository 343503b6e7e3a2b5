"""Tables of labels: imagefolder's metadata, and other tables whose columns are chosen by what stands in them."""

from collections import Counter
from pathlib import Path

import pytest

from tests.tiny_sets import write_set
from wbc_hf.data.layouts.choose_layout import folder_rows
from wbc_hf.errors import WbcError

TYPES = ("eos", "mono", "neutrophil")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def rows(root: Path) -> dict[str, tuple]:
    table = folder_rows(root)
    columns = [table[name] for name in ("source", "class_name", "split", "group")]
    return {source: tuple(rest) for source, *rest in zip(*columns, strict=True)}


def refused(root: Path) -> str:
    with pytest.raises(WbcError) as caught:
        folder_rows(root)
    return str(caught.value)


@pytest.mark.parametrize("relative", [False, True])
def test_metadata_with_labels(
    relative: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    write_set(tmp_path, {"images": 3})
    lines = ("file_name,label,patient", "images/000.png,eos,P1", "images/001.png,mono,P2")
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path.parent)
    root = Path(tmp_path.name) if relative else tmp_path
    assert rows(root) == {"images/000.png": ("eos", None, "P1"), "images/001.png": ("mono", None, "P2")}
    assert folder_rows(root)[0]["image"] == {"path": str(root / "images" / "000.png"), "bytes": None}
    assert caplog.messages[0] == (f"{root}: left out 1 files without a label in metadata.csv, images/002.png for one.")


def test_metadata_in_folders_of_splits(tmp_path: Path):
    write_set(tmp_path, {"train": 2, "test": 1})
    (tmp_path / "train" / "metadata.jsonl").write_text(
        '{"file_name": "000.png", "label": "eos"}\n{"file_name": "001.png", "label": "mono"}\n'
    )
    (tmp_path / "test" / "metadata.jsonl").write_text('{"file_name": "000.png", "label": "mono"}\n')
    assert rows(tmp_path) == {
        "train/000.png": ("eos", "train", None),
        "train/001.png": ("mono", "train", None),
        "test/000.png": ("mono", "test", None),
    }


def test_one_metadata_of_several_splits_and_file_names_that_sound_like_splits(tmp_path: Path):
    write_set(tmp_path, {"images": 2})
    (tmp_path / "images" / "000.png").rename(tmp_path / "images" / "test_000.png")
    (tmp_path / "metadata.csv").write_text(
        "file_name,label,split\nimages/test_000.png,eos,train\nimages/001.png,mono,val\n"
    )
    assert rows(tmp_path) == {
        "images/test_000.png": ("eos", "train", None),
        "images/001.png": ("mono", "validation", None),
    }


def test_metadata_wins_over_class_folders_and_without_labels_leaves_them_the_classes(tmp_path: Path):
    write_set(tmp_path, {"mono": 1})
    (tmp_path / "metadata.csv").write_text("file_name,label\nmono/000.png,eos\n")
    assert rows(tmp_path) == {"mono/000.png": ("eos", None, None)}
    (tmp_path / "metadata.csv").write_text("file_name,group\nmono/000.png,cell 7\n")
    assert rows(tmp_path) == {"mono/000.png": ("mono", None, "cell 7")}


def test_metadata_that_cannot_be_read(tmp_path: Path):
    write_set(tmp_path, {"images": 1})
    (tmp_path / "metadata.csv").write_text("picture,label\nimages/000.png,eos\n")
    assert refused(tmp_path) == (
        f"{tmp_path}/metadata.csv: has the columns picture, label. Needed are file_name, relative to its folder, and "
        "label or group. A table with columns of other names is read as labels.csv."
    )
    (tmp_path / "metadata.csv").rename(tmp_path / "labels.csv")
    assert rows(tmp_path) == {"images/000.png": ("eos", None, None)}
    (tmp_path / "metadata.jsonl").write_text('{"picture": "images/000.png", "label": "eos"}\n')
    assert refused(tmp_path).startswith(
        f"{tmp_path}/metadata.jsonl: cannot be read as metadata of pictures (`file_name`"
    )


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "images/../../outside.png", "C:\\a.png", "", "."])
def test_metadata_that_leads_out_of_its_folder(name: str, tmp_path: Path):
    write_set(tmp_path / "set", {"images": 1})
    (tmp_path / "set" / "metadata.csv").write_text(f"file_name,label\nimages/000.png,eos\n{name},eos\n")
    assert refused(tmp_path / "set") == (
        f"{tmp_path}/set/metadata.csv: names {name!r}, which is no file of its folder. Write file names relative to "
        f"{tmp_path}/set, without '..'."
    )


# ---- as spreadsheets save them

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("table", ["metadata.csv", "labels.csv"])
def test_tables_as_spreadsheets_save_them(
    table: str, separator: str, encoding: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    write_set(tmp_path, {"images": 3})
    (tmp_path / "images" / "000.png").rename(tmp_path / "images" / "Müller.png")
    lines = [("file_name", "label"), ("images/Müller.png", "Éosinophile")]
    lines += [("images/001.png", "stabkernige Neutrophile"), ("images/002.png", "Lymphozyten (groß)")]
    text = "\r\n".join(separator.join(line) for line in lines)
    (tmp_path / table).write_bytes(text.encode(encoding))
    assert rows(tmp_path) == {name: (label, None, None) for name, label in lines[1:]}
    said = f"{tmp_path}/{table}: is not in UTF-8, and is read as Windows-1252. Where names look wrong, save it as CSV"
    assert (said in caplog.text) == (encoding in ("cp1252", "latin-1"))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_groups_beside_class_folders_as_spreadsheets_save_them(encoding: str, tmp_path: Path):
    write_set(tmp_path, {"mono": 1})
    (tmp_path / "metadata.csv").write_bytes("file_name;group\r\nmono/000.png;Müller\r\n".encode(encoding))
    assert rows(tmp_path) == {"mono/000.png": ("mono", None, "Müller")}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("file,label\n000.png,eos\n".encode("utf-16-le"), "it holds zero bytes"),
        (b"\xff\xfef\0i\0l", "broken utf-16"),
        (b"file,label\n000.png,\x81\x8d\n", "neither in UTF-8 nor in Windows-1252"),
        (b"file,label\n000.png,eos,more\n", "Length of header"),
        (b"file,label\n000.png,eos\n000.png,eos,more\n", "Error tokenizing data. C error: Expected 2 fields"),
    ],
)
def test_a_table_that_cannot_be_read(content: bytes, reason: str, tmp_path: Path):
    write_set(tmp_path, {"images": 1})
    (tmp_path / "labels.csv").write_bytes(content)
    assert refused(tmp_path).startswith(f"{tmp_path}/labels.csv: cannot be read as a table ({reason}")
    assert refused(tmp_path).endswith("Save it as CSV in UTF-8.")


# ---- a column for each class


def test_a_column_for_each_class(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_set(tmp_path, {"images": 4})
    lines = ("image,patient,EOS,Monocyte,blast", "000,P1,1,0,0", "001,P2,0.0,1.0,0.0", "002,P3,0,0,1", "003,P4,0,0,0")
    (tmp_path / "train.csv").write_text("\n".join(lines))
    assert rows(tmp_path) == {
        "images/000.png": ("EOS", "train", "P1"),
        "images/001.png": ("Monocyte", "train", "P2"),
        "images/002.png": ("blast", "train", "P3"),
    }
    assert caplog.messages[:2] == [
        f"{tmp_path}/train.csv: takes the pictures from its column 'image' and the classes from its columns EOS, "
        "Monocyte, blast, which hold 1 for the class of a picture.",
        f"{tmp_path}: left out 1 files without a label in train.csv, images/003.png for one.",
    ]


def test_a_picture_of_two_classes(tmp_path: Path):
    write_set(tmp_path, {"images": 2})
    (tmp_path / "labels.csv").write_text("image,basophil,eosinophil,blurred\n000,0,1,0\n001,1,0,1\n")
    assert refused(tmp_path) == (
        f"{tmp_path}/labels.csv: 1 of its rows have a 1 in several columns, that of 001 in basophil and blurred. A "
        "picture has one class: correct the rows, or remove the columns that are no classes."
    )


@pytest.mark.parametrize("value", ["0.97", "3", "x"])
def test_columns_of_classes_that_hold_something_else(value: str, tmp_path: Path):
    write_set(tmp_path, {"images": 1})
    (tmp_path / "labels.csv").write_text(f"image,basophil,eosinophil\n000,0,{value}\n")
    assert refused(tmp_path) == (
        f"{tmp_path}/labels.csv: its column 'eosinophil' is named like a class and holds '{value}'. Write 1 for the "
        "class of a picture and 0 for the others, or one column 'label' with the names of the classes."
    )


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_set(tmp_path, {"images": 1})
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "images/000.png", "label": "eos"}\n')
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "metadata.jsonl" / "cache")
    assert refused(tmp_path) == (
        f"{tmp_path}: datasets cannot write to its cache, {tmp_path}/metadata.jsonl/cache (Not a directory). Make "
        "room there, or set HF_HOME to a folder that can be written to."
    )


@pytest.mark.parametrize("name", ["{}.png", "{}", "images/{}.png", "images\\{}.png"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_whose_columns_have_any_names(
    name: str, separator: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    write_set(tmp_path, {"images": 3})
    lines = [("nr", "scan", "diagnosis", "remark")]
    lines += [(str(index), name.format(f"{index:03d}"), TYPES[index], "blurred, a bit") for index in range(3)]
    quoted = [separator.join(f'"{value}"' for value in line) for line in lines]
    (tmp_path / "labels.csv").write_text("\n".join(quoted), encoding="utf-8-sig")
    assert rows(tmp_path) == {f"images/{index:03d}.png": (TYPES[index], None, None) for index in range(3)}
    assert caplog.messages[0] == (
        f"{tmp_path}/labels.csv: takes the pictures from its column 'scan' and the classes from 'diagnosis'."
    )


def test_tables_called_after_splits_with_patients(tmp_path: Path):
    write_set(tmp_path, {"images": 4})
    (tmp_path / "train.csv").write_text("Image,Category,Patient\n000.png,EOSINOPHIL,7\n001.png,MONOCYTE,8\n")
    (tmp_path / "test.csv").write_text("Image,Category,Patient\n002.png,EOSINOPHIL,9\n")
    assert rows(tmp_path) == {
        "images/000.png": ("EOSINOPHIL", "train", "7"),
        "images/001.png": ("MONOCYTE", "train", "8"),
        "images/002.png": ("EOSINOPHIL", "test", "9"),
    }


def test_rows_without_a_picture_are_kept_to_be_named_and_rows_without_a_class_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    write_set(tmp_path, {"images": 2})
    (tmp_path / "labels.csv").write_text("file,label\n000.png,eos\n001.png,\ngone.png,mono\n")
    assert rows(tmp_path) == {"images/000.png": ("eos", None, None), "gone.png": ("mono", None, None)}
    assert "left out 1 files without a label in labels.csv, images/001.png for one" in caplog.text


def test_a_picture_with_two_rows(tmp_path: Path):
    write_set(tmp_path, {"images": 1})
    (tmp_path / "labels.csv").write_text("file,label\n000.png,eos\n000.png,mono\n")
    assert refused(tmp_path) == f"{tmp_path}: labels.csv names 000.png 2 times. One row a picture is needed."


def test_a_table_beside_class_folders_changes_nothing(tmp_path: Path):
    write_set(tmp_path, {"mono": 1})
    (tmp_path / "labels.csv").write_text("file,label\n000.png,eos\n")
    assert Counter(name for name, *_ in rows(tmp_path).values()) == {"mono": 1}


@pytest.mark.parametrize("text", ["file,width\n000.png,20\n", "", "remarks\nnone\n"])
def test_a_table_without_classes_changes_nothing(text: str, tmp_path: Path):
    write_set(tmp_path, {"images": 1})
    (tmp_path / "sizes.csv").write_text(text)
    assert rows(tmp_path) == {"images/000.png": ("images", None, None)}  # a class folder, of a class that is none
