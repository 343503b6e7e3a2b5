"""Public data sets of stained leucocytes that the project knows: name, source, licence and file names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath


@dataclass(frozen=True)
class KnownSet:
    """One public set.

    Attributes:
        title: Name with authors and year.
        laboratory: Short name of the laboratory.
        homepage: Where it is published; None where that is unknown.
        licence: SPDX name where there is one, otherwise what the publisher says; None where it is unknown.
        spec: Argument of `load_leucocytes`; None where it is downloaded by hand and given as a folder.
        subfolder: The folder in the download that holds the class folders.
        file_pattern: Regular expression of its file names, by which a folder of it gets the right credits. What images
            of one photograph have in common is its group `photograph`, what those of one slide or session have in
            common its group `slide`, where names tell.
        box_classes: Class names of its boxes by their numbers, where it publishes boxed fields without naming them.
    """

    title: str
    laboratory: str
    homepage: str | None
    licence: str | None
    spec: str | None = None
    subfolder: str = "."
    file_pattern: str | None = None
    box_classes: tuple[str, ...] = ()


PAINTED_TITLE = "Painted cells of wbc_hf"
PAINTED_LABORATORY = "painted"

KNOWN_SETS = (
    # Drawn by a program, for demonstration and tests. Figures measured on them say nothing of real cells.
    KnownSet(title=PAINTED_TITLE, laboratory=PAINTED_LABORATORY, homepage="", licence="Apache-2.0", spec="synthetic"),
    # The source study's set: 700 images a class, split 2445, 525 and 530. Balanced from BCCD by augmentation: BCCD
    # holds 3 basophils, so its 700 are near-duplicates, which may be on both sides of its splits.
    KnownSet(
        title="BCCD White Blood Cell (Kaggle, brikwerk)",
        laboratory="BCCD",
        homepage="https://www.kaggle.com/datasets/brikwerk/bccd-white-blood-cell",
        licence="see the data set's page",
        spec="kaggle:brikwerk/bccd-white-blood-cell",
    ),
    # 3120 eosinophils, 3103 lymphocytes, 3098 monocytes, 3123 neutrophils: rotated, shifted, sheared and flipped
    # near-duplicates of about 350 BCCD photographs. TRAIN (9957) and TEST (2487, of 71 photographs) share none; any
    # random part of TRAIN shares nearly all with the rest.
    KnownSet(
        title="Blood Cell Images (Kaggle, paultimothymooney)",
        laboratory="BCCD",
        homepage="https://www.kaggle.com/datasets/paultimothymooney/blood-cells",
        licence="none stated",
        spec="kaggle:paultimothymooney/blood-cells",
        subfolder="dataset2-master/dataset2-master/images",
        file_pattern=r"^_\d+_\d+\.jpe?g$",
    ),
    # 1218 basophils, 3117 eosinophils, 1214 lymphocytes, 1420 monocytes, 3329 neutrophils. One analyser and one stain
    # with a nearly constant background: a model can be right here and fail elsewhere.
    KnownSet(
        title="PBC, Hospital Clinic Barcelona (Acevedo et al. 2020)",
        laboratory="PBC",
        homepage="https://doi.org/10.17632/snkd93bnjr.1",
        licence="CC-BY-4.0",
        file_pattern=r"^(?:BA|EO|LY|MO|NEUTROPHIL|BNE|SNE)_\d+\.jpe?g$",
    ),
    # 3 basophils, 88 eosinophils, 33 lymphocytes, 20 monocytes, 207 neutrophils: too few basophils and monocytes to
    # evaluate these classes.
    KnownSet(
        title="BCCD, one leucocyte cut out per file (Cheng 2017)",
        laboratory="BCCD",
        homepage="https://github.com/Shenggan/BCCD_Dataset",
        licence="MIT",
        file_pattern=r"^(?P<photograph>BloodImage_\d+)_\d+\.\w+$",
    ),
    # Phone cameras on eyepieces, Giemsa; one cell in the middle. Names tell the smear (95-8-10-1), or the day of the
    # basophils' sessions, whose background is their own: it can tell the type.
    KnownSet(
        title="Raabin-WBC (Kouzehkanan et al. 2022)",
        laboratory="Raabin",
        homepage="https://doi.org/10.1038/s41598-021-04426-x",
        licence="free for research",
        file_pattern=r"^(?P<photograph>(?P<slide>\d{2}-\d+-\d+-\d+|20\d{6})_\d+)_\d+\.jpe?g$",
    ),
    # Fields of a low-cost camera: 112 neutrophils, 100 eosinophils, 100 basophils, 111 lymphocytes, 86 monocytes.
    # Slides were chosen by the type of their cells (B-30 holds basophils).
    KnownSet(
        title="Chulalongkorn University (Bekti et al.)",
        laboratory="Chulalongkorn",
        homepage="https://github.com/singgihbekti/WBC_Dataset",
        licence="MIT",
        file_pattern=r"^(?P<photograph>(?P<slide>[BELMN]-\w+)_\d{4})_\d+\.png$",
        box_classes=("neutrophil", "eosinophil", "basophil", "lymphocyte", "monocyte"),
    ),
    # 1 basophil, 22 eosinophils, 53 lymphocytes, 48 monocytes, 176 neutrophils. Rapid stain, yellow background. The
    # labels were not double-checked by experts.
    KnownSet(
        title="Jiangxi Tecom (Zheng et al. 2018)",
        laboratory="Tecom",
        homepage="https://doi.org/10.1016/j.micron.2018.01.010",
        licence="GPL-3.0",
    ),
)


def known_by_spec(spec: str) -> KnownSet | None:
    """The known set of a spec, if there is one."""
    return next((known for known in KNOWN_SETS if known.spec == spec), None)


def laboratory_name(spec: str) -> str:
    """Short name of the laboratory of a set that is not known: the last part of its spec."""
    return Path(spec.split(":")[-1]).expanduser().resolve().name


def known_by_file_names(names: Sequence[str]) -> KnownSet | None:
    """The known set whose pattern every file name matches, if there is one."""
    return next((known for known in KNOWN_SETS if names and all(_match(known, name) for name in names)), None)


def photograph(name: str) -> str | None:
    """The photograph that a file was cropped from, where a known set's file names tell."""
    return _named_part(name, "photograph")


def slide(name: str) -> str | None:
    """The slide, or the session at the microscope, that a file comes from, where a known set's file names tell."""
    return _named_part(name, "slide")


def _named_part(name: str, part: str) -> str | None:
    matches = (_match(known, name) for known in KNOWN_SETS)
    return next((match[part] for match in matches if match and part in match.groupdict()), None)


def _match(known: KnownSet, name: str) -> re.Match[str] | None:
    return re.match(known.file_pattern, PurePath(name).name) if known.file_pattern else None
