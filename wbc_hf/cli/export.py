"""`wbc-hf export`: write a model as OpenVINO or ONNX."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wbc_hf.safe_text import say


def export(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.")],
    format: Annotated[Literal["openvino", "onnx"], typer.Option(help="File format.")] = "openvino",
    precision: Annotated[
        Literal["int8", "bf16", "fp32"], typer.Option(help="int8 is fastest; bf16 needs OpenVINO.")
    ] = "int8",
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
    folder, exported = export_model(model, format, precision, dataset=dataset, output=output)
    say(describe_export(folder, exported))
