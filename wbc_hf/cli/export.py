"""`wbc-hf export`: write a model as OpenVINO or ONNX."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wbc_hf.safe_text import say


class Format(StrEnum):
    """File format of the exported model."""

    OPENVINO = "openvino"
    ONNX = "onnx"


class Precision(StrEnum):
    """Number format of its computations."""

    INT8 = "int8"
    BF16 = "bf16"
    FP32 = "fp32"


def export(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.")],
    format: Annotated[Format, typer.Option(help="File format.")] = Format.OPENVINO,
    precision: Annotated[Precision, typer.Option(help="int8 is fastest; bf16 needs OpenVINO.")] = Precision.INT8,
    dataset: Annotated[
        str | None,
        typer.Option(help="Data set to calibrate int8 and to check on; by default that of the training run."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="New folder for the export alone, without the model's weights.")
    ] = None,
) -> None:
    """Export a model to OpenVINO or ONNX after a check on validation images.

    The page and every command use the export in a model's folder, OpenVINO's before ONNX's. An export is refused
    where macro F1 falls by more than half a point. int8 and ONNX need the package's extra `export`.

        wbc-hf export runs/cells --precision int8
    """
    from transformers.utils.logging import disable_progress_bar

    from wbc_hf.inference import describe_export, export_model

    disable_progress_bar()
    folder, exported = export_model(model, format.value, precision.value, dataset=dataset, output=output)
    say(describe_export(folder, exported))
