# Every verb of the project. `make` lists them.
TASK ?= scifi
SERVE ?= 1
# Where the rows come from: the task's own file, or SOURCE=api SITE=scifi MAX=3000, fetched first.
SOURCE ?= file
SITE ?= scifi
MAX ?= 3000
ifeq ($(SOURCE),api)
override TASK := data/collected/$(SITE).toml
endif
# DATA=sample, or another place of TASK's rows: a file, a folder, an archive, https://… or s3://….
DATA ?=
ROWS = $(if $(DATA),--data "$(DATA)")
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
TORCH := $(shell sed -n 's/^torch==/torch==/p' requirements.txt)
BIN := .venv/bin

.PHONY: help setup demo serve gradio space browser test test-long system lint notebooks bench bench-quality bench-ablation bench-compression bench-tagging bench-service bench-new-labels bench-hues bench-profile bench-gpu bench-collect standin clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready  ## create .venv and install the pinned packages (once; about 3 minutes)

# Where there is no GPU, torch comes from PyTorch's own index of CPU builds; where that cannot be had, from PyPI.
.venv/ready: requirements.txt requirements-nodeps.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "error: Python 3.11 or 3.12 is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
		$(BIN)/pip install -q --no-deps --retries 1 --index-url https://download.pytorch.org/whl/cpu $(TORCH) \
		|| echo "no CPU build of torch could be had; taking PyPI's"; fi
	$(BIN)/pip install -q -r requirements.txt
	$(BIN)/pip install -q --no-deps -r requirements-nodeps.txt
	$(BIN)/pip install -q --no-deps -e .
	@touch $@

demo: setup  ## every stage for TASK=scifi, then its page (DATA=sample, or another place; SERVE=0: no page; SOURCE=api SITE=… MAX=…: fetch first)
ifeq ($(SOURCE),api)
	@$(BIN)/python stackapi/fetch_questions.py --site $(SITE) --max $(MAX)
	@$(BIN)/tagwright export $(SITE)
endif
	$(BIN)/tagwright demo $(TASK) $(ROWS)
	@if [ "$(SERVE)" != 0 ]; then $(MAKE) --no-print-directory gradio; fi

serve: setup  ## serve TASK's model: page, API and jobs, complete on this machine
	PYTHONPATH=deployment $(BIN)/python -m service all --model "$$($(BIN)/tagwright where $(TASK) $(ROWS))"

gradio: setup  ## serve the Gradio page for TASK's model
	$(BIN)/python deployment/gradio/app.py --model "$$($(BIN)/tagwright where $(TASK) $(ROWS))"

space: setup  ## put a complete Hugging Face Space for TASK's model together in build/space
	$(BIN)/python deployment/gradio/assemble.py "$$($(BIN)/tagwright where $(TASK) $(ROWS))" build/space

browser: setup  ## serve the page that runs TASK's model in the visitor's browser (needs Node 20.19 or newer)
	model="$$(realpath "$$($(BIN)/tagwright where $(TASK) $(ROWS))")" && cd deployment/browser && npm ci && TAGWRIGHT_MODEL="$$model" npm run dev

# One thread for each process of the tests: more would wait for each other.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test: setup system  ## run the tests (installs Chromium, Firefox, MariaDB and Redis by apt-get where they are missing: as root)
	$(BIN)/ruff check .
	$(PYTEST) -m "not long"

test-long: setup system  ## run those that take many minutes: notebooks, kills, hostile requests, the image's steps, a Ray cluster
	$(PYTEST) -m long

APT := chromium chromium-headless-shell chromium-driver firefox-esr mariadb-server redis-server
system:
	@command -v chromium >/dev/null && command -v chromium-headless-shell >/dev/null && command -v chromedriver >/dev/null && \
		command -v firefox-esr >/dev/null && command -v mariadbd >/dev/null && command -v redis-server >/dev/null && \
		command -v npm >/dev/null || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(APT) \
			$$(command -v npm >/dev/null || echo nodejs npm) >/dev/null; }

lint: setup  ## check the code's style
	$(BIN)/ruff check .

notebooks: setup  ## execute the notebooks in order for TASK=scifi, in place (another TASK, DATA=…, QUICK=1: copies in build/notebooks)
	$(BIN)/python notebooks/execute.py $(if $(filter-out scifi,$(TASK)),--task $(TASK)) $(ROWS)

clean:  ## remove what the stages wrote (the environment stays)
	rm -rf data/work build

bench: setup  ## measure the sample, write results/pipeline.json and the README's table
	PYTHONPATH=. $(BIN)/python benchmarks/pipeline.py scifi

bench-quality: setup  ## measure Tagwright beside fastText, TF-IDF and the usual template: hours, kept run by run
	PYTHONPATH=. $(BIN)/python benchmarks/quality.py

bench-ablation: setup  ## measure what each part of the training recipe is worth: hours, kept run by run
	PYTHONPATH=. $(BIN)/python benchmarks/ablation.py

bench-compression: setup  ## measure fp32, int8 and q4 of the finished models of cooking and ag_news beside PyTorch
	PYTHONPATH=. $(BIN)/python benchmarks/compression.py

bench-new-labels: setup  ## measure labels of cooking that were hidden from training and added by name
	PYTHONPATH=. $(BIN)/python benchmarks/new_labels.py

bench-hues: setup  ## measure colours by genre and colours predicted, and 5,000 real books: an hour or two, kept run by run
	PYTHONPATH=. $(BIN)/python benchmarks/hues.py

bench-tagging: setup  ## measure tagging of 10,000 to 1,000,000 titles beside the transformers pipeline
	PYTHONPATH=. $(BIN)/python benchmarks/tagging.py

bench-service: setup  ## measure the service under load, its memory and a file job through kills (after make demo; 25 minutes)
	@command -v wrk >/dev/null && command -v redis-server >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq wrk redis-server >/dev/null; }
	PYTHONPATH=. $(BIN)/python benchmarks/service.py

bench-profile: setup  ## measure where an epoch of training goes, write results/training_profile.json
	PYTHONPATH=. $(BIN)/python benchmarks/training_profile.py

bench-gpu: setup  ## measure training speed on a GPU beside the Hugging Face Trainer, write results/gpu.json
	PYTHONPATH=. $(BIN)/python benchmarks/gpu.py

bench-collect: setup system  ## measure the three ways of collecting, write results/collection.json and the README's table
	PYTHONPATH=tests $(BIN)/python benchmarks/collection.py

standin: setup  ## serve a stand-in site, API and bookshop on this machine, to try the collectors on
	$(BIN)/python tests/standin --questions 3000 --port 8099
