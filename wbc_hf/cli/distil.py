"""`wbc-hf distil`: a small student that learns the predictions of a fine-tuned model."""

from typing import Annotated

import typer

from wbc_hf.cli.train import run_training
from wbc_hf.default_model import DEFAULT_MODEL_FOLDER
from wbc_hf.errors import WbcError

# What a student has other than a run of `wbc-hf train`; words that follow win.
_DEFAULTS = (
    f"--model={DEFAULT_MODEL_FOLDER}",
    "--image_size=112",
    "--num_train_epochs=60",
    "--label_smoothing_factor=0",
    "--output_dir=runs/student",
)


def distil(
    context: typer.Context,
    teacher: Annotated[str, typer.Argument(help="Folder or Hub id of a fine-tuned ResNet.")],
    dataset: Annotated[str, typer.Argument(help="Labelled images, best the teacher's own; or several sets.")],
) -> None:
    """Distil a fine-tuned model into a student: a smaller and faster network that learns its predictions.

    The student sees the same augmented views as its teacher, of labelled
    images and of cells without labels. It is refused where macro F1 on
    validation falls by more than half a point, and is an ordinary model.

        wbc-hf distil runs/cells cells/ --unlabelled more-cells/ --output_dir runs/student

    All arguments of `wbc-hf train` may follow. By default the student starts
    from the model that comes with the package, half as wide as ResNet-50.
    --model is another start; --from_scratch --width 0.25 is half of that.
    --resume goes on where it was stopped.
    """
    if teacher.startswith("-") or dataset.startswith("-"):
        raise WbcError("wbc-hf distil TEACHER DATASET: these come first, then the arguments of `wbc-hf train`.")
    run_training([*_DEFAULTS, f"--teacher={teacher}", "--dataset", dataset, *context.args])
