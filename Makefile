# Two commands: `make demo` and `make test`. Everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0

.PHONY: demo test lint bench-data reference clean

demo: $(VENV)/installed
	$(BIN)/megavox demo demo

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/installed-test
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

# PyTorch comes first and pinned: whatever needs it later takes this build and fetches no other.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[cpu]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[cpu,test]'
	touch $@

bench-data: $(VENV)/installed-peers
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/reading.py

$(VENV)/installed-peers: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[peers]'
	touch $@

reference: $(VENV)/installed-test
	$(BIN)/python -m pdoc megavox '!megavox.__main__' --output-directory build/reference

clean:
	rm -rf $(VENV) demo build
