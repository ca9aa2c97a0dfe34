# Two commands for a fresh machine: `make quickstart` and `make test`. Needs Python 3.11 or newer, and nothing else.

PYTHON ?= python3
BIN = .venv/bin
OUT ?= build/quickstart
# The text to learn from: any file or folder. The default is the Python standard library that is running this.
INPUT ?= $(shell $(BIN)/python -c "import sysconfig; print(sysconfig.get_paths()['stdlib'])")
T = $(BIN)/t5x_like

export JAX_PLATFORMS ?= cpu
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: quickstart test parity check clean

quickstart: .venv/ready
	@mkdir -p $(OUT)
	$(T) tokenizer train --corpus '$(INPUT)' --output $(OUT)/tokenizer.model --kind bpe --vocab_size 2000 --max_characters 3000000
	$(T) prepare quickstart_denoising --corpus '$(INPUT)' --tokenizer $(OUT)/tokenizer.model --output_dir $(OUT)/data
	$(T) train --gin_file=configs/runs/quickstart.gin Pipeline.directory=$(OUT)/data model_dir=$(OUT)/run
	$(T) evaluate $(OUT)/run
	$(T) report $(OUT)/run

# Packages are compiled when they are installed. Nothing else is kept: tests fill disks, and what Python writes then is cut off.
test: export PYTHONDONTWRITEBYTECODE = 1
test: .venv/ready .venv/libtpu/ready .venv/ray/ready
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

# Every model family against transformers itself, and the golden files made again; needs the packages of the extra
# `parity` (about 1 GB) beside ours.
parity: .venv-parity/ready
	.venv-parity/bin/python -W ignore -m tests.reference.hugging_face
	.venv-parity/bin/python -W ignore -m tests.reference.goldens

.venv-parity/ready: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-parity/bin/uv pip install --quiet --python .venv-parity/bin/python --constraint constraints.txt --editable '.[parity]'
	touch .venv-parity/ready

# The TPU compiler, which needs no TPU, for tests/planning/test_tpu_programs.py. Apart from the environment, where JAX
# would look for chips. Machines that it is not made for go without it.
.venv/libtpu/ready: .venv/ready
	$(BIN)/python -c "import importlib.metadata as m; print(next(r for r in m.requires('jax') if r.startswith('libtpu')).split(';')[0])" > .venv/libtpu.txt
	mkdir -p .venv/libtpu
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target .venv/libtpu --no-deps --requirement .venv/libtpu.txt || echo "no libtpu for this machine: TPU programs are not tested"
	touch .venv/libtpu/ready

# Ray, for tests/corpus/test_ray_engine.py: 200 MB that one engine of `curate` needs and nothing else does.
.venv/ray/ready: .venv/ready
	mkdir -p .venv/ray
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --target .venv/ray --constraint constraints.txt --no-deps ray jsonschema jsonschema-specifications referencing rpds-py || echo "no Ray for this machine: its engine is not tested"
	touch .venv/ray/ready

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# uv installs in seconds what pip takes minutes for; the versions are those that were tested together.
.venv/ready: setup.cfg constraints.txt
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed, this is ' + sys.version.split()[0]) if sys.version_info < (3, 11) else None"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[all]'
	touch .venv/ready

clean:
	rm -rf .venv .venv-parity build
