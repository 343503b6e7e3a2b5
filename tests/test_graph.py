"""The inference graph: logits and features of a model in one pass."""

import pytest
import torch

from wbc_hf.modeling import Preprocessing, build_from_scratch
from wbc_hf.modeling.graph import InferenceGraph, forward_with_features


def test_logits_are_the_models_and_features_have_length_one():
    model, _ = build_from_scratch(0.0625, image_size=32)
    model.eval()
    pixels = torch.rand(4, 3, 32, 32)
    with torch.inference_mode():
        logits, features = forward_with_features(model, pixels)
        torch.testing.assert_close(logits, model(pixels).logits)
    assert features.shape == (4, sum(model.config.hidden_sizes[1:]))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4))


def test_tracing_warns_of_no_loss(monkeypatch: pytest.MonkeyPatch):
    warned: list[str] = []
    monkeypatch.setattr("transformers.modeling_utils.logger.warning_once", warned.append)
    model, processor = build_from_scratch(0.0625, image_size=32)
    graph = InferenceGraph(model, Preprocessing(processor)).eval()
    torch.jit.trace(graph, torch.zeros((2, 32, 32, 3), dtype=torch.uint8), check_trace=False)
    assert warned == []
