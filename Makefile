# `make test` and `make demo` need only Python >= 3.11 and make: they set up .venv on first use and reuse it after.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.installed

.PHONY: help setup test test-slow lint docs demo paper-quick study-quick clean

help:
	@echo "make demo       fine-tune the packaged model with GeoConv and two controls, score them, write runs/demo/index.html"
	@echo "make test       lint and the fast tests"
	@echo "make paper-quick  the paper's experiments at a small size, and their page in runs/paper-quick/results"
	@echo "make study-quick  the study's whole way at a small size, and its page in runs/study-quick/results"
	@echo "make test-slow  the long tests too"
	@echo "make lint       ruff and mypy"
	@echo "make docs       the pages and the API reference in site/"
	@echo "make clean      remove .venv and what was built"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

test-slow: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

DOCS_READY = $(VENV)/.docs-installed

$(DOCS_READY): $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $(DOCS_READY)

# Strict, which --quiet would undo: a broken link or a docstring that names a parameter which is not there stops the build.
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

demo: $(READY)
	$(BIN)/python scripts/demo.py --output runs/demo

# Each experiment's whole path in a minute or two; the real runs are the same commands without the sizes.
QUICK = runs/paper-quick
paper-quick: $(READY)
	$(BIN)/python -m scripts.experiments.center_of_mass.run --config configs/experiments/center_of_mass.yaml \
		--output $(QUICK)/center_of_mass --results $(QUICK)/results/paper_center_of_mass.json --num-seeds 2 --num-map-seeds 1 \
		--max-train-steps 20 --train-images 256 --test-images 64 --map-shifts 0 0.25 --sweep-shifts 0 0.25
	$(BIN)/python -m scripts.experiments.positional_bias.run --config configs/experiments/positional_bias.yaml \
		--output $(QUICK)/positional_bias --results $(QUICK)/results/paper_positional_bias.json --num-seeds 2 --num-map-seeds 1 \
		--max-train-steps 20 --train-images 256 --test-images 64 --sweep-shifts 0 0.25
	for task in center_of_mass positional_bias; do $(BIN)/python -m scripts.experiments.$$task.run \
		--config configs/experiments/$${task}_rates.yaml --output $(QUICK)/$${task}_rates --num-seeds 2 --num-matched-seeds 1 \
		--results $(QUICK)/results/paper_own_rates_$$task.json --max-train-steps 20 --num-sweep-seeds 1 --train-images 256 \
		--test-images 64 || exit 1; done
	$(BIN)/geopos data hands --num-images 256 --size 32 --seed 1 --output $(QUICK)/hands --overwrite
	$(BIN)/python -m scripts.experiments.gan.run --config configs/experiments/gan.yaml --dataset $(QUICK)/hands \
		--output $(QUICK)/gan --results $(QUICK)/results/paper_gan_hands --seeds 0 --num-train-epochs 10 --width 8 --bins 16 \
		--samples 128 --pairs 50 --mobilenet-epochs 0
	$(BIN)/python -m scripts.experiments.depth.run --config configs/experiments/depth.yaml \
		--output $(QUICK)/depth --results $(QUICK)/results/paper_depth.json --num-seeds 1 --num-matched-seeds 0 --size 32 \
		--max-train-steps 40 --validation-steps 20 --train-images 128 --test-images 32
	$(BIN)/geopos data hands --num-images 64 --size 32 --seed 2 --output $(QUICK)/hands_test --overwrite
	$(BIN)/python -m scripts.experiments.vae.run --config configs/experiments/vae.yaml --data-name hands --dataset $(QUICK)/hands \
		--test-dataset $(QUICK)/hands_test --output $(QUICK)/vae --results $(QUICK)/results/paper_vae_hands.json --size 32 \
		--num-seeds 2 --num-matched-seeds 1 --latent-sizes 4 8 --widths 8 16 32 --max-train-steps 40 --validation-steps 10 --validation-images 32 \
		--samples 64 --pairs 50 --no-mobilenet --publish-samples
	for network in unet transformer-without-positions; do $(BIN)/python -m scripts.experiments.diffusion.run \
		--config configs/experiments/diffusion_$${network%%-*}.yaml --network $$network --output $(QUICK)/diffusion-$$network \
		--results $(QUICK)/results/paper_own_rates_diffusion_$$network.json --num-seeds 2 --max-train-steps 3 --train-images 32 \
		--test-images 32 --samples 16 --sample-steps 2 --learning-rates 1e-3 2e-3 || exit 1; done
	$(BIN)/python -m scripts.experiments.cost.run --rounds 3 --steps 3 --results $(QUICK)/results/paper_cost.json
	$(BIN)/python -m scripts.experiments.report --results $(QUICK)/results --output $(QUICK)/results

# The whole way of the study, from rendering to its page, in five minutes: one task, for the way is the same in all.
STUDY = runs/study-quick
study-quick: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.experiments.study.run poses --output $(STUDY) --results $(STUDY)/results/study \
		--arms bias geometry --seeds 10 11 --train-images 64 --validation-images 16 --test-images 32 --num-samples 8 \
		--sample-steps 4 --max-train-steps 10 --mixed-precision no
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.experiments.study.mechanism poses --output $(STUDY) --results $(STUDY)/results/study/mechanism.json \
		--test-images 16 --probe-images 16
	$(BIN)/python -m scripts.experiments.study.page --results $(STUDY)/results

clean:
	rm -rf $(VENV) build *.egg-info
