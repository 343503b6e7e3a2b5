"""Model folders of strangers: a small model in which one thing is broken, odd or hostile."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from transformers import ResNetConfig, ResNetForImageClassification

from wbc_hf.adaptation import SCORES, Adaptation, Scores
from wbc_hf.evaluation import evaluate
from wbc_hf.files import write_json
from wbc_hf.inference import Predictor
from wbc_hf.inference.exporting import write_graph
from wbc_hf.labels import CLASS_NAMES
from wbc_hf.modeling import (
    Calibration,
    Export,
    InferenceGraph,
    LaboratoryDistance,
    OutOfDistributionScore,
    Preprocessing,
    build_processor,
    digest_weights,
)

FEATURES = 4 + 8 + 8
LARGE = 5 * 1024**2  # bytes of a text that is too large
NAN, INFINITY = float("nan"), float("inf")

Change = Callable[[Path], None]


@dataclass(frozen=True)
class HostileModel:
    """One kind of hostile folder.

    Attributes:
        name: Of the kind.
        file: Relative to the folder; what the error has to name.
        change: Makes it of a whole folder.
    """

    name: str
    file: str
    change: Change


def tiny_resnet(seed: int = 0) -> ResNetForImageClassification:
    """An untrained network of the five classes with 20 features."""
    torch.manual_seed(seed)
    config = ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 4, 8, 8],
        depths=[1, 1, 1, 1],
        id2label=dict(enumerate(CLASS_NAMES)),
        label2id={name: index for index, name in enumerate(CLASS_NAMES)},
    )
    return ResNetForImageClassification(config).eval()


def write_model(folder: Path) -> None:
    """Write a whole model folder: weights, processor, calibration, report, adaptation, card and an export."""
    network, processor = tiny_resnet(), build_processor(32)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    generator = np.random.default_rng(0)
    components = np.linalg.qr(generator.normal(size=(FEATURES, 4)))[0].astype(np.float32)
    score = OutOfDistributionScore(
        np.zeros(FEATURES, np.float32), components, generator.normal(size=(12, 4)).astype(np.float32) / 4
    )
    Calibration(
        temperature=1.5,
        review_threshold=0.5,
        target_reached=True,
        out_of_distribution_threshold=0.5,
        fitted_on=60,
        trained_on="cells",
        out_of_distribution_score=score,
        left_out=("North",),
        laboratory_distance=LaboratoryDistance(np.repeat(np.array([0, 1], np.int8), 6), (0.1, 0.2), 1.5),
        spans=(1.5,),
    ).save(folder)
    labels = np.arange(40) % 5
    probabilities = 0.6 * np.eye(5)[labels] + 0.08
    metrics = evaluate(labels, probabilities, statuses=["confident"] * 40).metrics
    write_json(folder / "metrics.json", metrics | {"unseen": {"North": metrics}})
    scores = Scores(0.5, 0.5, 0.5, dict.fromkeys(SCORES), dict.fromkeys(CLASS_NAMES))
    adaptation = Adaptation(
        *("cells", "0123456789ab", "wbc_hf 1", "2026-11-29", 0, 40, 0, 0, 0.9, True),
        labelled=dict.fromkeys(CLASS_NAMES, 8),
        held_back=40,
        folds=4,
        scores_before=scores,
        scores_after=scores,
    )
    write_json(folder / "adaptation.json", asdict(adaptation))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# A model\n", encoding="utf-8")
    preprocessing = Preprocessing(processor)
    (folder / "openvino").mkdir()
    write_graph(InferenceGraph(network, preprocessing), preprocessing, folder / "openvino" / "model.xml", "fp32")
    digest = digest_weights(folder)
    Export("openvino", "fp32", digest, None, {"torch": torch.__version__}, "2026-11-29").save(folder / "openvino")


def hostile_models() -> list[HostileModel]:
    """All kinds; each name once."""
    return [*_spoilt_files(), *_values(), *_arrays(), *_weights(), *_graphs(), *_cards()]


# ---- whole files

TEXTS = (
    "config.json",
    "preprocessor_config.json",
    "wbc.json",
    "metrics.json",
    "adaptation.json",
    "openvino/export.json",
)
OTHERS = ("model.safetensors", "README.md", "wbc.safetensors", "openvino/model.xml", "openvino/model.bin")
NEEDED = ("config.json", "preprocessor_config.json", "wbc.safetensors", "openvino/model.xml", "openvino/model.bin")
_CONTENTS = {
    "is empty": b"",
    "is null": b"null",
    "is a number": b"5",
    "is a list": b"[]",
    "is an open brace": b"{",
    "is no text": bytes(range(256)),
    "is in UTF-16": "{}".encode("utf-16"),
    "is in Latin-1": '{"model_type": "zürich"}'.encode("latin-1"),
    "is too large": b" " * LARGE + b"{}",
    "is nested deeply": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "is an empty object": b"{}",
}
# Others publish files of this name.
_ALLOWED = {("metrics.json", content) for content in ("is null", "is a number", "is a list", "is an empty object")}


def _spoilt_files() -> Iterator[HostileModel]:
    for file in TEXTS:
        for what, content in _CONTENTS.items():
            if (file, what) not in _ALLOWED:
                yield HostileModel(f"{file} {what}", file, _writing(file, content))
    for file in (*TEXTS, *OTHERS):
        yield HostileModel(f"{file} is a folder", file, _replacing(file, lambda path: path.mkdir()))
        yield HostileModel(f"{file} leads out", file, _leading_out(file))
        yield HostileModel(f"{file} leads nowhere", file, _replacing(file, lambda path: path.symlink_to("nowhere")))
        yield HostileModel(f"{file} leads to itself", file, _replacing(file, lambda path: path.symlink_to(path)))
        yield HostileModel(f"{file} is a pipe", file, _replacing(file, os.mkfifo))
    for file in NEEDED:
        yield HostileModel(f"{file} is missing", file, lambda folder, file=file: (folder / file).unlink())


def _writing(file: str, content: bytes) -> Change:
    return lambda folder: _overwrite(folder / file, content)


def _overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _replacing(file: str, make: Callable[[Path], object]) -> Change:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        make(folder / file)

    return change


def _leading_out(file: str) -> Change:
    def change(folder: Path) -> None:
        outside = folder.parent / "outside"
        outside.mkdir(exist_ok=True)
        (folder / file).rename(outside / Path(file).name)
        (folder / file).symlink_to(outside / Path(file).name)

    return change


# ---- single values

_NO_SHARES = (-0.5, 1.5, NAN, INFINITY, "0.5")
_VALUES: dict[str, dict[str, tuple]] = {
    "config.json": {
        "model_type": (5, None, "evil", "../../evil", "r" * 1000, "resnet\x07"),
        "num_channels": (0, 4, -3, 10**9, "3"),
        "embedding_size": (0, -1, 10**6, 10**30, 4.5, "64", NAN, True),
        "hidden_sizes": ([], [0] * 4, [10**6] * 4, "abc", [4] * 3, [2] * 4, 5, [NAN] * 4, [4, 4, 8, 16]),
        "depths": ([10**6, 1, 1, 1], [0] * 4, [-1] * 4, [], [1] * 9, "3463", [1.5] * 4, [100] * 4, [1, 1, 1, 2]),
        "layer_type": ("evil", 3),
        "hidden_act": ("evil", 4, "__class__", ""),
        "downsample_in_first_stage": ("yes", 1),
        "downsample_in_bottleneck": ("yes", 1),
        "id2label": (
            {},
            {"0": "a"},
            {"0": "a", "2": "b"},
            {"-1": "a", "0": "b"},
            {"x": "a", "y": "b"},
            ["a", "b"],
            {"0": 1, "1": 2},
            {"0": "", "1": "b"},
            {"0": "a" * 1_000_000, "1": "b"},
            {"0": "a\x1b[31m", "1": "b"},
            {"0": "\ud800", "1": "b"},
            {str(index): str(index) for index in range(30_000)},
            {str(index): str(index) for index in range(7)},
            dict.fromkeys("01234", "neutrophil"),
        ),
    },
    "preprocessor_config.json": {
        "image_processor_type": (5, "Evil", "../Evil", "ViTImageProcessor", "e" * 1000),
        "size": (20_000, 0, -1, {"shortest_edge": 20_000}, {"height": 32, "width": 32}, {}, [], "224", NAN, 1e999),
        "crop_pct": (0, 1e-9, 2, -1, NAN, "0.875"),
        "image_mean": ([NAN] * 3, [0.5] * 2, "x", [1e30] * 3, [None] * 3, [INFINITY] * 3),
        "image_std": ([0] * 3, [-1] * 3, [NAN] * 3, [1e-30] * 3, [0.5] * 4),
        "rescale_factor": (0, -1, 1e30, NAN, "1"),
        "resample": (99, -1, "bicubic", 1.5),
        "do_resize": (False, "yes"),
        "do_center_crop": (True,),
        "do_normalize": ("yes", 1),
    },
    "wbc.json": {
        "format": (99, "1", None, NAN),
        "temperature": (0, -1, NAN, INFINITY, "1", None),
        "review_threshold": (*_NO_SHARES, None),
        "tta_below": _NO_SHARES,
        "tta_threshold": _NO_SHARES,
        "tta_distance": _NO_SHARES,
        "target_reached": ("yes", 1),
        "out_of_distribution_threshold": (0, -1, NAN, INFINITY, -INFINITY, 1e9, "1"),
        "fitted_on": (-1, 0, 1.5, "60"),
        "trained_on": (5, None, "c\x1b[31m", "\ud800", "c" * 1_000_000),
        "left_out": ("North", [5], ["\x07"], ["North"] * 1000),
        "spans": ([0], [1e9], [NAN], [-1], "1.5", [1.5] * 1000),
        "laboratory_scales": ([0, 1], [], [NAN, 1], [0.1] * 3, [0.1], "x", None),
        "laboratory_limit": (NAN, -1, INFINITY, None),
        "evil": (1,),
    },
    "openvino/export.json": {
        "export_format": (99, "1", None),
        "format": ("onnx", "evil", 5, None),
        "precision": ("int4", 8),
        "weights": ("", 5, "0" * 63, None),
        "check": (5, {}, {"images": NAN}),
        "versions": ([], {"torch": 2}, None),
        "made": (5, "c" * 1_000_000),
        "evil": (1,),
    },
    "metrics.json": {
        "count": (-1, NAN, "40", 1.5),
        "accuracy": _NO_SHARES,
        "macro_f1": _NO_SHARES,
        "roc_auc": (NAN, INFINITY),
        "per_class": ({"basophil": {}}, [], {"basophil": {"precision": 1, "recall": 1, "f1": 1, "support": 9}}),
        "intervals": ({}, []),
        "review": ({}, {"coverage": 2}, 5),
        "unseen": ({"North": {}}, [], {"North": 5}),
    },
    "adaptation.json": {
        "model": (5, None),
        "cells": (-1, NAN, "40", 1.5),
        "review_threshold": _NO_SHARES,
        "made": (5,),
        "labelled": ({"basophil": -1}, [], None, {"blast": 8}),
        "scores_before": ({}, 5, None),
        "scores_after": ({"accuracy": NAN}, "x"),
        "remarks": (5, "x"),
        "evil": (1,),
    },
}


def _values() -> Iterator[HostileModel]:
    for file, keys in _VALUES.items():
        for key, values in keys.items():
            for number, value in enumerate(values):
                yield HostileModel(f"{file} {key} {number}", file, _setting(file, key, value))


def _setting(file: str, key: str, value: object) -> Change:
    def change(folder: Path) -> None:
        content: dict[str, Any] = json.loads((folder / file).read_text(encoding="utf-8"))
        if value is None:
            del content[key]
        else:
            content[key] = value
        # As ASCII: a lone surrogate is a legal escape in JSON.
        (folder / file).write_text(json.dumps(content), encoding="ascii")

    return change


# ---- arrays of the calibration


def _arrays() -> Iterator[HostileModel]:
    file = "wbc.safetensors"

    def with_arrays(change: Callable[[dict[str, np.ndarray]], object]) -> Change:
        def write(folder: Path) -> None:
            from safetensors.numpy import load_file as load_arrays

            arrays = load_arrays(folder / file)
            change(arrays)
            save_arrays({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / file)

        return write

    for name in ("mean", "components", "references"):
        for what, value in (("NaN", NAN), ("infinite", INFINITY), ("huge", 60_000.0)):
            yield HostileModel(f"{file} {name} {what}", file, with_arrays(lambda a, n=name, v=value: a[n].fill(v)))
        yield HostileModel(f"{file} {name} missing", file, with_arrays(lambda a, n=name: a.pop(n)))
        yield HostileModel(
            f"{file} {name} whole numbers", file, with_arrays(lambda a, n=name: a.update({n: a[n].astype(np.int32)}))
        )
        yield HostileModel(f"{file} {name} flat", file, with_arrays(lambda a, n=name: a.update({n: a[n][None]})))
        yield HostileModel(f"{file} {name} empty", file, with_arrays(lambda a, n=name: a.update({n: a[n][:0]})))
    yield HostileModel(f"{file} components zero", file, with_arrays(lambda a: a["components"].fill(0)))
    yield HostileModel(
        f"{file} components short", file, with_arrays(lambda a: a.update(components=a["components"] / 9))
    )
    yield HostileModel(
        f"{file} references narrow", file, with_arrays(lambda a: a.update(references=a["references"][:, :2]))
    )
    yield HostileModel(
        "wbc.safetensors of another network",
        "",
        with_arrays(lambda a: a.update(mean=np.zeros(6, np.float32), components=np.eye(6, 4, dtype=np.float32))),
    )
    members = {
        "short": np.zeros(3, np.int8),
        "out of range": np.full(12, 9, np.int8),
        "negative": np.full(12, -7, np.int8),
        "of one": np.zeros(12, np.int8),
        "fractions": np.zeros(12, np.float32),
    }
    for what, value in members.items():
        yield HostileModel(
            f"{file} laboratories {what}", file, with_arrays(lambda a, v=value: a.update(laboratories=v))
        )
    yield HostileModel(f"{file} laboratories missing", file, with_arrays(lambda a: a.pop("laboratories")))
    yield from _spoilt_safetensors(file)


def _spoilt_safetensors(file: str) -> Iterator[HostileModel]:
    yield HostileModel(f"{file} is empty", file, _writing(file, b""))
    yield HostileModel(f"{file} is text", file, _writing(file, b"pickle me" * 100))
    yield HostileModel(f"{file} has an endless header", file, _writing(file, b"\xff" * 8 + b"{}"))
    yield HostileModel(f"{file} has a broken header", file, _writing(file, (2).to_bytes(8, "little") + b"{["))
    tensor = {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}
    header = json.dumps({"mean": tensor}).encode()
    content = len(header).to_bytes(8, "little") + header + b"\0" * 4
    yield HostileModel(f"{file} claims a size", file, _writing(file, content))
    yield HostileModel(
        f"{file} is cut short", file, lambda folder: os.truncate(folder / file, (folder / file).stat().st_size - 8)
    )


# ---- weights


def _weights() -> Iterator[HostileModel]:
    file, index = "model.safetensors", "model.safetensors.index.json"

    def with_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
        def write(folder: Path) -> None:
            tensors = load_file(folder / file)
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
            change(tensors)
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file)

        return write

    def with_index(weight_map: object, *, shard: str | None = None) -> Change:
        def write(folder: Path) -> None:
            if shard is not None:
                (folder / file).rename(folder / shard)
            else:
                (folder / file).unlink()
            (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

        return write

    head, kernel = "classifier.1.weight", "resnet.embedder.embedder.convolution.weight"
    variance = "resnet.embedder.embedder.normalization.running_var"
    for name in (head, kernel, variance):
        for what, value in (("NaN", NAN), ("infinite", INFINITY)):
            yield HostileModel(f"{name} {what}", file, with_weights(lambda t, n=name, v=value: t[n].fill_(v)))
        yield HostileModel(f"{name} missing", "", with_weights(lambda t, n=name: t.pop(n)))
        yield HostileModel(f"{name} of another shape", "", with_weights(lambda t, n=name: t.update({n: t[n][:1]})))
    yield HostileModel("a negative variance", file, with_weights(lambda t: t[variance].fill_(-1)))
    yield HostileModel(
        "weights that overflow", "", with_weights(lambda t: [t[n].fill_(3e38) for n in t if "weight" in n])
    )
    yield HostileModel(
        "no head", "", with_weights(lambda t: [t.pop(name) for name in list(t) if name.startswith("classifier")])
    )

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[f"evil.{name}"] = tensors.pop(name)

    yield HostileModel("all tensors renamed", "", with_weights(rename))
    yield HostileModel(
        "a name that clears a screen", file, with_weights(lambda t: t.update({"a\x1b[2J": t[head].clone()}))
    )
    yield HostileModel("no tensors", "", with_weights(lambda t: t.clear()))
    yield HostileModel("no weights", "", lambda folder: (folder / file).unlink())
    yield HostileModel("a pickle alone", "", lambda folder: (folder / file).rename(folder / "pytorch_model.bin"))
    yield HostileModel("weights of 100 GB", "", lambda folder: os.truncate(folder / file, 100 * 10**9))
    yield from _spoilt_safetensors(file)
    places = (
        "../../outside.safetensors",
        "/etc/passwd",
        "..",
        "a/b.safetensors",
        "C:\\w.safetensors",
        "weights.bin",
        "",
    )
    for number, place in enumerate((*places, "missing.safetensors", "a\0.safetensors")):
        yield HostileModel(f"an index names place {number}", index, with_index({head: place}))
    for number, content in enumerate(({}, [], 5, {head: 5}, None, {head: ["model.safetensors"]})):
        yield HostileModel(f"an index is odd {number}", index, with_index(content))
    yield HostileModel("an index is no JSON", index, lambda f: ((f / file).unlink(), (f / index).write_text("{")))

    def twice(folder: Path) -> None:
        for number in (1, 2):
            save_file(load_file(folder / file), folder / f"model-0000{number}-of-00002.safetensors")
        with_index({head: "model-00001-of-00002.safetensors", kernel: "model-00002-of-00002.safetensors"})(folder)

    yield HostileModel("two shards hold the same", "model-00002-of-00002.safetensors", twice)

    def outside(folder: Path) -> None:
        with_index({head: "model-00001-of-00001.safetensors"}, shard="model-00001-of-00001.safetensors")(folder)
        _leading_out("model-00001-of-00001.safetensors")(folder)

    yield HostileModel("a shard leads out", "model-00001-of-00001.safetensors", outside)


# ---- graphs of the export


def _graphs() -> Iterator[HostileModel]:
    xml = "openvino/model.xml"
    yield HostileModel(f"{xml} is empty", xml, _writing(xml, b""))
    yield HostileModel(f"{xml} is text", xml, _writing(xml, b"pickle me"))
    yield HostileModel(f"{xml} is too large", xml, lambda folder: os.truncate(folder / xml, 10**9))
    entities = "".join(f'<!ENTITY a{number + 1} "{10 * ("&a" + str(number) + ";")}">' for number in range(12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a0 "{"a" * 10}">{entities}]><net>&a12;</net>'
    yield HostileModel(f"{xml} is a bomb", xml, _writing(xml, bomb.encode()))
    yield HostileModel(
        "openvino/model.bin is cut short", xml, lambda folder: os.truncate(folder / "openvino" / "model.bin", 8)
    )
    onnx = "onnx/model.onnx"
    yield HostileModel(f"{onnx} is empty", onnx, _with_onnx(lambda folder: _overwrite(folder / onnx, b"")))
    yield HostileModel(f"{onnx} is text", onnx, _with_onnx(lambda folder: _overwrite(folder / onnx, b"pickle me")))
    yield HostileModel(f"{onnx} is too large", onnx, _with_onnx(lambda folder: os.truncate(folder / onnx, 10**10)))
    places = (
        "model.onnx.data",
        "../../outside.data",
        "../openvino/model.bin",
        "/etc/passwd",
        "/dev/zero",
        "link.data",
    )
    for number, place in enumerate(places):
        yield HostileModel(f"{onnx} has its weights in place {number}", onnx, _with_external_data(place))


@cache
def _onnx_graph() -> bytes:
    preprocessing = Preprocessing(build_processor(32))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        write_graph(InferenceGraph(tiny_resnet(), preprocessing), preprocessing, file, "fp32")
        return file.read_bytes()


def write_onnx(folder: Path, place: str | None = None) -> None:
    """Replace a model's export by one in ONNX; it names `place` as the file of its weights."""
    import onnx

    exported = folder / "onnx"
    (folder / "openvino").rename(exported)
    for name in ("model.xml", "model.bin"):
        (exported / name).unlink()
    (exported / "model.onnx").write_bytes(_onnx_graph())
    export = json.loads((exported / "export.json").read_text()) | {"format": "onnx"}
    (exported / "export.json").write_text(json.dumps(export))
    if place is None:
        return
    model = onnx.load(exported / "model.onnx")
    onnx.save(
        model, exported / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=16
    )
    write_place(exported / "model.onnx", place)


def write_place(file: Path, place: str) -> None:
    """Let an ONNX file with external data name another place of it."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place
    file.write_bytes(model.SerializeToString())


def _with_onnx(change: Change) -> Change:
    def write(folder: Path) -> None:
        write_onnx(folder)
        change(folder)

    return write


def _with_external_data(place: str) -> Change:
    def write(folder: Path) -> None:
        write_onnx(folder, place)
        outside = folder.parent / "outside.data"
        shutil.copyfile(folder / "onnx" / "model.onnx.data", outside)
        (folder / "onnx" / "link.data").symlink_to(outside)

    return write


# ---- the card


def _cards() -> Iterator[HostileModel]:
    file = "README.md"
    yield HostileModel("a card in Latin-1", file, _writing(file, "# Zürich".encode("latin-1")))
    yield HostileModel("a card in UTF-16", file, _writing(file, "# Zürich".encode("utf-16")))
    yield HostileModel("a card of 5 MB", file, _writing(file, b"a" * LARGE))


def use_model(folder: Path, backend: str) -> None:
    """Do what the page does with a model: load it, answer for a picture, show its report and its card."""
    from wbc_hf.web.model_tab import describe_model, read_card, render_report

    predictor = Predictor.from_pretrained(folder, backend)
    predictor.predict([np.full((40, 40, 3), 200, np.uint8)])
    describe_model(predictor)
    render_report(predictor)
    read_card(folder)
