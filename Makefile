# Two commands: `make demo` and `make test`. Everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
NNUNET := nnunetv2==2.8.1 batchgenerators==0.25.5 batchgeneratorsv2==0.3.6 acvl-utils==0.2.6 \
	dynamic-network-architectures==0.4.4
DATA := reading patches pictures
INFERENCE := prediction export cohort
SCALING := scaling large_batch
SEARCH := search
MEMORY := memory memory_time memory_large

.PHONY: demo install test lint bench bench-data bench-inference bench-memory bench-scaling bench-search reference clean

demo: $(VENV)/installed
	$(BIN)/megavox demo demo

install: $(VENV)/installed

# Three processes for two cores: the tests of Slurm share one, and mostly wait.
test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 3 --dist loadgroup

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
	$(BIN)/python -m pip install --quiet --editable '.[cpu,search,test]'
	touch $@

bench: $(VENV)/installed-peers
	@for table in $(DATA) $(INFERENCE); do OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$$table.py --short || exit 1; done

# All tables are measured, also after a bar that was short.
measured = @status=0; for table in $(1); do OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$$table.py || status=1; done; \
	exit $$status

bench-data: $(VENV)/installed-peers
	$(call measured,$(DATA))

bench-inference: $(VENV)/installed-peers
	$(call measured,$(INFERENCE))

bench-memory: $(VENV)/installed
	$(call measured,$(MEMORY))

bench-scaling: $(VENV)/installed
	$(call measured,$(SCALING))

bench-search: $(VENV)/installed
	$(call measured,$(SEARCH))

# nnU-Net comes without what it asks for beyond its data loader: that would bring a torchvision which does not go
# with this build of PyTorch.
$(VENV)/installed-peers: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[peers]'
	$(BIN)/python -m pip install --quiet --no-deps $(NNUNET)
	touch $@

reference: $(VENV)/installed-test
	$(BIN)/python -m pdoc megavox '!megavox.__main__' --output-directory build/reference

clean:
	rm -rf $(VENV) demo build
