# The same commands here, in .pre-commit-config.yaml and in .ci/run.
# They use whatever environment is active: make one with `python3 -m venv .venv`.

.PHONY: install format check test dist bench docs

install:  ## the package, editable, with everything that development needs
	pip install -e '.[dev]'

format:  ## rewrite what the tools can repair
	ruff check --fix --exit-zero
	ruff format

check:  ## formatting, lint, types, layers
	ruff format --check
	ruff check
	mypy
	lint-imports

test:
	pytest -n auto

dist:  ## the wheel and the source archive, as they would be published
	rm -rf dist
	python -m build --quiet
	twine check --strict dist/*

bench:  ## speed and memory; figures only, nothing passes or fails
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; python "$$script"; done

docs:  ## run the examples of README.md and docs/
	pytest tests/test_readme.py
