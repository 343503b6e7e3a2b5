"""Sets from what their publishers give: stand-in archives, laid out as the real ones are."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.scripts import script
from wbc_hf.data import load_leucocytes
from wbc_hf.files import sha256_of_file, sha256_of_folder
from wbc_hf.labels import CLASS_NAMES

prepare_data = script("scripts/prepare_data.py")

# What the lists of `scripts/sets/` are in these tests.
SHORT_LISTS = {
    "pbc.txt": "basophil/BA_1.jpg neutrophil/BNE_2.jpg",
    "pbc_other.txt": "erythroblast/ERB_3.jpg",
    "pbc_overlap_pairs.csv": "a,b,kind,dx,dy\n",
    "bccd_crops.csv": "class,photograph,x,y,width,height\neosinophil,BloodImage_00001,10,20,50,50\n",
    "bccd_overlap_pairs.csv": "a,b,wbc_iou,line\n",
    "raabin.txt": "basophil/20190526_163027_0.jpg monocyte/95-5-10-1_1043_1.jpg",
    "raabin_fields.txt": "018239dc.jpg",
    "chula_fields.txt": "B-30_0047.jpg",
}


def picture(width: int, height: int, kind: str = "JPEG", seed: int = 0) -> bytes:
    """Colours that change slowly, as a photograph's do."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, kind, quality=95)
    return buffer.getvalue()


PBC = {
    "PBC_dataset_normal_DIB/basophil/BA_1.jpg": picture(360, 363),
    "PBC_dataset_normal_DIB/basophil/BA_9.jpg": picture(360, 363, seed=1),  # in no list
    "PBC_dataset_normal_DIB/neutrophil/BNE_2.jpg": picture(366, 369, seed=2),
    "PBC_dataset_normal_DIB/erythroblast/ERB_3.jpg": picture(360, 363, seed=3),
}
BCCD = {
    "BCCD_Dataset-master/BCCD/JPEGImages/BloodImage_00001.jpg": picture(640, 480),
    "BCCD_Dataset-master/BCCD/Annotations/BloodImage_00001.xml": b"<annotation></annotation>",
    "BCCD_Dataset-master/test.csv": b"not of the set",
}
RAABIN = {
    # The two parts name their pictures alike; the folder of the class tells them apart.
    "TestA/Monocyte/20190526_163027_0.jpg": picture(575, 575, seed=4),
    "Train/Basophil/20190526_163027_0.jpg": picture(575, 575, seed=5),
    "Train/Monocyte/95-5-10-1_1043_1.jpg": picture(575, 575, seed=6),
}
TXL = {
    "TXL-PBC_Dataset-main/TXL_PBC/images/val/018239dc.jpg": picture(575, 575),
    "TXL-PBC_Dataset-main/TXL_PBC/labels/val/018239dc.txt": b"0 0.5 0.5 0.4 0.4\n",
    "TXL-PBC_Dataset-main/TXL_PBC/images/val/other.jpg": picture(320, 240),
}
CHULA = {
    "WBC_Dataset-main/WBC_Samples/train/images/B-30_0047.jpg": picture(1200, 750),
    "WBC_Dataset-main/WBC_Samples/train/labels/B-30_0047.txt": b"2 0.5 0.5 0.2 0.3\n",
    "WBC_Dataset-main/WBC_Samples/labels/B-30_0047.txt": b"not these boxes",
}
TECOM = {
    "segmentation_WBC-master/Class Labels of Dataset 1.csv": b"image ID,class label\n1,2\n2,1\n291,5\n",
    **{
        f"segmentation_WBC-master/Dataset {number}/{name}.bmp": picture(120, 120, "BMP", seed=number)
        for number in (1, 2)
        for name in ("001", "002", "291")
    },
}
ARCHIVES = {
    "pbc": PBC,
    "pbc_other": PBC,
    "bccd": BCCD,
    "raabin": RAABIN,
    "raabin_fields": TXL,
    "chula_fields": CHULA,
    "tecom": TECOM,
}
MADE = {
    "pbc": {"basophil/BA_1.jpg", "neutrophil/BNE_2.jpg", "overlap_pairs.csv"},
    "pbc_other": {"erythroblast/ERB_3.jpg"},
    "bccd": {
        "crops/eosinophil/BloodImage_00001_1.jpg",
        "fields/annotations/BloodImage_00001.xml",
        "fields/images/BloodImage_00001.jpg",
        "overlap_pairs.csv",
    },
    "raabin": {"basophil/20190526_163027_0.jpg", "monocyte/95-5-10-1_1043_1.jpg"},
    "raabin_fields": {"boxes/018239dc.txt", "images/018239dc.jpg"},
    "chula_fields": {"boxes/B-30_0047.txt", "images/B-30_0047.jpg"},
    "tecom": {"lymphocyte/001.png", "neutrophil/002.png", "basophil/291.png"},
}


@pytest.fixture(autouse=True)
def short_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lists").mkdir()
    for name, content in SHORT_LISTS.items():
        (tmp_path / "lists" / name).write_text(content.replace(" ", "\n"))
    monkeypatch.setattr(prepare_data, "LISTS", tmp_path / "lists")


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def run(name: str, source: Path, output: Path, *more: str) -> int:
    try:
        prepare_data.main([name, str(source), "--output", str(output), *more])
    except SystemExit as exit_:
        return exit_.code
    return 0


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", list(ARCHIVES))
def test_a_set_is_made_from_its_archive_the_same_each_time(name: str, tmp_path: Path):
    archive = pack(tmp_path / "download.zip", ARCHIVES[name])
    assert run(name, archive, tmp_path / "once") == run(name, archive, tmp_path / "twice") == 0
    made = contents(tmp_path / "once" / name)
    assert made.keys() == MADE[name]
    assert made == contents(tmp_path / "twice" / name)
    assert [path.name for path in (tmp_path / "once").iterdir()] == [name]


def test_a_tar_archive_and_a_folder_give_what_a_zip_gives(tmp_path: Path):
    folder = tmp_path / "unpacked"
    for name, content in CHULA.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with tarfile.open(tmp_path / "download.tar.gz", "w:gz") as archive:
        archive.add(folder, "WBC_Dataset-main")
    sources = (pack(tmp_path / "download.zip", CHULA), folder, tmp_path / "download.tar.gz")
    for number, source in enumerate(sources):
        assert run("chula_fields", source, tmp_path / str(number)) == 0
    assert contents(tmp_path / "0") == contents(tmp_path / "1") == contents(tmp_path / "2")


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_pictures_have_the_size_that_the_figures_were_measured_at(tmp_path: Path):
    for name, files in ARCHIVES.items():
        run(name, pack(tmp_path / f"{name}.zip", files), tmp_path)
    assert size(tmp_path / "pbc/basophil/BA_1.jpg") == (256, 258)
    assert size(tmp_path / "pbc_other/erythroblast/ERB_3.jpg") == (256, 258)
    assert size(tmp_path / "raabin/basophil/20190526_163027_0.jpg") == (288, 288)
    assert size(tmp_path / "chula_fields/images/B-30_0047.jpg") == (800, 500)
    assert size(tmp_path / "bccd/crops/eosinophil/BloodImage_00001_1.jpg") == (50, 50)
    # Photographs that are not scaled are the publisher's bytes.
    assert (tmp_path / "raabin_fields/images/018239dc.jpg").read_bytes() in TXL.values()
    assert (tmp_path / "chula_fields/boxes/B-30_0047.txt").read_text() == "2 0.5 0.5 0.2 0.3\n"


def test_of_pictures_named_alike_that_of_the_class_is_taken(tmp_path: Path):
    run("raabin", pack(tmp_path / "download.zip", RAABIN), tmp_path)
    made = np.asarray(Image.open(tmp_path / "raabin/basophil/20190526_163027_0.jpg").resize((6, 6)), dtype=int)
    there = Image.open(io.BytesIO(RAABIN["Train/Basophil/20190526_163027_0.jpg"])).resize((6, 6))
    assert np.abs(made - np.asarray(there, dtype=int)).mean() < 3


def test_the_crop_is_where_the_table_says(tmp_path: Path):
    run("bccd", pack(tmp_path / "download.zip", BCCD), tmp_path)
    crop = np.asarray(Image.open(tmp_path / "bccd/crops/eosinophil/BloodImage_00001_1.jpg"), dtype=int)
    field = np.asarray(Image.open(tmp_path / "bccd/fields/images/BloodImage_00001.jpg"), dtype=int)
    assert np.abs(crop - field[20:70, 10:60]).mean() < 3


def test_the_set_says_what_was_downloaded_and_made(tmp_path: Path, capsys: pytest.CaptureFixture):
    archive = pack(tmp_path / "download.zip", TECOM)
    run("tecom", archive, tmp_path)
    downloaded, made, counts = capsys.readouterr().out.splitlines()
    assert downloaded == f"downloaded  {sha256_of_file(archive)}  {archive}"
    assert made == f"made        {sha256_of_folder(tmp_path / 'tecom')}  {tmp_path / 'tecom'}"
    assert counts == "basophil 1, lymphocyte 1, neutrophil 1"
    before = sha256_of_folder(tmp_path / "tecom")
    (tmp_path / "tecom/lymphocyte/001.png").rename(tmp_path / "tecom/lymphocyte/003.png")
    assert sha256_of_folder(tmp_path / "tecom") != before


def test_mistakes_are_said_and_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture):
    whole = pack(tmp_path / "download.zip", PBC)
    part = pack(tmp_path / "part.zip", {name: content for name, content in PBC.items() if "BNE" not in name})
    (tmp_path / "download.rar").write_bytes(b"Rar!")
    unboxed = pack(tmp_path / "unboxed.zip", {name: content for name, content in TXL.items() if "labels" not in name})
    output = tmp_path / "output"
    for name, source, more, said in (
        ("pbc", part, (), "1 of 2 files are not in it, for example BNE_2.jpg"),
        ("raabin", tmp_path / "download.rar", (), "no ZIP and no tar archive. Unpack it"),
        ("pbc", tmp_path / "nowhere.zip", (), "does not exist"),
        ("raabin_fields", unboxed, (), "has no boxes"),
        ("pbc", whole, ("--sha256", "0" * 64), "is not 000"),
        ("pbc", tmp_path, ("--sha256", "0" * 64), "--sha256 is of an archive"),
    ):
        assert run(name, source, output, *more) == 2
        assert said in capsys.readouterr().err
    assert not output.exists() or not [path for path in output.iterdir() if not path.name.startswith(".")]
    assert run("pbc", whole, output, "--sha256", sha256_of_file(whole)) == 0
    assert run("pbc", whole, output) == 2
    assert "exists. Delete it first" in capsys.readouterr().err


def test_without_a_set_it_says_where_they_are_published(capsys: pytest.CaptureFixture):
    prepare_data.main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(ARCHIVES)
    assert all("https://" in line for line in lines)


def test_a_set_that_was_made_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = [f"{name}/{name[:2].upper()}_{index}.jpg" for name in CLASS_NAMES for index in range(8)]
    (tmp_path / "lists/pbc.txt").write_text("\n".join(names))
    files = {f"PBC/{name}": picture(64, 64, seed=seed) for seed, name in enumerate(names)}
    run("pbc", pack(tmp_path / "download.zip", files), tmp_path)
    cells = load_leucocytes(tmp_path / "pbc")
    assert sum(len(split) for split in cells.values()) == len(names)
