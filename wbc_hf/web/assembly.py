"""The page as a whole."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from wbc_hf.adaptation import Laboratories
from wbc_hf.data import PAINTED_TITLE
from wbc_hf.errors import WbcError
from wbc_hf.inference import Predictor, ReferenceCells
from wbc_hf.labels import class_index
from wbc_hf.reports import RESEARCH_USE
from wbc_hf.smear import DEFAULT_RANGES, NO_TYPES, CellTypes, ReferenceRanges
from wbc_hf.web.adapt_tab import AdaptTab
from wbc_hf.web.cell_tab import CellTab
from wbc_hf.web.checked_blocks import CheckedBlocks
from wbc_hf.web.endpoints import Endpoints
from wbc_hf.web.keeping import Keeping
from wbc_hf.web.laboratory_panel import LaboratoryPanel
from wbc_hf.web.model_tab import add_model_tab
from wbc_hf.web.rendering import render
from wbc_hf.web.roles import Roles
from wbc_hf.web.session import Sessions
from wbc_hf.web.slides import SlideFolder
from wbc_hf.web.specimen_tab import SpecimenTab

if TYPE_CHECKING:
    from wbc_hf.store import SpecimenStore

MAX_WAITING = 64  # requests, before the page says that it is busy
# Gradio removes all temporary files when the page ends, if it has a schedule; in between `housekeeping` does.
DAY = 86_400  # seconds

PAINTED_ONLY = "Demonstration model: trained on painted cells, it knows nothing of real ones."


def build_page(
    predictor: Predictor,
    *,
    ranges: ReferenceRanges = DEFAULT_RANGES,
    types: CellTypes = NO_TYPES,
    references: ReferenceCells | None = None,
    laboratories: Laboratories | None = None,
    slides: Path | None = None,
    store: "SpecimenStore | None" = None,
    roles: Roles | None = None,
    ask_after: timedelta = timedelta(days=14),
) -> gr.Blocks:
    """Build the page of a model, not yet served.

    Args:
        predictor: The model.
        ranges: Reference ranges of the laboratory.
        types: The laboratory's own types of cells, which a person may name in review.
        references: Known cells; the most similar ones are shown beside an answer.
        laboratories: Where laboratories are kept; by default none is.
        slides: Folder of whole slides that every visitor may read; by default there is none.
        store: Where specimens are kept; by default none is.
        roles: What users may do with kept specimens; by default everything.
        ask_after: After how long the work list asks about unsigned specimens.

    Raises:
        WbcError: The model has none of the five classes, or there is no such folder of slides.
    """
    if all(class_index(label) is None for label in predictor.labels):
        raise WbcError(
            f"{predictor.name}: tells apart {', '.join(predictor.labels[:3])} …, but no leucocytes. "
            "Fine-tune it first: python train.py --model …"
        )
    begin = {} if store is None else {"begin": store.begin}
    sessions = Sessions(predictor, **begin, types=types)
    folder = SlideFolder(slides) if slides is not None else None
    with CheckedBlocks(title="Leucocytes", analytics_enabled=False, delete_cache=(DAY, DAY)) as page:
        warning = PAINTED_ONLY if predictor.identity.trained_on == PAINTED_TITLE else ""
        gr.HTML(render("header", predictor=predictor, notice=RESEARCH_USE, warning=warning))
        with gr.Tab("Specimen"):
            panel = LaboratoryPanel(sessions, predictor, laboratories)
            keeping = Keeping(sessions, ranges, store, roles, ask_after)
            SpecimenTab(page, sessions, ranges, panel, keeping, references, folder)
        with gr.Tab("One cell"):
            CellTab(predictor, references)
        with gr.Tab("Adapt") as tab:
            AdaptTab(tab, sessions, predictor)
        with gr.Tab("Model"):
            add_model_tab(predictor)
        Endpoints(predictor, references, ranges, laboratories, types).add()
    return page.queue(max_size=MAX_WAITING)
