"""Make the image sets that the project is measured on from what their publishers give.

    python scripts/prepare_data.py                                             # where each set is published
    python scripts/prepare_data.py pbc PBC_dataset_normal_DIB.zip --output ../shared/data
    python scripts/prepare_data.py bccd BCCD_Dataset-master.zip --output ../shared/data
    python scripts/prepare_data.py raabin Raabin-WBC/ --output ../shared/data  # an unpacked archive: a folder

A source is a ZIP or tar archive, or a folder. Which pictures the published figures rest on stands in `scripts/sets/`.
The same source gives the same bytes each time, with one version of Pillow. What was downloaded and what was made is
printed with its SHA-256; `--sha256` refuses another download.
"""

import argparse
import csv
import io
import shutil
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from wbc_hf.cli.shared import exit_on_error
from wbc_hf.data import read_image
from wbc_hf.errors import WbcError
from wbc_hf.files import sha256_of_file, sha256_of_folder
from wbc_hf.labels import CLASS_NAMES

LISTS = Path(__file__).resolve().parent / "sets"


class Source(ABC):
    """The files of what was downloaded.

    Attributes:
        name: What errors call it.
        files: Their paths, sorted, with forward slashes.
    """

    name: str
    files: list[str]

    @abstractmethod
    def read(self, file: str) -> bytes: ...

    def index(self) -> dict[str, list[str]]:
        """Paths by the last part of their name."""
        paths = defaultdict(list)
        for file in self.files:
            paths[PurePosixPath(file).name].append(file)
        return paths


class FolderSource(Source):
    def __init__(self, folder: Path):
        self.name, self._folder = str(folder), folder
        self.files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    def read(self, file: str) -> bytes:
        return (self._folder / file).read_bytes()


class ZipSource(Source):
    def __init__(self, path: Path):
        self.name, self._archive = str(path), zipfile.ZipFile(path)
        self.files = sorted(member.filename for member in self._archive.infolist() if not member.is_dir())

    def read(self, file: str) -> bytes:
        return self._archive.read(file)


class TarSource(Source):
    def __init__(self, path: Path):
        self.name = str(path)
        self._archive = tarfile.open(path)  # noqa: SIM115  (read until the program ends)
        self.files = sorted(member.name for member in self._archive.getmembers() if member.isfile())

    def read(self, file: str) -> bytes:
        extracted = self._archive.extractfile(file)
        assert extracted is not None  # links are no files of the list
        return extracted.read()


def open_source(path: Path) -> Source:
    """Open a folder or an archive.

    Raises:
        WbcError: It is missing, or an archive of another kind.
    """
    if path.is_dir():
        return FolderSource(path)
    if not path.is_file():
        raise WbcError(f"{path}: does not exist. Give what the set's publisher offers, or the folder it unpacks to.")
    if zipfile.is_zipfile(path):
        return ZipSource(path)
    if tarfile.is_tarfile(path):
        return TarSource(path)
    raise WbcError(f"{path}: is no ZIP and no tar archive. Unpack it, and give the folder.")


def find(source: Source, wanted: Sequence[str], *, below: str = "") -> dict[str, str]:
    """Find files by their names.

    Args:
        source: What was downloaded.
        wanted: Paths in the set that is made; the last part is the name that is looked for.
        below: A folder that has to be on the way to it, if any.

    Returns:
        The path in `source` of each that is wanted. Of several of a name it is the one in a folder called like that in
        `wanted`, else the first.

    Raises:
        WbcError: Some are not there.
    """
    paths, found = source.index(), {}
    for path in wanted:
        name, folder = PurePosixPath(path).name, PurePosixPath(path).parent.name
        choices = [file for file in paths[name] if not below or below in PurePosixPath(file).parts[:-1]]
        choices.sort(key=lambda file: PurePosixPath(file).parent.name.lower() != folder)
        if choices:
            found[path] = choices[0]
    missing = [path for path in wanted if path not in found]
    if missing:
        raise WbcError(
            f"{source.name}: {len(missing)} of {len(wanted)} files are not in it, for example "
            f"{PurePosixPath(missing[0]).name}. Is it the right download, and the whole of it?"
        )
    return found


def listed(name: str) -> list[str]:
    """The paths of a list in `scripts/sets/`."""
    return (LISTS / f"{name}.txt").read_text(encoding="utf-8").split()


def scaled(content: bytes, size: Callable[[int, int], tuple[int, int]], quality: int) -> bytes:
    """A picture in another size, as JPEG."""
    image = read_image(content)
    buffer = io.BytesIO()
    image.resize(size(*image.size), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def short_side_256(width: int, height: int) -> tuple[int, int]:
    shrink = 256 / min(width, height)
    return round(width * shrink), round(height * shrink)


def width_800(width: int, height: int) -> tuple[int, int]:
    return 800, round(height * 800 / width)


# ---- the sets, each in a new folder


def make_pbc(source: Source, folder: Path) -> None:
    """PBC, five classes, the short side scaled to 256 px."""
    for path, file in find(source, listed("pbc")).items():
        write(folder / path, scaled(source.read(file), short_side_256, 90))
    shutil.copyfile(LISTS / "pbc_overlap_pairs.csv", folder / "overlap_pairs.csv")


def make_pbc_other(source: Source, folder: Path) -> None:
    """PBC's erythroblasts, immature granulocytes and platelets, scaled alike."""
    for path, file in find(source, listed("pbc_other")).items():
        write(folder / path, scaled(source.read(file), short_side_256, 90))


def make_bccd(source: Source, folder: Path) -> None:
    """BCCD's photographs with their boxes, and single cells cut out of them."""
    with (LISTS / "bccd_crops.csv").open(newline="") as file:
        crops = list(csv.DictReader(file))
    photographs = [file for file in source.files if "JPEGImages" in PurePosixPath(file).parts[:-1]]
    found = find(source, [f"{row['photograph']}.jpg" for row in crops], below="JPEGImages")
    for file in photographs:
        write(folder / "fields/images" / PurePosixPath(file).name, source.read(file))
    for file in source.files:
        if "Annotations" in PurePosixPath(file).parts[:-1]:
            write(folder / "fields/annotations" / PurePosixPath(file).name, source.read(file))
        elif PurePosixPath(file).name == "labels.csv":  # the edition on Kaggle has it, the one on GitHub has not
            write(folder / "fields/labels.csv", source.read(file))
    for row in crops:
        image = read_image(source.read(found[f"{row['photograph']}.jpg"]))
        x, y, width, height = (int(row[key]) for key in ("x", "y", "width", "height"))
        buffer = io.BytesIO()
        image.crop((x, y, x + width, y + height)).save(buffer, "JPEG", quality=75)
        write(folder / "crops" / row["class"] / f"{row['photograph']}_1.jpg", buffer.getvalue())
    shutil.copyfile(LISTS / "bccd_overlap_pairs.csv", folder / "overlap_pairs.csv")


def make_raabin(source: Source, folder: Path) -> None:
    """Raabin-WBC, one cell in the middle, 288 px."""
    for path, file in find(source, listed("raabin")).items():
        write(folder / path, scaled(source.read(file), lambda *_: (288, 288), 92))


def make_raabin_fields(source: Source, folder: Path) -> None:
    """Raabin's pictures in TXL-PBC, as they are, with the boxes of that set."""
    write_boxed(source, folder, listed("raabin_fields"), lambda content: content)


def make_chula_fields(source: Source, folder: Path) -> None:
    """Chulalongkorn's fields, 800 px wide, with their boxes."""
    write_boxed(source, folder, listed("chula_fields"), lambda content: scaled(content, width_800, 80))


def write_boxed(source: Source, folder: Path, names: Sequence[str], change: Callable[[bytes], bytes]) -> None:
    """Write photographs and their boxes, which lie in a folder `labels` beside the folder `images`."""
    for name, file in find(source, names, below="images").items():
        path = PurePosixPath(file)
        parts = ["labels" if part == "images" else part for part in path.parts[:-1]]
        boxes = PurePosixPath(*parts, f"{path.stem}.txt").as_posix()
        if boxes not in source.files:
            raise WbcError(f"{source.name}: {file} has no boxes: there is no {boxes} in it.")
        write(folder / "images" / name, change(source.read(file)))
        write(folder / "boxes" / f"{path.stem}.txt", source.read(boxes))


def make_tecom(source: Source, folder: Path) -> None:
    """Jiangxi Tecom's cells, "Dataset 1", by the classes of its table."""
    numbered = ("neutrophil", "lymphocyte", "eosinophil", "monocyte", "basophil")
    (table,) = find(source, ["Class Labels of Dataset 1.csv"]).values()
    rows = list(csv.reader(io.StringIO(source.read(table).decode("utf-8-sig"))))[1:]
    wanted = {f"{int(number):03}.bmp": numbered[int(label) - 1] for number, label in rows}
    for name, file in find(source, list(wanted), below="Dataset 1").items():
        buffer = io.BytesIO()
        read_image(source.read(file)).save(buffer, "PNG")
        write(folder / wanted[name] / f"{PurePosixPath(name).stem}.png", buffer.getvalue())


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@dataclass(frozen=True)
class Recipe:
    """How a set is made.

    Attributes:
        make: Writes it into a folder.
        address: Where it is published.
        licence: Of its pictures.
    """

    make: Callable[[Source, Path], None]
    address: str
    licence: str


PBC = "https://doi.org/10.17632/snkd93bnjr.1 (PBC_dataset_normal_DIB.zip)"
RECIPES = {
    "pbc": Recipe(make_pbc, PBC, "CC BY 4.0"),
    "pbc_other": Recipe(make_pbc_other, PBC, "CC BY 4.0"),
    "bccd": Recipe(make_bccd, "https://github.com/Shenggan/BCCD_Dataset", "MIT"),
    "raabin": Recipe(make_raabin, "https://raabindata.com/free-data (cropped cells)", "free for research"),
    "raabin_fields": Recipe(make_raabin_fields, "https://github.com/lugan113/TXL-PBC_Dataset", "free for research"),
    "chula_fields": Recipe(make_chula_fields, "https://github.com/singgihbekti/WBC_Dataset", "MIT"),
    "tecom": Recipe(make_tecom, "https://github.com/zxaoyou/segmentation_WBC", "GPL-3.0"),
}


def prepare(name: str, path: Path, output: Path) -> Path:
    """Make a set in a new folder of `output`; a stop on the way leaves none.

    Raises:
        WbcError: The folder exists, or the source lacks a file.
    """
    target, unfinished = output / name, output / f".{name}.unfinished"
    if target.exists():
        raise WbcError(f"{target}: exists. Delete it first, or name another folder.")
    source = open_source(path)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    RECIPES[name].make(source, unfinished)
    return unfinished.rename(target)


def summary(folder: Path) -> str:
    counts = {name: sum(1 for _ in folder.glob(f"**/{name}/*")) for name in CLASS_NAMES}
    fields = sum(1 for _ in folder.glob("**/images/*"))
    named = [f"{name} {count}" for name, count in counts.items() if count]
    return ", ".join([*named, *([f"{fields} photographs"] if fields else [])])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", nargs="?", choices=RECIPES, help="Which set.")
    parser.add_argument("source", nargs="?", type=Path, help="Its archive, or the folder that it unpacks to.")
    parser.add_argument("--output", type=Path, default=Path("../shared/data"), help="Folder of all sets.")
    parser.add_argument("--sha256", help="What the archive has to be.")
    arguments = parser.parse_args(argv)
    if arguments.set is None:
        for name, recipe in RECIPES.items():
            print(f"{name:14} {recipe.licence:18} {recipe.address}")
        return
    if arguments.source is None:
        parser.error(f"give the archive or folder of {arguments.set}: {RECIPES[arguments.set].address}")
    with exit_on_error("prepare_data.py"):
        if arguments.source.is_file():
            found = sha256_of_file(arguments.source)
            print(f"downloaded  {found}  {arguments.source}")
            if arguments.sha256 not in (None, found):
                raise WbcError(f"{arguments.source}: its SHA-256 is not {arguments.sha256}. Download it again.")
        elif arguments.sha256:
            raise WbcError(f"{arguments.source}: --sha256 is of an archive, and this is none.")
        folder = prepare(arguments.set, arguments.source, arguments.output)
        print(f"made        {sha256_of_folder(folder)}  {folder}")
        print(summary(folder))


if __name__ == "__main__":
    main()
