"""The pretrained network that is made from a published one, and training from it."""

import zipfile
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image
from transformers import ResNetConfig, ResNetModel

import train
from tests.conftest import Command
from tests.scripts import script
from wbc_hf.data import paint_cells
from wbc_hf.default_model import DEFAULT_MODEL_FOLDER
from wbc_hf.hub import NOTICE_FILE
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import build_from_pretrained, build_processor

MAKER = script("models/make_backbone.py")
SMALL = ResNetConfig(
    embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[2, 1, 1, 1], downsample_in_bottleneck=True
)


def published(network: ResNetModel) -> onnx.ModelProto:
    """A graph of the network's convolutions alone, with random biases, in the order in which they are computed."""
    nodes, values = [], []
    for number, layer in enumerate(MAKER.layers_of(network)):
        weight = layer.convolution.weight.detach()
        for name, value in ((f"w{number}", weight), (f"b{number}", torch.randn(len(weight)) / 4)):
            values.append(numpy_helper.from_array(value.numpy(), name))
        nodes.append(helper.make_node("Conv", [f"x{number}", f"w{number}", f"b{number}"], [f"x{number + 1}"]))
    return helper.make_model(helper.make_graph(nodes, "trunk", [], [], values))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> tuple[ResNetModel, onnx.ModelProto]:
    monkeypatch.setattr(MAKER, "CONFIG", SMALL)
    original = ResNetModel(SMALL).eval()
    return original, published(original)


def save(network: ResNetModel, folder: Path, *, notice: bool = True) -> Path:
    network.save_pretrained(folder)
    build_processor(32).save_pretrained(folder)
    if notice:
        (folder / NOTICE_FILE).write_text("Copyright of somebody", encoding="utf-8")
    return folder


def test_red_and_blue_change_places_and_the_scale_is_folded_in(small: tuple[ResNetModel, onnx.ModelProto]):
    _, model = small
    network, processor = MAKER.build_backbone(model, 32)
    weight, bias = next(MAKER.convolutions_of(model))
    pixels = torch.rand(2, 3, 32, 32) * 255
    bgr = pixels.flip(1) - torch.tensor(MAKER.BGR_MEAN).view(1, 3, 1, 1)
    expected = torch.relu(torch.nn.functional.conv2d(bgr, weight, bias, stride=2, padding=3))
    embedder = network.embedder.embedder
    with torch.no_grad():
        found = embedder(MAKER.Normalise(processor)(pixels / 255))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))


def test_unfolding_changes_no_answer_and_centres_training(small: tuple[ResNetModel, onnx.ModelProto]):
    network, _ = MAKER.build_backbone(small[1], 32)
    images = torch.randn(24, 3, 32, 32)
    with torch.no_grad():
        before = network(images).pooler_output
        MAKER.unfold_batch_norm(network, images)
        after = network(images).pooler_output
        in_training = network.train()(images).pooler_output
    scale = float(before.abs().max())
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4 * scale)
    torch.testing.assert_close(in_training, before, rtol=0, atol=1e-2 * scale)


def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as wheel:
        wheel.writestr(MAKER.ONNX_FILE, b"something else")
    with pytest.raises(SystemExit, match="the SHA-256 of"):
        MAKER.read_onnx(tmp_path / "other.whl")


def test_cells_are_painted_where_no_folder_is_given():
    cells = MAKER.cells_to_measure(None, 32)
    assert cells.shape == (MAKER.CELLS, 3, 32, 32)
    assert cells.dtype == torch.uint8


def test_a_trunk_without_a_head_gets_one_for_the_five_types(tmp_path: Path):
    original = ResNetModel(SMALL)
    network, processor = build_from_pretrained(save(original, tmp_path / "backbone"), image_size=48)
    assert [network.config.id2label[index] for index in range(5)] == list(CLASS_NAMES)
    assert network.classifier[-1].out_features == len(CLASS_NAMES)
    assert processor.size == {"shortest_edge": 48}
    for name, value in original.named_parameters():
        assert torch.equal(network.resnet.get_parameter(name), value)


@pytest.mark.long
@pytest.mark.usefixtures("undrawn")
def test_the_notice_of_the_weights_goes_with_what_derives_from_them(command: Command, tmp_path: Path):
    backbone = save(ResNetModel(SMALL), tmp_path / "backbone")
    train.main(command(tmp_path / "run", model=backbone, num_train_epochs=1))
    assert (tmp_path / "run" / NOTICE_FILE).read_bytes() == (backbone / NOTICE_FILE).read_bytes()
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "whose licence is in `NOTICE`" in card
    assert str(tmp_path) not in card


def test_without_a_hub_the_error_names_what_can_be_started_from(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit):
        train.main([word for word in command(tmp_path / "run") if not word.startswith("--model=")])
    message = capsys.readouterr().err
    assert f"--model {DEFAULT_MODEL_FOLDER}, the model that ships, or --from_scratch" in message


def test_cells_at_the_size_that_is_asked_for(tmp_path: Path):
    for index, cell in enumerate(paint_cells([0, 1, 2], size=40, seed=0)):
        Image.fromarray(cell).save(tmp_path / f"{index}.png")
    assert MAKER.cells_to_measure(tmp_path, 24).shape == (3, 3, 24, 24)
