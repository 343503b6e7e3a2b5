"""All systems of the survey, in the order of its tables."""

from wbc_hf.survey.cheuque_2022 import Cheuque2022
from wbc_hf.survey.ekiz_2021 import Ekiz2021
from wbc_hf.survey.huang_2012 import Huang2012
from wbc_hf.survey.jiang_2018 import Jiang2018
from wbc_hf.survey.manik_2016 import Manik2016
from wbc_hf.survey.resnet import Ours, SourceStudy
from wbc_hf.survey.system import System
from wbc_hf.survey.tiwari_2018 import Tiwari2018Bayes, Tiwari2018Dclnn, Tiwari2018Svm
from wbc_hf.survey.togacar_2020 import Togacar2020
from wbc_hf.survey.ushizima_2005 import Ushizima2005
from wbc_hf.survey.yu_2017 import Yu2017

_IN_ORDER: tuple[type[System], ...] = (
    Huang2012,
    Ushizima2005,
    Manik2016,
    Yu2017,
    Jiang2018,
    Tiwari2018Bayes,
    Tiwari2018Svm,
    Tiwari2018Dclnn,
    Ekiz2021,
    Togacar2020,
    Cheuque2022,
    SourceStudy,
    Ours,
)

SYSTEMS: dict[str, type[System]] = {system.name: system for system in _IN_ORDER}
