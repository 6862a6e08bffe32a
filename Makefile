# Two commands do everything on a fresh machine: `make demo` and `make test`.

VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= python3

.PHONY: setup demo test check peers verifier-parity clean

setup: $(VENV)/ready

demo: $(VENV)/ready
	$(BIN)/python examples/demo.py

test: $(VENV)/ready peers
	$(BIN)/python -m pytest -n 2 --dist loadfile tests

# Our verifier beside the live kernel's; needs root, BTF, and Debian's archive for the kernel's own tests.
verifier-parity: $(VENV)/ready
	$(BIN)/python scripts/verifier_parity.py --floor cases examples selftests unprivileged more generated

# The programs that tests and checks hold ours against; where they cannot be installed, that is said.
peers:
	scripts/install_peers

check: $(VENV)/ready peers
	PATH="$(abspath $(BIN)):$$PATH" scripts/check

$(VENV)/ready: pyproject.toml hatch_build.py $(wildcard src/tcbpf/native/src/*.[ch] src/tcbpf/native/src/*/*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m compileall -q src/tcbpf
	touch $@

clean:
	rm -rf $(VENV) build dist src/tcbpf/native/_build
