"""The model card: what somebody who finds the model on the Hub has to know before using it."""

from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from wbc_hf.evaluation.confidence_intervals import Interval
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
    "laboratories",
    "painted",
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
            `given_splits`, `splits` (images by split and class), `skipped`, and where known `groups_across` and
            `audit`: `distinct_cells` (as `splits`), `copies` (images that show a cell which another one shows
            already), `contradictions` (cells with two classes) and `across` (cells in two splits).
            `fingerprint` and `given_splits` are None for a stream, `width` may be where weights were given.
        metrics: As `write_report` returns them, of the test split.
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
        "cell_rows": _cell_rows(data["splits"], data.get("audit")),
        "skipped_sentence": _skipped_sentence(len(data["skipped"])),
        "audit_sentence": _audit_sentence(data["audit"]) if "audit" in data else "",
        "across_sentence": _across_sentence(data["audit"]["across"] if "audit" in data else data.get("groups_across")),
        "figures": metrics,
        "headline": _headline_rows(metrics),
        "leak_sentence": _leak_sentence(metrics),
        "class_rows": [_class_row(name, metrics) for name in CLASS_NAMES],
        "too_few": min(metrics["distinct_cells"].values()) < ENOUGH_CELLS,
        "without_width": _has_interval_without_width(metrics),
        "enough_cells": ENOUGH_CELLS,
        "calibration_rows": _calibration_rows(metrics["calibration"]) if "calibration" in metrics else [],
        "review": _review(metrics["review"]) if "review" in metrics else None,
        "origin_sentence": _origin_sentence(run["base_model"]),
        "search_sentence": _search_sentence(run["search"]) if "search" in run else "",
        "freeze": _frozen(run["freeze"], arguments.get("cached_views", 0)),
        "settings": [(name, arguments[name]) for name in _NOTED_ARGUMENTS if arguments.get(name) is not None],
        "versions": ", ".join(f"{name} {version}" for name, version in run["versions"].items()) + ".",
        "data_licence_sentence": _data_licence_sentence(data["licence"]),
    }


def _search_sentence(search: dict) -> str:
    names = ", ".join(f"`{name}`" for name in search["space"])
    return f" Of {search['trials']} trials of {search['epochs']} epochs, the best on validation chose {names}."


def _frozen(depth: str, cached_views: int) -> str:
    return f"{depth}, computed once for {cached_views} views of each image" if cached_views else depth


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


def _cell_rows(splits: dict[str, dict[str, int]], audit: dict | None) -> list[list[str]]:
    """A row per class, then their sum; with an audit, the number of distinct cells in brackets."""
    distinct = dict.fromkeys(splits) if audit is None else audit["distinct_cells"]
    rows = [[name, *(_cells(splits[split], distinct[split], [name]) for split in splits)] for name in CLASS_NAMES]
    return [*rows, ["**all**", *(_cells(splits[split], distinct[split], CLASS_NAMES) for split in splits)]]


def _cells(images: dict[str, int], distinct: dict[str, int] | None, names: Iterable[str]) -> str:
    count = sum(images.get(name, 0) for name in names)
    return str(count) if distinct is None else f"{count} ({sum(distinct.get(name, 0) for name in names)})"


def _audit_sentence(audit: dict) -> str:
    copies, contradictions = audit["copies"], audit["contradictions"]
    found = f"{copies or 'none'} of them show{'s' if copies <= 1 else ''} a cell that another one shows already"
    disputed = f"{contradictions or 'no'} cell{'' if contradictions == 1 else 's'}"
    return (
        f"All images were compared with each other: {found}, and {disputed} "
        f"{'carries' if contradictions == 1 else 'carry'} more than one class."
    )


def _skipped_sentence(count: int) -> str:
    if count == 0:
        return "Every file could be read."
    return f"{count} file{'s' if count > 1 else ''} could not be read and {'were' if count > 1 else 'was'} left out."


def _across_sentence(count: int | None) -> str:
    if not count:
        return ""
    return (
        f" **{count} group{'s' if count > 1 else ''} of images that show the same cell or photograph "
        f"stand{'' if count > 1 else 's'} on both sides of it**, which makes figures better than they should be."
    )


def _headline_rows(metrics: dict) -> list[list[str]]:
    """Name, figure and interval; where some images leaked, figure and interval of the others too."""
    columns = [metrics, *([metrics["without_leaked"]] if metrics.get("without_leaked") else [])]
    return [
        [name, *(text for column in columns for text in (_figure(column[key]), _limits(column["intervals"][key])))]
        for key, _, name in _HEADLINE
    ]


def _leak_sentence(metrics: dict) -> str:
    leaked = metrics.get("leaked")
    if not leaked:
        return ""
    shown = "shows a cell that was" if leaked == 1 else "show cells that were"
    sentence = f"**{leaked} of the test images {shown} also trained or chosen on**"
    if metrics["without_leaked"] is None:
        return (
            f"{sentence}: none is left to judge the model by, and no figure here says how good it is on other cells."
        )
    count = metrics["without_leaked"]["count"]
    return f"{sentence}. The columns at the right are without them, from {count} images: these are the ones to go by."


def _class_row(name: str, metrics: dict) -> list[str]:
    figures, intervals = metrics["per_class"][name], metrics["intervals"]["per_class"][name]
    support, distinct = figures["support"], metrics["distinct_cells"][name]
    remark = "not judged: no test cells" if support == 0 else "too few to judge" if distinct < ENOUGH_CELLS else ""
    estimates = (_estimate(figures[key], intervals[key]) for key in ("precision", "recall", "f1", "roc_auc"))
    return [name, *estimates, str(support), str(distinct), remark]


def _has_interval_without_width(metrics: dict) -> bool:
    """Whether some interval is 1 to 1 or 0 to 0, which says that no mistake was seen, or nothing right."""
    each = [metrics["intervals"][key] for key, _, _ in _HEADLINE]
    each += [interval for figures in metrics["intervals"]["per_class"].values() for interval in figures.values()]
    if "review" in metrics:
        each += metrics["review"]["intervals"].values()
    return any(interval is not None and interval[0] == interval[1] for interval in each)


def _calibration_rows(calibration: dict) -> list[list[str]]:
    names = {"ece": "Expected calibration error", "brier": "Brier score, 0 to 2"}
    judged = [calibration[when] for when in ("before", "after")]
    return [[name, *(_estimate(one[key], one["intervals"][key]) for one in judged)] for key, name in names.items()]


def _review(review: dict) -> dict:
    """What the template says of the review threshold, all of it as text."""
    accuracy, target, intervals = review["accuracy_of_accepted"], review["target_accuracy"], review["intervals"]
    coverage = f"On the test split these are {_percent(review['coverage'], intervals['coverage'])} of the images"
    if accuracy is None:
        sentence = f"{coverage}."
    else:
        sentence = f"{coverage}, and {_percent(accuracy, intervals['accuracy_of_accepted'])} of those are right."
    return {
        "threshold": _figure(review["threshold"]),
        "sentence": sentence,
        "target": None if target is None else f"{100 * target:g} %",
        "curve": [(f"{100 * share:g} %", f"{100 * error:.1f} %") for share, error in review["error_at_coverage"]],
    }


def _percent(share: float, interval: Interval) -> str:
    if interval is None:
        return f"{100 * share:.1f} %"
    low, high = interval
    return f"{100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"


def _estimate(value: float | None, interval: Interval) -> str:
    return _figure(value) if interval is None else f"{_figure(value)} ({_limits(interval)})"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _limits(interval: Interval) -> str:
    return "–" if interval is None else " to ".join(f"{limit:.3f}" for limit in interval)


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
