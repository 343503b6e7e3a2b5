"""A model as one graph, from the crop of a picture to logits and features, and what it is converted into.

Mean and deviation of the processor are part of the graph. Whoever runs it, with torch, OpenVINO or ONNX Runtime, feeds
crops as `Preprocessing` makes them and cannot get the arithmetic wrong.
"""

import warnings
from pathlib import Path

import openvino
import torch
from transformers import PreTrainedModel, ResNetForImageClassification

from wbc_hf.modeling.calibration import look, single
from wbc_hf.modeling.preprocessing import Preprocessing

CROP, LOGITS, FEATURES = "crop", "logits", "features"
_OPSET = 17


class AnswerGraph(torch.nn.Module):
    """Crops in, logits and, of a ResNet, features out.

    Attributes:
        model: Any image classifier.
        outputs: Names of what comes out.
    """

    def __init__(self, model: PreTrainedModel, preparation: Preprocessing):
        super().__init__()
        self.model = model
        self.outputs = (LOGITS, FEATURES) if isinstance(model, ResNetForImageClassification) else (LOGITS,)
        self.takes_bytes = preparation.mean is not None
        if self.takes_bytes:
            for name, values in (("mean", preparation.mean), ("deviation", preparation.deviation)):
                self.register_buffer(name, torch.from_numpy(values)[:, None, None], persistent=False)

    def pixels(self, crops: torch.Tensor) -> torch.Tensor:
        """What the network gets of crops: float32 (n, 3, height, width)."""
        return (crops.permute(0, 3, 1, 2).float() - self.mean) / self.deviation if self.takes_bytes else crops

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits, float32 (n, classes), and of a ResNet what `look` gives besides, float32 (n, d).

        Args:
            crops: n of what `Preprocessing.crop` gives.
        """
        if FEATURES in self.outputs:
            return look(self.model, self.pixels(crops))
        return (single(self.model(self.pixels(crops)).logits),)


def to_openvino(graph: AnswerGraph, crop_shape: tuple[int, int, int]) -> openvino.Model:
    """The graph for OpenVINO, for any number of crops of one shape. It shares its weights with the model."""
    # Traced here: OpenVINO would trace twice to compare, which takes as long as all the rest.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(graph.eval(), _example(graph, crop_shape), check_trace=False)
        converted = openvino.convert_model(traced, example_input=_example(graph, crop_shape), input=[-1, *crop_shape])
    converted.inputs[0].get_tensor().set_names({CROP})
    for output, name in zip(converted.outputs, graph.outputs, strict=True):
        output.get_tensor().set_names({name})
    return converted


def to_onnx(graph: AnswerGraph, crop_shape: tuple[int, int, int], file: Path) -> None:
    """Write the graph as ONNX, for any number of crops of one shape."""
    with torch.no_grad(), warnings.catch_warnings():
        # That this exporter is the older one of two; the other needs a package more and gives the same answers.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            (_example(graph, crop_shape),),
            file,
            dynamo=False,
            opset_version=_OPSET,
            input_names=[CROP],
            output_names=list(graph.outputs),
            dynamic_axes={name: {0: "n"} for name in (CROP, *graph.outputs)},
        )


def _example(graph: AnswerGraph, crop_shape: tuple[int, int, int]) -> torch.Tensor:
    # Two: a batch of one may be taken for a shape that is always one.
    return torch.zeros((2, *crop_shape), dtype=torch.uint8 if graph.takes_bytes else torch.float32)
