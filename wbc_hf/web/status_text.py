"""How the page words the status of a prediction."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StatusText:
    """A title, a sentence on one cell, and the tone, a class of the style sheet."""

    title: str
    sentence: str
    tone: str


STATUS_TEXTS = {
    "confident": StatusText(
        "Confident", "The model is as sure as it was where it was right in its tests.", tone="good"
    ),
    "review": StatusText("Review", "The model is not sure enough: a person should look at this cell.", tone="caution"),
    "unfamiliar": StatusText(
        "Unfamiliar",
        "Unlike all pictures that the model was tested on, so nobody knows how often it is right here: "
        "do not rely on this answer.",
        tone="bad",
    ),
    "not_a_cell": StatusText(
        "Not a cell", "This does not look like a leucocyte: do not rely on this answer.", tone="bad"
    ),
    "uncalibrated": StatusText(
        "Uncalibrated",
        "The model cannot say when it is likely to be wrong, not even at a high probability: "
        "a person should look at every cell.",
        tone="neutral",
    ),
}
