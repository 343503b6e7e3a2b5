"""Names of the figures of a whole set, in the order of reports."""

HEADLINE_NAMES = (
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "matthews_correlation",
)
