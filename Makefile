# The same commands as CI. `make check` and `make test` before a commit; `make test-all` for everything.
RUN = uv run --frozen --all-extras

# A bare GPU machine without uv needs Python with torch, numpy, safetensors, transformers and matplotlib; engines
# of onnx, onnxruntime-gpu and tensorrt are measured if they are installed. PYTHON and NAME can be set.
PYTHON ?= python3
BARE = PYTHONPATH=benchmarks:engine:models $(PYTHON) -m
DOCS = docs/benchmarks

.PHONY: install check format test test-all coverage bench bench-fusion bench-gpu bench-speech bench-peers profile demo picture

install:            ## everything, into .venv
	uv sync --frozen --all-extras

check:              ## format, lint, types, layers
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) lint-imports

format:             ## rewrite what a tool can
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

PYTEST = $(RUN) pytest -n 3 --dist loadscope

test:               ## the fast tests: all but those that are marked as slow
	$(PYTEST) -m "not slow"

test-all:           ## all tests, as CI runs them
	$(PYTEST)

coverage:           ## the fast tests, and which lines of the packages they run
	$(PYTEST) -m "not slow" --cov --cov-report=term:skip-covered

bench:              ## latency of the whole engine on a test clip, at real pace
	$(RUN) emi bench live --input "$${EMI_TEST_ASSETS:-../shared/assets}/av/face_and_speech.mp4"

bench-fusion: NAME ?= fusion-cpu
bench-fusion:       ## every fusion engine on the CPU: JSON, table and figure into docs/benchmarks
	$(RUN) emi bench fusion --device cpu --json $(DOCS)/$(NAME).json
	$(RUN) emi bench report $(DOCS)/$(NAME).json --out $(DOCS)/$(NAME)

bench-gpu: OUT ?= $(DOCS)/gpu
bench-gpu:          ## everything on a GPU, in pieces of 8 minutes at most, where little more than PyTorch is installed
	$(BARE) emi_bench.gpu --out $(OUT)

bench-speech: NAME ?= speech-pocketsphinx
bench-speech: WITH ?= --backend pocketsphinx --clips real --clips synthetic
bench-speech:       ## words: errors, lateness, lag over 10 minutes, hard conditions; WITH='--model FOLDER' for another model
	$(RUN) emi bench speech $(WITH) --minutes 10 --nonstop --conditions --json $(DOCS)/$(NAME).json
	$(RUN) emi bench report $(DOCS)/$(NAME).json --out $(DOCS)/$(NAME)

bench-peers: NAME ?= speech-peers
bench-peers: WITH ?= --clips real --minutes 10
bench-peers:        ## compared with WhisperLiveKit at real pace, 36 minutes; clips that NAME.json has are not run again
	$(RUN) emi bench speech --peer whisperlivekit $(WITH) --resume --json $(DOCS)/$(NAME).json
	$(RUN) emi bench report $(DOCS)/$(NAME).json --out $(DOCS)/$(NAME)

profile: CLIP ?= $${EMI_TEST_ASSETS:-../shared/assets}/av/face_throughout_speech_stops_at_5s.mp4
profile: OUT ?= profile.svg
profile:            ## a flame graph of a live run; CLIP must be a minute long, and py-spy installed
	$(RUN) --with py-spy python -m tools.profile_live $(CLIP) --out $(OUT)

demo:
	$(RUN) emi-live --demo

picture:            ## the README's picture, made by the program
	$(RUN) emi-live --demo --no-ui --duration 13.4 --picture docs/demo.svg --force
