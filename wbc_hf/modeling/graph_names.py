"""Names of what goes into a model's graph and of what comes out, the same in OpenVINO and ONNX."""

CROP, LOGITS, FEATURES = "crop", "logits", "features"
