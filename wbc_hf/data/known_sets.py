"""The public sets of stained leucocytes that the project knows: where they are, what they hold, who may use them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath


@dataclass(frozen=True)
class KnownSet:
    """One public set.

    Attributes:
        title: Name with authors and year.
        homepage: Where it is published.
        licence: SPDX name where there is one, otherwise what the publisher says.
        classes: Cells per class as published.
        splits: Images per split as published; empty where none is given.
        spec: What `load_leucocytes` fetches it by; None where it is downloaded by hand and given as a folder.
        subfolder: Where in the download the class folders stand.
        file_pattern: Tells the set by its file names, so that a folder of it gets the right credits. Its first group,
            where there is one, is what images of one photograph have in common.
        remark: What to know before trusting a figure measured on it.
    """

    title: str
    homepage: str
    licence: str
    classes: dict[str, int]
    splits: dict[str, int] = field(default_factory=dict)
    spec: str | None = None
    subfolder: str = "."
    file_pattern: str | None = None
    remark: str = ""


PAINTED_TITLE = "Painted cells of wbc_hf"

KNOWN_SETS = (
    KnownSet(
        title=PAINTED_TITLE,
        homepage="",
        licence="Apache-2.0",
        classes={"basophil": 300, "eosinophil": 300, "lymphocyte": 300, "monocyte": 300, "neutrophil": 300},
        spec="synthetic",
        remark="Drawn by a program, for demonstration and tests. Figures measured on them say nothing of real cells.",
    ),
    KnownSet(
        title="BCCD White Blood Cell (Kaggle, brikwerk)",
        homepage="https://www.kaggle.com/datasets/brikwerk/bccd-white-blood-cell",
        licence="see the data set's page",
        classes={"basophil": 700, "eosinophil": 700, "lymphocyte": 700, "monocyte": 700, "neutrophil": 700},
        splits={"train": 2445, "validation": 525, "test": 530},
        spec="kaggle:brikwerk/bccd-white-blood-cell",
        remark="The source study's set. Balanced from BCCD by augmentation: BCCD holds 3 basophils, so 700 of them "
        "can only be copies, and copies of one cell may stand on both sides of its splits.",
    ),
    KnownSet(
        title="Blood Cell Images (Kaggle, paultimothymooney)",
        homepage="https://www.kaggle.com/datasets/paultimothymooney/blood-cells",
        licence="none stated",
        classes={"eosinophil": 3120, "lymphocyte": 3103, "monocyte": 3098, "neutrophil": 3123},
        splits={"train": 9957, "test": 2487},
        spec="kaggle:paultimothymooney/blood-cells",
        subfolder="dataset2-master/dataset2-master/images",
        file_pattern=r"^_\d+_\d+\.jpe?g$",
        remark="Rotated, shifted, sheared and flipped copies of about 350 BCCD photographs. TRAIN and TEST share "
        "none; any part cut from TRAIN at random shares nearly all. TEST comes from 71 photographs.",
    ),
    KnownSet(
        title="PBC, Hospital Clinic Barcelona (Acevedo et al. 2020)",
        homepage="https://doi.org/10.17632/snkd93bnjr.1",
        licence="CC-BY-4.0",
        classes={"basophil": 1218, "eosinophil": 3117, "lymphocyte": 1214, "monocyte": 1420, "neutrophil": 3329},
        file_pattern=r"^(?:BA|EO|LY|MO|NEUTROPHIL|BNE|SNE)_\d+\.jpe?g$",
        remark="One analyser and one stain with a nearly constant background: a model can be right here and fail "
        "elsewhere.",
    ),
    KnownSet(
        title="BCCD, one leucocyte cut out per file (Cheng 2017)",
        homepage="https://github.com/Shenggan/BCCD_Dataset",
        licence="MIT",
        classes={"basophil": 3, "eosinophil": 88, "lymphocyte": 33, "monocyte": 20, "neutrophil": 207},
        file_pattern=r"^(BloodImage_\d+)_\d+\.\w+$",
        remark="3 basophils and 20 monocytes: too few to judge those classes by.",
    ),
    KnownSet(
        title="Jiangxi Tecom (Zheng et al. 2018)",
        homepage="https://doi.org/10.1016/j.micron.2018.01.010",
        licence="GPL-3.0",
        classes={"basophil": 1, "eosinophil": 22, "lymphocyte": 53, "monocyte": 48, "neutrophil": 176},
        remark="Rapid stain, yellow background. The labels were not double-checked by experts.",
    ),
)


def known_by_spec(spec: str) -> KnownSet | None:
    """The set that a spec fetches, if it is a known one."""
    return next((known for known in KNOWN_SETS if known.spec == spec), None)


def known_by_file_names(names: Sequence[str]) -> KnownSet | None:
    """The set whose naming every one of the files follows, if there is one."""
    if not names:
        return None
    for known in KNOWN_SETS:
        if known.file_pattern and all(re.match(known.file_pattern, PurePath(name).name) for name in names):
            return known
    return None


def photograph(name: str) -> str | None:
    """The photograph that a file of any known set was cut from, where its name tells; among other files too."""
    for known in KNOWN_SETS:
        match = re.match(known.file_pattern, PurePath(name).name) if known.file_pattern else None
        if match and match.groups():
            return match[1]
    return None
