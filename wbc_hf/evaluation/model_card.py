"""The model card: a README.md for the Hub, with figures in its front matter."""

from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from wbc_hf.evaluation.confidence_intervals import format_estimate, format_figure, format_interval
from wbc_hf.evaluation.reporting_checklists import LOCAL_TITLE, map_checklists
from wbc_hf.hub import UNNAMED_MODEL
from wbc_hf.labels import CLASS_NAMES, ENOUGH_CELLS

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"

# As microsoft/resnet-50, from which most runs start, and as this project's code. It covers the weights; the images
# they were trained on keep their own licence, which the body of the card names.
LICENCE = "apache-2.0"

TAGS = ["leucocytes", "white-blood-cells", "haematology", "blood-smear", "microscopy", "medical-imaging", "resnet"]

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

# Of all arguments, those that reproduce a run.
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
    "laboratories",
    "balance",
    "painted",
    "early_stopping_patience",
    "precision",
    "seed",
)


def render_card(run: dict, metrics: dict, model_id: str | None = None) -> str:
    """The card of a model as Markdown with YAML front matter, from what a run and its report wrote down.

    Its last section maps it to two reporting checklists; see `map_checklists`.

    No path of the machine that trained gets into it: data and base models that are local folders go unnamed.

    Args:
        run: As in `run.json`: `base_model` (None from scratch), `width`, `image_size` in pixels, `freeze`,
            `arguments`, `versions`, `finished` (ISO 8601, in UTC), and `data` with `spec`, `title`, `licence`,
            `homepage`, `fingerprint`, `given_splits`, `splits` (images by split and class), `skipped`, and where known
            `origins` (one dictionary a laboratory, with `laboratory`, `spec`, `title`, `licence`, `homepage`,
            `given_splits`), `groups_across` and `audit`: `distinct_cells` (as `splits`), `near_duplicates` (images
            that show a cell which another one shows already), `contradictions` (cells with two classes) and `across`
            (cells in two splits).
            `fingerprint` and `given_splits` are None for a stream, `width` may be where weights were given. `notice`,
            where it is there, says whether the weights derive from others with a licence of their own; `commit` and
            `machine` are named where they are there.
        metrics: As `write_report` returns them, of the test split.
        model_id: `owner/name` on the Hub. Without it `UNNAMED_MODEL` stands there, which publishing replaces.
    """
    model_id = model_id or UNNAMED_MODEL
    card = ModelCard.from_template(
        _card_data(run, metrics, model_id), template_path=str(TEMPLATE), **_template_arguments(run, metrics, model_id)
    )
    return map_checklists(str(card))


def _card_data(run: dict, metrics: dict, model_id: str) -> ModelCardData:
    data = run["data"]
    on_hub = [origin["spec"] for origin in _origins(data) if _is_hub_id(origin["spec"])]
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            dataset_type=data["spec"] if on_hub == [data["spec"]] else "imagefolder",
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
        datasets=on_hub or None,
        metrics=[result.metric_type for result in results],
        tags=TAGS,
        model_name=model_id,
        eval_results=results,
    )


def _template_arguments(run: dict, metrics: dict, model_id: str) -> dict:
    data, arguments = run["data"], run["arguments"]
    return {
        "run": run,
        "data": data,
        "metrics": metrics,
        "model_id": model_id,
        "architecture": _architecture(run),
        "class_names": f"{', '.join(CLASS_NAMES[:-1])} and {CLASS_NAMES[-1]}",
        "painted": all(origin["spec"].split(":")[0] == "synthetic" for origin in _origins(data)),
        "laboratories": [(origin, _title(origin)) for origin in data.get("origins", ()) if len(data["origins"]) > 1],
        "title": _title(data),
        "base_on_hub": _is_hub_id(run["base_model"]),
        "split_names": list(data["splits"]),
        "cell_rows": _cell_rows(data["splits"], data.get("audit")),
        "headline": _HEADLINE,
        "enough_cells": ENOUGH_CELLS,
        "settings": [(name, arguments[name]) for name in _NOTED_ARGUMENTS if arguments.get(name) is not None],
        "figure": format_figure,
        "interval": format_interval,
        "estimate": format_estimate,
    }


def _origins(data: dict) -> list[dict]:
    """The sets of a run, each with `spec` and `title`."""
    return data.get("origins") or [data]


def _is_hub_id(spec: str | None) -> bool:
    # `load_leucocytes` and `fetch_model` take a folder that exists first, so data/cells may be either.
    return (
        spec is not None
        and spec.count("/") == 1
        and spec[0] not in "./~"
        and ":" not in spec
        and not Path(spec).exists()
    )


def _title(data: dict) -> str:
    """The name of a set, or of all. Where nothing is known but a path, that stays private."""
    if len(data.get("origins", ())) > 1:
        return ", ".join(_title(origin) for origin in data["origins"])
    named = data["title"] != data["spec"] or data["spec"].startswith("kaggle:")
    return data["title"] if named or _is_hub_id(data["spec"]) else LOCAL_TITLE


def _architecture(run: dict) -> str:
    if run["base_model"] is None and run["width"] != 1:
        return f"ResNet-50 with {run['width']:g} times the channels"
    if run["base_model"] is None or "resnet-50" in run["base_model"].lower():
        return "ResNet-50"
    return "ResNet"


def _cell_rows(splits: dict[str, dict[str, int]], audit: dict | None) -> list[list[str]]:
    """A row per class, then their sum; with an audit, the number of distinct cells in brackets."""
    distinct = dict.fromkeys(splits) if audit is None else audit["distinct_cells"]
    rows = [[name, *(_cells(splits[split], distinct[split], [name]) for split in splits)] for name in CLASS_NAMES]
    return [*rows, ["**all**", *(_cells(splits[split], distinct[split], CLASS_NAMES) for split in splits)]]


def _cells(images: dict[str, int], distinct: dict[str, int] | None, names: Iterable[str]) -> str:
    count = sum(images.get(name, 0) for name in names)
    return str(count) if distinct is None else f"{count} ({sum(distinct.get(name, 0) for name in names)})"
