"""Export a model to OpenVINO or ONNX, and check it against the original on validation images.

int8 is post-training quantisation by nncf: training images give the range of every activation, and no weight is
trained (Jacob et al. 2018, arXiv:1712.05877).
"""

import contextlib
import importlib.util
import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from datasets import Dataset
from pydantic import BaseModel
from scipy.special import softmax
from tqdm.auto import tqdm

from wbc_hf.data import load_leucocytes, may_be_stained_cell, read_image
from wbc_hf.errors import WbcError
from wbc_hf.evaluation import Evaluation, columns_of_classes, evaluate
from wbc_hf.files import read_json
from wbc_hf.hub import copy_notice, fetch_model, find_file
from wbc_hf.inference.backends import Backend, OpenVinoBackend, TorchBackend
from wbc_hf.inference.predictor import batches
from wbc_hf.inference.training_data import TrainingData
from wbc_hf.modeling import (
    CROP,
    GRAPH_FILES,
    Calibration,
    Check,
    Export,
    ExportFigures,
    InferenceGraph,
    Preprocessing,
    digest_weights,
    load_classifier,
    load_processor,
    to_onnx,
    to_openvino,
)

ExportFormat = Literal["openvino", "onnx"]
Precision = Literal["int8", "bf16", "fp32"]

MAX_FALL = 0.005  # of macro F1
CALIBRATION_IMAGES = 300
# A range is the mean of what batches span: of single images it cuts off what one in two exceeds. Measured, the logits
# of int8 lie four times closer to the model's own with batches of 16.
_CALIBRATION_BATCH = 16
_SEED = 0

# Files of the model that are copied into a new folder beside the export.
_COMPANIONS = ("config.json", "preprocessor_config.json", "wbc.json", "wbc.safetensors", "README.md", "metrics.json")


class _RunArguments(BaseModel):
    dataset: list[str]
    split_seed: int
    streaming: bool


class _Run(BaseModel):
    """What is read of the `run.json` of a training."""

    arguments: _RunArguments
    data: TrainingData


@dataclass(frozen=True)
class _ExportData:
    """Images to calibrate the quantisation on, and images to check the export on."""

    dataset: str
    split_seed: int
    training: Dataset
    validation: Dataset


@dataclass(frozen=True)
class _Outputs:
    """Outputs for n validation images: float32 (n, classes), and (n, d) of a ResNet."""

    probabilities: np.ndarray
    features: np.ndarray | None


def export_model(
    model: str | Path,
    format: ExportFormat,
    precision: Precision,
    *,
    dataset: str | None = None,
    output: Path | None = None,
) -> tuple[Path, Export]:
    """Export a model as one file with all of its arithmetic, for batches of any size.

    It goes into a folder of the format's name beside the weights, in the place of an earlier one, or into a new folder
    with everything that `Predictor` needs. Nothing is written if the check fails.

    Args:
        model: A folder or a Hub id.
        format: Whose files are written.
        precision: In which numbers they are computed; bf16 is OpenVINO's alone.
        dataset: A spec. Its training images are what int8 is calibrated on, its validation images what the export is
            checked on. By default the set of the training run, as `run.json` beside the model names it; without either
            only int8 is refused, and the others are not checked.
        output: The new folder; needed for a Hub id.

    Returns:
        The folder of the file, and what its `export.json` says.

    Raises:
        WbcError: Macro F1 falls by more than `MAX_FALL`, a package is missing, there is no set to check on, or an
            argument cannot be used.
    """
    if format == "onnx" and precision == "bf16":
        raise WbcError(
            "--precision bf16: ONNX Runtime has no convolution in bf16 for processors. Use int8 or fp32, or --format "
            "openvino."
        )
    _check_packages(format, precision)
    folder = fetch_model(model)
    target = _check_target(str(model), folder, format, output)
    data = _load_data(folder, dataset, precision)
    preprocessing = Preprocessing(load_processor(folder))
    graph = InferenceGraph(load_classifier(folder), preprocessing)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as temporary:
        made = Path(temporary) / format
        made.mkdir()
        crops = None
        if data is not None and precision == "int8":
            crops = _crops(data.training, preprocessing, CALIBRATION_IMAGES)
        write_graph(graph, preprocessing, made / GRAPH_FILES[format], precision, crops)
        check = None
        if data is not None:
            backend = OpenVinoBackend(made / GRAPH_FILES[format], exact=precision == "fp32")
            calibration, calibrated_on = Calibration.load(folder), 0 if crops is None else len(crops)
            check = _check(data, graph, preprocessing, backend, calibration, calibrated_on)
            _check_macro_f1(str(model), precision, check)
        export = Export(
            format=format,
            precision=precision,
            weights=digest_weights(folder),
            check=check,
            versions={name: version(name) for name in ("wbc_hf", "torch", *_packages(format, precision))},
            made=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        export.save(made)
        if output is not None:
            made = _assemble_folder(folder, made)
        if target.exists():
            # In one step each: whoever loads the model meanwhile finds the old export, none, or the new one.
            target.rename(Path(temporary) / "before")
        made.rename(target)
    return (target if output is None else target / format), export


def write_graph(
    graph: InferenceGraph,
    preprocessing: Preprocessing,
    file: Path,
    precision: Precision,
    crops: np.ndarray | None = None,
) -> None:
    """Write a graph without checking it.

    Args:
        graph: Of a model.
        preprocessing: Of its images.
        file: `.xml`, beside which the weights go into `.bin`, or `.onnx`.
        precision: bf16 is stored as float16, which is finer, and only computed in bf16.
        crops: For int8, what it is calibrated on: n of what `preprocessing` gives.
    """
    shape = preprocessing.shape
    parts = [] if crops is None else np.split(crops, range(_CALIBRATION_BATCH, len(crops), _CALIBRATION_BATCH))
    if file.suffix == ".xml":
        converted = to_openvino(graph, shape)
        if precision == "int8":
            converted = _quantise(converted, parts)
        import openvino

        openvino.save_model(converted, file, compress_to_fp16=precision != "fp32")
        return
    to_onnx(graph, shape, file)
    if precision == "int8":
        import onnx

        quantised = _quantise(onnx.load(file), [{CROP: part} for part in parts])
        onnx.save(quantised, file)


def _quantise(model: Any, inputs: list) -> Any:
    """A model of OpenVINO's or of ONNX, in int8."""
    import nncf

    nncf.set_log_level(logging.WARNING)
    # Its progress goes to standard output, which is for results.
    with contextlib.redirect_stdout(sys.stderr):
        return nncf.quantize(model, nncf.Dataset(inputs), subset_size=len(inputs))


def _packages(format: ExportFormat, precision: Precision) -> list[str]:
    onnx = ["onnx"] if format == "onnx" else []
    # nncf runs an ONNX model to see its activations.
    runtime = ["onnxruntime"] if onnx and precision == "int8" else []
    return [*onnx, *runtime, *(["nncf"] if precision == "int8" else []), "openvino"]


def _check_packages(format: ExportFormat, precision: Precision) -> None:
    missing = [name for name in _packages(format, precision) if importlib.util.find_spec(name) is None]
    if missing:
        raise WbcError(
            f"--format {format} --precision {precision}: needs {' and '.join(missing)}. Install what exporting needs: "
            "pip install 'wbc-hf[export]'"
        )


def _check_target(model: str, folder: Path, format: ExportFormat, output: Path | None) -> Path:
    """Where the finished folder goes."""
    if output is not None:
        if output.exists():
            raise WbcError(f"{output}: is there already. Give --output the name of a new folder.")
        return output.absolute()
    if not Path(model).expanduser().is_dir():
        raise WbcError(f"{model}: lies in the Hub's cache, which nothing is written to. Give --output FOLDER.")
    return folder / format


def _load_data(folder: Path, dataset: str | None, precision: Precision) -> _ExportData | None:
    """The set that was asked for, or the one of the training run; None where neither is known."""
    seed, trained_on = 0, None
    specs: str | Sequence[str] | None = dataset
    if dataset is None and (file := find_file(folder, "run.json")) is not None:
        record = read_json(file, _Run, "Give --dataset.")
        if not record.arguments.streaming:
            specs, seed, trained_on = record.arguments.dataset, record.arguments.split_seed, record.data.fingerprint
    if specs is None:
        if precision == "int8":
            raise WbcError(
                f"{folder}: has no run.json that names a stored data set, and int8 needs pictures to be calibrated "
                "and checked on. Give --dataset."
            )
        return None
    leucocytes = load_leucocytes(specs, seed=seed)
    if trained_on not in (None, leucocytes.provenance.fingerprint):
        raise WbcError(
            f"{leucocytes.provenance.spec}: holds other images, labels or splits than {folder} was trained on, so "
            "that its validation images may be among those trained on. Give --dataset with that set as it was, or "
            "with another one."
        )
    return _ExportData(leucocytes.provenance.spec, seed, leucocytes["train"], leucocytes["validation"])


def _crops(rows: Dataset, preprocessing: Preprocessing, count: int) -> np.ndarray:
    """Of images in random order, so that each batch has some of every class."""
    chosen = np.random.default_rng(_SEED).permutation(len(rows))[:count]
    return np.stack([preprocessing.crop(read_image(row["image"])) for row in rows.select(chosen)])


def _check(
    data: _ExportData,
    graph: InferenceGraph,
    preprocessing: Preprocessing,
    backend: Backend,
    calibration: Calibration | None,
    calibrated_on: int,
) -> Check:
    """Compare the model in torch fp32 and the export on the validation images."""
    names = cast("dict[int, str]", graph.model.config.id2label)
    columns = columns_of_classes([names[index] for index in range(len(names))])
    reference = TorchBackend(graph, exact=True)
    references, exported = [], []
    may_be_cell: list[bool] = []
    for rows in batches(tqdm(data.validation, desc="Checking", unit="image", delay=2, leave=False)):
        images = [read_image(row["image"]) for row in rows]
        crops = np.stack([preprocessing.crop(image) for image in images])
        references.append(reference.run(crops))
        exported.append(backend.run(crops))
        may_be_cell += map(may_be_stained_cell, images)
    before, after = _concatenate(references), _concatenate(exported)
    threshold = None
    adapted = calibration
    if calibrated_on and calibration is not None and before.features is not None and after.features is not None:
        threshold = _shift_threshold(calibration, before.features, after.features)
        adapted = replace(calibration, out_of_distribution_threshold=threshold)
    evaluations = [
        evaluate(
            data.validation["label"],
            outputs.probabilities @ columns,
            groups=data.validation["group"],
            statuses=_statuses(used, outputs, may_be_cell),
        )
        for outputs, used in ((before, calibration), (after, adapted))
    ]
    return Check(
        dataset=data.dataset,
        split_seed=data.split_seed,
        images=len(data.validation),
        calibrated_on=calibrated_on,
        before=_figures(evaluations[0]),
        after=_figures(evaluations[1]),
        agreement=float((evaluations[0].given == evaluations[1].given).mean()),
        out_of_distribution_threshold=threshold,
    )


def _statuses(calibration: Calibration | None, outputs: _Outputs, may_be_cell: list[bool]) -> list[str] | None:
    if calibration is None or outputs.features is None:
        return None
    return calibration.statuses(outputs.probabilities.max(1), calibration.distances(outputs.features), may_be_cell)


def _concatenate(parts: list[tuple[np.ndarray, np.ndarray | None]]) -> _Outputs:
    logits, features = zip(*parts, strict=True)
    return _Outputs(softmax(np.concatenate(logits), axis=1), None if features[0] is None else np.concatenate(features))


def _shift_threshold(calibration: Calibration, before: np.ndarray, after: np.ndarray) -> float:
    """Shift the out-of-distribution threshold by as much as the export shifts the scores.

    Rounding to int8 adds noise to every feature, so that all scores rise a little. The median
    ratio of an image's score after and before tells by how much, however many of the images are unfamiliar: all of
    them may be, in a set of another laboratory.

    Args:
        calibration: Of the model.
        before, after: Features of the same images, (n, d), by the model and by the export.
    """
    ratios = calibration.out_of_distribution_score(after) / calibration.out_of_distribution_score(before)
    return calibration.out_of_distribution_threshold * float(np.median(ratios))


def _figures(evaluation: Evaluation) -> ExportFigures:
    review = evaluation.metrics.get("review", {})
    return ExportFigures(evaluation.metrics["macro_f1"], review.get("coverage"), review.get("accuracy_of_accepted"))


def _check_macro_f1(model: str, precision: Precision, check: Check) -> None:
    if check.before.macro_f1 - check.after.macro_f1 > MAX_FALL:
        raise WbcError(
            f"{model}: macro F1 on the {check.images} validation images of {check.dataset} falls from "
            f"{check.before.macro_f1:.4f} to {check.after.macro_f1:.4f} in {precision}; {MAX_FALL} is allowed. "
            "Nothing was written. Give --dataset a larger set of this laboratory, or use bf16 or fp32."
        )


def _assemble_folder(folder: Path, made: Path) -> Path:
    """Make a folder with the export and everything of the model but its weights."""
    alone = made.parent / "alone"
    alone.mkdir()
    for name in _COMPANIONS:
        if (file := find_file(folder, name)) is not None:
            shutil.copyfile(file, alone / name)
    copy_notice(folder, alone)
    made.rename(alone / made.name)
    return alone


def describe_export(folder: Path, export: Export) -> str:
    """Describe an export and its check in lines for a terminal."""
    lines = [f"{export.format} {export.precision}: {folder}"]
    if export.check is None:
        return "\n".join([*lines, "Not checked: no run.json names a data set, and --dataset was not given."])
    check = export.check
    lines.append(f"{'on ' + str(check.images) + ' validation images':<34}{'fp32, torch':>12}{'exported':>12}")
    for name, what in (
        ("macro_f1", "macro F1"),
        ("confident", "share confident"),
        ("right_of_confident", "right among the confident"),
    ):
        values = [getattr(figures, name) for figures in (check.before, check.after)]
        lines.append(f"{what:<34}" + "".join(f"{'–' if value is None else f'{value:.4f}':>12}" for value in values))
    return "\n".join([*lines, f"{'same class':<46}{check.agreement:>12.4f}"])
