# The same commands as CI. `make check` before a commit; `make test` for everything.
RUN = uv run --frozen --all-extras

.PHONY: install check format test bench demo picture

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

test:               ## all tests
	$(RUN) pytest

bench:              ## latency of the whole engine on a test clip, at real pace
	$(RUN) emi bench live --input "$${EMI_TEST_ASSETS:-../shared/assets}/av/face_and_speech.mp4"

demo:
	$(RUN) emi-live --demo

picture:            ## the README's picture, made by the program
	$(RUN) emi-live --demo --no-ui --duration 13.4 --picture docs/demo.svg
