"""Tell leucocytes apart: load pictures, fine-tune a ResNet, report honestly, publish, serve."""

__version__ = "0.1.0"
