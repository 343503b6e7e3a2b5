"""The model card: what somebody who finds the model on the Hub has to know before using it."""

from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from wbc_hf.hub import UNNAMED_MODEL
from wbc_hf.labels import CLASS_NAMES

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"

# As microsoft/resnet-50, from which most runs start, and as this project's code. It covers the weights; the images
# they were trained on keep their own licence, which the body of the card names.
LICENCE = "apache-2.0"

TAGS = ["leucocytes", "white-blood-cells", "haematology", "blood-smear", "microscopy", "medical-imaging", "resnet"]

# With 20 cells and half of them right, the exact 95 % limits of the recall are 27 and 73 %.
ENOUGH_CELLS = 20

# Key in the metrics, metric id on the Hub, name.
_HEADLINE = (
    ("accuracy", "accuracy", "Accuracy"),
    ("balanced_accuracy", None, "Balanced accuracy"),
    ("macro_precision", "precision", "Macro precision"),
    ("macro_recall", "recall", "Macro recall"),
    ("macro_f1", "f1", "Macro F1"),
    ("matthews_correlation", "matthews_correlation", "Matthews correlation"),
    ("roc_auc", "roc_auc", "Macro ROC AUC (one class against the rest)"),
)

# What somebody who trains again has to know first.
_NOTED_ARGUMENTS = (
    "num_train_epochs",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "label_smoothing_factor",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "class_weights",
    "augmentation",
    "early_stopping_patience",
    "precision",
    "seed",
)

_LOCAL_TITLE = "a folder of images that is not published"


def render_card(run: dict, metrics: dict, model_id: str | None = None) -> str:
    """The card of a model as Markdown with YAML front matter, from what a run and its report wrote down.

    No path of the machine that trained gets into it: data and base models that are local folders go unnamed.

    Args:
        run: As in `run.json`: `base_model` (None from scratch), `width`, `image_size` in pixels, `freeze`,
            `arguments`, `versions`, and `data` with `spec`, `title`, `licence`, `homepage`, `fingerprint`,
            `given_splits`, `splits` (cells by split and class), `skipped`, and where known `groups_across`.
            `fingerprint` and `given_splits` are None for a stream, `width` may be where weights were given.
        metrics: As `compute_metrics` returns them, of the test split.
        model_id: `owner/name` on the Hub. Without it `UNNAMED_MODEL` stands there, which publishing replaces.
    """
    model_id = model_id or UNNAMED_MODEL
    card = ModelCard.from_template(
        _card_data(run, metrics, model_id), template_path=str(TEMPLATE), **_body(run, metrics, model_id)
    )
    return str(card)


def _card_data(run: dict, metrics: dict, model_id: str) -> ModelCardData:
    data = run["data"]
    on_hub = _is_hub_id(data["spec"])
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            dataset_type=data["spec"] if on_hub else "imagefolder",
            dataset_name=_title(data),
            dataset_split="test",
            metric_type=metric,
            metric_name=name,
            metric_value=round(metrics[key], 4),
        )
        for key, metric, name in _HEADLINE
        if metric is not None and metrics[key] is not None
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        license=LICENCE,
        base_model=run["base_model"] if _is_hub_id(run["base_model"]) else None,
        datasets=[data["spec"]] if on_hub else None,
        metrics=[result.metric_type for result in results],
        tags=TAGS,
        model_name=model_id,
        eval_results=results,
    )


def _body(run: dict, metrics: dict, model_id: str) -> dict:
    """What the template fills in; everything that needs thought is decided here, not there."""
    data = run["data"]
    arguments = run["arguments"]
    return {
        "model_id": model_id,
        "architecture": _architecture(run),
        "class_names": f"{', '.join(CLASS_NAMES[:-1])} and {CLASS_NAMES[-1]}",
        "image_size": run["image_size"],
        "data": data,
        "painted": _is_painted(data["spec"]),
        "data_sentence": f"Trained and judged on {_title(data)}.",
        "split_names": list(data["splits"]),
        "cell_rows": _cell_rows(data["splits"]),
        "skipped_sentence": _skipped_sentence(len(data["skipped"])),
        "across_sentence": _across_sentence(data.get("groups_across")),
        "figures": metrics,
        "headline": [(name, _figure(metrics[key])) for key, _, name in _HEADLINE],
        "class_rows": [_class_row(name, figures) for name, figures in metrics["per_class"].items()],
        "too_few": any(figures["support"] < ENOUGH_CELLS for figures in metrics["per_class"].values()),
        "enough_cells": ENOUGH_CELLS,
        "origin_sentence": _origin_sentence(run["base_model"]),
        "freeze": run["freeze"],
        "settings": [(name, arguments[name]) for name in _NOTED_ARGUMENTS if arguments.get(name) is not None],
        "versions": ", ".join(f"{name} {version}" for name, version in run["versions"].items()) + ".",
        "data_licence_sentence": _data_licence_sentence(data["licence"]),
    }


def _is_hub_id(spec: str | None) -> bool:
    # `load_leucocytes` and `fetch_model` take a folder that exists first, so data/cells may be either.
    return (
        spec is not None
        and spec.count("/") == 1
        and spec[0] not in "./~"
        and ":" not in spec
        and not Path(spec).exists()
    )


def _is_painted(spec: str) -> bool:
    return spec.split(":")[0] == "synthetic"


def _title(data: dict) -> str:
    """The set's name. Where nothing is known but a path, that stays private."""
    named = data["title"] != data["spec"] or data["spec"].startswith("kaggle:")
    return data["title"] if named or _is_hub_id(data["spec"]) else _LOCAL_TITLE


def _architecture(run: dict) -> str:
    if run["base_model"] is None and run["width"] != 1:
        return f"ResNet-50 with {run['width']:g} times the channels"
    if run["base_model"] is None or "resnet-50" in run["base_model"].lower():
        return "ResNet-50"
    return "ResNet"


def _cell_rows(splits: dict[str, dict[str, int]]) -> list[list]:
    rows = [[name, *(cells.get(name, 0) for cells in splits.values())] for name in CLASS_NAMES]
    return [*rows, ["**all**", *(sum(cells.values()) for cells in splits.values())]]


def _skipped_sentence(count: int) -> str:
    if count == 0:
        return "Every file could be read."
    return f"{count} file{'s' if count > 1 else ''} could not be read and {'were' if count > 1 else 'was'} left out."


def _across_sentence(count: int | None) -> str:
    if not count:
        return ""
    return (
        f" **{count} group{'s' if count > 1 else ''} of images that show the same cell or photograph "
        f"stand{'' if count > 1 else 's'} on both sides of it**, which makes the figures better than they should be."
    )


def _class_row(name: str, figures: dict) -> list[str]:
    support = figures["support"]
    remark = "not judged: no test cells" if support == 0 else "too few to judge" if support < ENOUGH_CELLS else ""
    return [name, *(_figure(figures[key]) for key in ("precision", "recall", "f1", "roc_auc")), str(support), remark]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _origin_sentence(base_model: str | None) -> str:
    if base_model is None:
        return "Trained from scratch, without weights from other images."
    if _is_hub_id(base_model):
        return f"Fine-tuned from [{base_model}](https://huggingface.co/{base_model})."
    return "Fine-tuned from a local checkpoint."


def _data_licence_sentence(licence: str | None) -> str:
    if licence is None:
        return "The licence of the training images is not known; they are not part of this repository."
    return f"Licence of the training images, which are not part of this repository: {licence}."
