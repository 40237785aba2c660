# Needs Python 3.11 or newer, and make. `make study` and `make test` install what they need into .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: study test check torture fuzz docs calibrate bench clean

study: .venv/.installed  ## the embedded study, on scikit-learn's digits
	$(BIN)/tricks study quickstart --jobs 2 --out study-quickstart

test: .venv/.installed-dev  ## every test, one process a core, one thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --durations 25 --durations-min 5

check: .venv/.installed-dev  ## style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_house.py

torture: .venv/.installed-dev  ## kills trainings and studies, and fills disks, for a quarter of an hour; DATA and WEIGHTS for real images
	$(BIN)/python -m pytest -m torture
	$(BIN)/python bench/torture.py --kills 20
	$(if $(WEIGHTS),$(BIN)/python bench/torture.py --kills 20 --data $(DATA) --init $(WEIGHTS) --size 64 --epochs 2 \
		--work bench/work/torture-data --out bench/results/torture-data.json)

fuzz: .venv/.installed-dev  ## ten thousand damaged images
	$(BIN)/python -m pytest -m fuzz

docs: .venv/.installed-docs  ## the generated pages, then the site, with links checked: docs/_build/html/index.html
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build -W --keep-going -n -q -b html docs docs/_build/html

calibrate: .venv/.installed-dev  ## the statistics, on simulated studies (under 15 minutes), and the tables they fill
	OMP_NUM_THREADS=1 nice -n 10 $(BIN)/python -m bench.calibrate --pool build/calibration-pool.npz \
		--json build/calibration.json --write

# what bench/throughput.py and bench/time_to_accuracy.py take beside
THROUGHPUT ?= --repeats 2
ACCURACY ?=
bench: .venv/.installed-dev  ## speed against peers, some hours on two cores; set DATA and WEIGHTS for Caltech-101
	"$$(cat .venv/.uv)" pip install --quiet --python $(BIN)/python --constraint constraints.txt --group bench
	$(BIN)/python bench/throughput.py $(if $(DATA),--data $(DATA),--synthetic-photos) $(THROUGHPUT)
	$(if $(WEIGHTS),$(BIN)/python bench/time_to_accuracy.py --data $(DATA) --weights $(WEIGHTS) $(ACCURACY))
	$(if $(DATA),$(BIN)/python bench/predict.py --data $(DATA))
	$(BIN)/python bench/study.py

# uv installs; where it is absent, pip fetches it into the environment
.venv/.uv:
	@if command -v uv >/dev/null; then uv venv --quiet --allow-existing --python $(PYTHON) .venv && command -v uv > $@; \
	else $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet uv && echo $(BIN)/uv > $@; fi

.venv/.installed: .venv/.uv pyproject.toml constraints.txt
	"$$(cat .venv/.uv)" pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	"$$(cat .venv/.uv)" pip install --quiet --python $(BIN)/python --constraint constraints.txt --group dev
	@touch $@

.venv/.installed-docs: .venv/.installed
	"$$(cat .venv/.uv)" pip install --quiet --python $(BIN)/python --constraint constraints.txt --group docs
	@touch $@

clean:
	rm -rf .venv study-quickstart docs/_build
