# make demo   install, train on the garments that come along, analyse, open the page
# make bench  measure the machines, side by side in one run
# make test   install, lint, run every test
# make faults kill, damage, fill and fuzz everything, in 20 minutes
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
DEMO := runs/garments_resnet

.PHONY: demo bench test faults lint types format clean

# A second time it goes on where it was stopped, and finds finished what is.
demo: $(INSTALLED)
	$(BIN)/python train.py fit --config garments_resnet \
		$(if $(wildcard $(DEMO)/checkpoints/last.ckpt),--ckpt_path last)
	$(BIN)/python analyze.py $(DEMO) --config quick --open_page

bench: $(DEVELOPED)
	PYTHONPATH=. $(BIN)/python benchmarks/bench.py

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

faults: $(DEVELOPED)
	PYTHONPATH=.:tests:tests/faults OMP_NUM_THREADS=1 $(BIN)/python tests/faults/campaign.py

lint: $(DEVELOPED) types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEVELOPED)
	$(BIN)/mypy

format: $(DEVELOPED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The marker is written last, so that an interrupted installation is taken up again.
$(INSTALLED): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; name one with make PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

# Everything that running needs is in here too.
$(DEVELOPED): $(INSTALLED) requirements-dev.txt
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist *.egg-info
