# make demo: from an empty machine to distilled detectors; METHOD=... names other methods.
# make demo DATA=DIR: the same for a folder of labelled images; ARGS=--download allows to download
# the weights that it lists, ARGS=--help shows the other options.
# make test: lint and all tests. make docs: the documentation, into site/.
# make matrix: the tests' core in each environment of requirements/matrix; CELL=... one, ARGS=--full
# all tests. make gpu: tests and measurements of a GPU, in 8 minutes; OUT=... the folder of their
# tables. make oldest: what matters most, with the oldest Python and packages to be had.
PYTHON ?= python3
PY := .venv/bin/python
NOX := .nox/tool/bin/nox

.PHONY: demo test lint docs matrix oldest gpu env clean

demo: env
	$(PY) -m kd_det demo $(if $(METHOD),--method $(METHOD)) $(if $(DATA),--data '$(DATA)') $(ARGS)

# Two processes of one thread each: most tests are too small to gain from threads.
test: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2

lint: env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports

docs: env
	$(PY) -m mkdocs build --strict

matrix: $(NOX)
	$(NOX) $(if $(CELL),-s $(CELL)) -- $(ARGS)

oldest: $(NOX)
	$(NOX) -s oldest -- $(ARGS)

# Not after env, which needs a package index.
gpu:
	PYTHON=$(or $(wildcard $(PY)),$(PYTHON)) bash benchmarks/gpu.sh --out $(or $(OUT),work_dirs/gpu) $(ARGS)

$(NOX):
	$(PYTHON) -m venv .nox/tool
	.nox/tool/bin/python -m pip install -q nox

env: .venv/.installed

# opencv-python needs system libraries for windows that a bare machine lacks; its headless
# build does not.
.venv/.installed: requirements/torch.txt setup.py
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --upgrade pip
	$(PY) -m pip install -r requirements/torch.txt
	$(PY) -m pip install -e '.[lite,cls,demo,report,onnx,docs,test,dev]'
	$(PY) -c 'import cv2' 2>/dev/null || $(PY) -m pip install --force-reinstall --no-deps \
		opencv-python-headless==$$($(PY) -c 'from importlib.metadata import version as v; print(v("opencv-python"))')
	touch $@

clean:
	rm -rf .venv .nox work_dirs site
