"""The inference graph: logits and features of a model in one pass."""

import torch

from wbc_hf.modeling import build_from_scratch
from wbc_hf.modeling.graph import forward_with_features


def test_logits_are_the_models_and_features_have_length_one():
    model, _ = build_from_scratch(0.0625, image_size=32)
    model.eval()
    pixels = torch.rand(4, 3, 32, 32)
    with torch.inference_mode():
        logits, features = forward_with_features(model, pixels)
        torch.testing.assert_close(logits, model(pixels).logits)
    assert features.shape == (4, sum(model.config.hidden_sizes[1:]))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4))
