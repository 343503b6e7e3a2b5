PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint format clean

help:  ## Say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/.installed: requirements.txt pyproject.toml
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

models/demo/README.md: | $(VENV)/.installed
	@echo "No model here yet: fine-tuning one on painted cells, which takes about two minutes on two cores."
	$(BIN)/python train.py configs/demo.yaml --resume

demo: $(VENV)/.installed models/demo/README.md  ## Open the page on http://127.0.0.1:7860
	$(BIN)/python app.py --model models/demo

# Two at a time, but for the browser's: a page that waits for its turn looks like one that hangs.
test: $(VENV)/.installed  ## Run the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not browser"
	$(BIN)/python -m pytest -m browser

lint: $(VENV)/.installed  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed  ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment and the demonstration model
	rm -rf $(VENV) models/demo
