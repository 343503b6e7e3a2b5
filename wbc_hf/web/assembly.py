"""The page as a whole."""

from html import escape

import gradio as gr

from wbc_hf.data import PAINTED_TITLE
from wbc_hf.errors import WbcError
from wbc_hf.inference.predictor import Predictor
from wbc_hf.inference.reference_cells import ReferenceCells
from wbc_hf.labels import class_index
from wbc_hf.reports import RESEARCH_USE
from wbc_hf.smear import DEFAULT_RANGES, ReferenceRanges
from wbc_hf.web.adapt_tab import add_adapt_tab
from wbc_hf.web.cell_tab import Explainer, add_cell_tab
from wbc_hf.web.endpoints import add_endpoints
from wbc_hf.web.model_tab import add_model_tab
from wbc_hf.web.session import Sessions
from wbc_hf.web.specimen_tab import add_specimen_tab

MAX_WAITING = 64  # requests, before the page says that it is busy
# Gradio removes all temporary files when the page ends, if it has a schedule; in between `housekeeping` does.
DAY = 86_400  # seconds

PAINTED_ONLY = "Demonstration model: trained on painted cells, it knows nothing of real ones."


def build_page(
    predictor: Predictor,
    *,
    ranges: ReferenceRanges = DEFAULT_RANGES,
    references: ReferenceCells | None = None,
) -> gr.Blocks:
    """The page of one model, not yet served.

    Args:
        predictor: The model.
        ranges: Reference ranges of the laboratory.
        references: Known cells, of which the most alike are shown beside an answer.

    Raises:
        WbcError: The model tells no leucocytes apart.
    """
    if all(class_index(label) is None for label in predictor.labels):
        raise WbcError(
            f"{predictor.name}: tells apart {', '.join(predictor.labels[:3])} …, but no leucocytes. "
            "Fine-tune it first: python train.py --model …"
        )
    explainer, sessions = Explainer(predictor, references), Sessions(predictor)
    with gr.Blocks(title="Leucocytes", analytics_enabled=False, delete_cache=(DAY, DAY)) as page:
        gr.HTML(_header(predictor))
        with gr.Tab("Specimen"):
            add_specimen_tab(page, sessions, ranges)
        with gr.Tab("One cell"):
            add_cell_tab(explainer)
        with gr.Tab("Adapt") as tab:
            add_adapt_tab(tab, sessions, predictor)
        with gr.Tab("Model"):
            add_model_tab(predictor)
        add_endpoints(explainer, ranges)
    return page.queue(max_size=MAX_WAITING)


def trained_on_painted_cells(predictor: Predictor) -> bool:
    """Whether a model saw painted cells only; False where its folder does not say what it was trained on."""
    return predictor.identity.trained_on == PAINTED_TITLE


def _header(predictor: Predictor) -> str:
    demonstration = f"<p>{PAINTED_ONLY}</p>" if trained_on_painted_cells(predictor) else ""
    return (
        f'<header class="wbc-head"><h1>Leucocytes</h1><p>Model <b>{escape(predictor.identity.name)}</b></p>'
        f"<p>Finds and tells apart leucocytes in stained blood smears: {escape(', '.join(predictor.labels))}.</p>"
        f'</header><div class="wbc-notice" role="note"><p><strong>{RESEARCH_USE}</strong></p>{demonstration}</div>'
    )
