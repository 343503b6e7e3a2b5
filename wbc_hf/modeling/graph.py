"""A model as one graph, from crops to logits and features, and its conversion to OpenVINO and ONNX.

The processor's normalisation is part of the graph, so every runtime takes crops as `Preprocessing` makes them.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from transformers import PreTrainedModel, ResNetForImageClassification

from wbc_hf.errors import needs_extra
from wbc_hf.modeling.finder_boxes import MULTIPLE
from wbc_hf.modeling.finder_network import FinderNetwork
from wbc_hf.modeling.graph_names import CROP, FEATURES, LOGITS
from wbc_hf.modeling.normalising import Normalise
from wbc_hf.modeling.preprocessing import Preprocessing

if TYPE_CHECKING:
    import openvino

_OPSET = 17
_LOSS = "ForImageClassification"


class InferenceGraph(torch.nn.Module):
    """Crops in, logits and, for a ResNet, features out.

    Attributes:
        model: Any image classifier.
        outputs: Names of what comes out.
    """

    def __init__(self, model: PreTrainedModel, preprocessing: Preprocessing):
        super().__init__()
        self.model = model
        for part in model.modules():
            # Tracing looks at every attribute, and transformers warns where a part without a loss is asked for it.
            if isinstance(part, PreTrainedModel) and part.loss_type is None:
                part.loss_type = _LOSS
        self.outputs = (LOGITS, FEATURES) if isinstance(model, ResNetForImageClassification) else (LOGITS,)
        self.normalise = None if preprocessing.mean is None else Normalise(preprocessing.processor)

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model on n crops as `Preprocessing.crop` makes them.

        Returns:
            Logits, float32 (n, classes), and for a ResNet the features of `forward_with_features`, float32 (n, d).
        """
        pixels = crops if self.normalise is None else self.normalise(crops.permute(0, 3, 1, 2))
        if FEATURES in self.outputs:
            return forward_with_features(cast(ResNetForImageClassification, self.model), pixels)
        return (_as_float32(self.model(pixels).logits),)


def forward_with_features(
    model: ResNetForImageClassification, pixel_values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and features for the out-of-distribution score: channel means after stages 2, 3 and 4.

    Late stages tell classes apart, earlier ones texture and stain; foreign images differ in either. Each stage's means
    are scaled to length 1 / sqrt(3), so that none outweighs the others.

    Returns:
        float32 (n, classes) and float32 (n, channels of the three stages together).
    """
    outputs = model.resnet(pixel_values, output_hidden_states=True)
    stages = [torch.nn.functional.normalize(stage.float().mean((2, 3))) for stage in outputs.hidden_states[-3:]]
    return _as_float32(model.classifier(outputs.pooler_output)), torch.cat(stages, 1) / len(stages) ** 0.5


def _as_float32(values: torch.Tensor) -> torch.Tensor:
    # In a traced graph even a cast without effect is an operation.
    return values if values.dtype == torch.float32 else values.float()


def to_openvino(graph: InferenceGraph, crop_shape: tuple[int, ...]) -> "openvino.Model":
    """Convert the graph for OpenVINO, for any number of crops of one shape. It shares its weights with the model."""
    converted = _convert(graph, _example(graph, crop_shape), [-1, *crop_shape])
    converted.inputs[0].get_tensor().set_names({CROP})
    for output, name in zip(converted.outputs, graph.outputs, strict=True):
        output.get_tensor().set_names({name})
    return converted


def finder_to_openvino(network: FinderNetwork) -> "openvino.Model":
    """Convert a finder's network for OpenVINO: one photograph at a time, uint8 (1, 3, height, width) of any size."""
    return _convert(network, torch.zeros((1, 3, 4 * MULTIPLE, 6 * MULTIPLE), dtype=torch.uint8), [1, 3, -1, -1])


def _convert(network: torch.nn.Module, example: torch.Tensor, shape: list[int]) -> "openvino.Model":
    """Convert a network for OpenVINO, for inputs of a shape in which -1 is any number."""
    with needs_extra("openvino"):
        import openvino

    # Traced here: OpenVINO would trace twice to compare, which takes as long as all the rest.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network.eval(), example, check_trace=False)
        return openvino.convert_model(traced, example_input=example, input=shape)


def to_onnx(graph: InferenceGraph, crop_shape: tuple[int, ...], file: Path) -> None:
    """Write the graph as ONNX, for any number of crops of one shape."""
    with torch.no_grad(), warnings.catch_warnings():
        # It warns that it is the older of two exporters; the other needs one more package and gives the same results.
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


def _example(graph: InferenceGraph, crop_shape: tuple[int, ...]) -> torch.Tensor:
    # Two: a batch of one may be taken for a shape that is always one.
    return torch.zeros((2, *crop_shape), dtype=torch.float32 if graph.normalise is None else torch.uint8)
