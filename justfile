# What to run while working on semid; `just` alone lists it. Each line works without just too.

# list the recipes
default:
    @just --list

# everything a change must pass, in environments of its own (under an hour on two cores)
ci *parts:
    .ci/run {{ parts }}

# the default tests
test *arguments:
    pytest -n auto -m "not slow" {{ arguments }}

# the slow tests
slow *arguments:
    pytest -m slow -rs {{ arguments }}

# style and format
lint:
    ruff check .
    ruff format --check .

# mend what can be mended
fix:
    ruff check --fix .
    ruff format .

# types of the whole package
types:
    .ci/run types

# the examples in docstrings
doctest:
    pytest tests/test_doctests.py

# renew the command reference, and check that the pages are true
docs:
    python docs/make_cli_reference.py
    pytest tests/test_docs.py tests/test_readme.py

# a benchmark, e.g. `just bench encode --help`; no name: list them
bench name="" *arguments:
    @{{ if name == "" { "ls tests/benchmarks" } else { "python -m tests.benchmarks." + name + " " + arguments } }}

# the default tests, with the lines that none of them runs
cov:
    pytest -n auto -m "not slow" --cov --cov-report term-missing:skip-covered
