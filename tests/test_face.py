"""`import wbc_hf`: six names, imported when they are used, and nothing that an extra brings before it is needed."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import wbc_hf

OPTIONAL = ("gradio", "openvino", "optuna", "tensorboard", "matplotlib", "kagglehub", "fhir", "fpdf", "nncf", "onnx")
# Run in a process of its own: whatever an extra brings is missing.
WITHOUT_EXTRAS = f"""
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec
PathFinder.find_spec = staticmethod(
    lambda name, *rest: None if name.partition(".")[0] in {OPTIONAL} else find_spec(name, *rest)
)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(wbc_hf.__file__).parents[1]
    )


def test_six_names_and_nothing_else():
    assert [name for name in dir(wbc_hf) if not name.startswith("_")] == sorted(wbc_hf.__all__)
    assert all(callable(getattr(wbc_hf, name)) for name in wbc_hf.__all__)
    assert all(inspect.getdoc(getattr(wbc_hf, name)) for name in wbc_hf.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Classifier'"):
        _ = wbc_hf.Classifier


def test_the_import_itself_imports_no_library():
    # A name without a module says that there is none: OpenVINO's telemetry is kept from being imported so.
    program = (
        "import sys; before = set(sys.modules); import wbc_hf; "
        "print(*(name for name, module in sys.modules.items() if module and name not in before))"
    )
    assert {name.partition(".")[0] for name in run(program).stdout.split()} - sys.stdlib_module_names == {"wbc_hf"}


@pytest.mark.slow
def test_the_core_works_without_what_extras_bring():
    program = (
        WITHOUT_EXTRAS
        + """
import logging; logging.basicConfig()
import numpy as np
import wbc_hf
for name in wbc_hf.__all__:
    getattr(wbc_hf, name)
from wbc_hf.data import paint_cells, paint_field
predictor = wbc_hf.Predictor.from_pretrained()
assert predictor.predict(list(paint_cells([4], size=96)))[0].label == "neutrophil"
assert wbc_hf.count([paint_field([0, 4], seed=1).image], predictor).cells
print(wbc_hf.evaluate([0, 1], np.eye(5)[:2]))
from wbc_hf.errors import WbcError
try:
    wbc_hf.Predictor.from_pretrained("models/starter", backend="openvino")
except WbcError as error:
    print(error)
"""
    )
    done = run(program)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("pip install 'wbc-hf[openvino]'") == 1  # once, where another backend stands in
    assert "pip install 'wbc-hf[openvino]'" in done.stdout.splitlines()[-1]  # where it was asked for
