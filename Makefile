# make serve: the demo on https://127.0.0.1:8443/    make test: all tests    make check: format, lint, types
# A fresh machine needs python3 (>= 3.10, with venv) and gcc; .ci/run lists what the other targets need.

PYTHON ?= python3
DISTRO_PYTHON ?= /usr/bin/python3
PYTEST_ARGS ?=
WORKERS ?= 2
ifeq ($(origin CC),default)
CC := gcc
endif

VENV := .venv
DISTRO := .venv-distro
BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check --quiet

# The folder of headers and the archive, or nothing. Asked when it is wanted: before `venv` no Python has them.
MB_PYTHON = $(firstword $(wildcard $(BIN)/python $(DISTRO)/bin/python) $(PYTHON))
CRYPTO_MB = $(shell $(MB_PYTHON) engine_shim/_crypto_mb.py)

C_SOURCES := $(wildcard engine_shim/csrc/*.c)
C_HEADERS := $(wildcard engine_shim/csrc/*.h engine_shim/csrc/*.def tests/c/*.h)
C_UNITS := $(wildcard tests/c/test_*.c)
C_HELPERS := $(filter-out $(C_UNITS),$(wildcard tests/c/*.c))
C_PROVIDER := $(wildcard tests/provider/*.c)
C_PROVIDER_HEADERS := $(wildcard tests/provider/*.h tests/provider/*.def) engine_shim/csrc/ossl_types.h
BUILD_INPUTS := $(C_PROVIDER) $(C_PROVIDER_HEADERS) pyproject.toml setup.py engine_shim/_build.py engine_shim/_crypto_mb.py $(C_SOURCES) $(wildcard engine_shim/csrc/*.h engine_shim/csrc/*.def)

C_FLAGS := -std=c11 -D_GNU_SOURCE -Iengine_shim/csrc -pthread -fvisibility=hidden -fno-strict-aliasing
C_STRICT := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Werror

.PHONY: help venv serve test test-distro check format wheel asan tsan valgrind memcheck batch-check canary stress scan fuzz bench peers clean
.DELETE_ON_ERROR:
.SECONDARY:

help:
	@sed -n '1,2s/^# //p' Makefile
	@echo 'other targets: venv test-distro format wheel asan tsan valgrind memcheck batch-check canary stress scan fuzz bench peers clean'

# --- Environments. The stamp is newer than all that the extension is built from. ---

venv: $(VENV)/.stamp

$(VENV)/.stamp: $(BUILD_INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install --editable '.[dev]'
	touch $@

# pyOpenSSL, cryptography and cffi are the distribution's: the constraints keep pip from replacing them.
$(DISTRO)/.stamp: $(BUILD_INPUTS)
	test -x $(DISTRO)/bin/python || $(DISTRO_PYTHON) -m venv --system-site-packages $(DISTRO)
	$(DISTRO_PYTHON) -c 'from importlib.metadata import version as v; [print(p + "==" + v(p)) for p in ("pyOpenSSL", "cryptography", "cffi")]' > $(DISTRO)/constraints.txt
	$(DISTRO)/bin/python $(PIP) install --constraint $(DISTRO)/constraints.txt --editable '.[test]'
	$(DISTRO)/bin/python -c 'import sys, OpenSSL, cryptography, cffi; own = [m.__file__ for m in (OpenSSL, cryptography, cffi) if m.__file__.startswith(sys.prefix)]; sys.exit("not the packages of the distribution: %s" % own if own else 0)'
	touch $@

# --- What users run ---

serve: venv
	$(BIN)/tlsserver serve --host 127.0.0.1 --port 8443

# Workers take whole files, so that what the tests of a file share is made once; no reorder: tests/conftest.py has the order.
TEST := -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder -m 'not canary and not stress and not batch and not scan'

test: venv
	$(BIN)/python $(TEST) $(PYTEST_ARGS)

test-distro: $(DISTRO)/.stamp
	$(DISTRO)/bin/python $(TEST) $(PYTEST_ARGS)

# --- Checks ---

check: venv $(C_PROVIDER:tests/provider/%.c=build/strict/provider/%.o) $(C_SOURCES:engine_shim/csrc/%.c=build/strict/%.o) $(patsubst tests/c/%.c,build/strict/tests/%.o,$(C_UNITS) $(C_HELPERS))
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(C_SOURCES) $(filter %.h,$(C_HEADERS)) $(C_UNITS) $(C_HELPERS) $(wildcard tests/provider/*.[ch] tests/benchmarks/*.c)

format: venv
	$(BIN)/ruff check --fix --exit-zero --quiet
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(C_SOURCES) $(filter %.h,$(C_HEADERS)) $(C_UNITS) $(C_HELPERS) $(wildcard tests/provider/*.[ch] tests/benchmarks/*.c)

build/strict/%.o: engine_shim/csrc/%.c $(C_HEADERS)
	@mkdir -p $(@D)
	@echo 'strict: $<'
	@$(CC) $(C_FLAGS) $(C_STRICT) -O2 -c -o $@ $<

build/strict/mb_ifma.o: engine_shim/csrc/mb_ifma.c $(C_HEADERS)
	@mkdir -p $(@D)
	@set -- $(CRYPTO_MB); test $$# = 0 || { echo 'strict: $<'; $(CC) $(C_FLAGS) -isystem $$1 $(C_STRICT) -O2 -c -o $@ $<; }

build/strict/provider/%.o: tests/provider/%.c $(C_PROVIDER_HEADERS)
	@mkdir -p $(@D)
	@echo 'strict: $<'
	@$(CC) $(C_FLAGS) -Itests/provider $(C_STRICT) -fPIC -O2 -c -o $@ $<

build/strict/tests/%.o: tests/c/%.c $(C_HEADERS)
	@mkdir -p $(@D)
	@echo 'strict: $<'
	@$(CC) $(C_FLAGS) $(C_STRICT) -O2 -c -o $@ $<

# --- C units, under sanitizers. Each tests/c/test_*.c is a program; tests/c/README.md says how they are linked. ---
# setarch -R: ThreadSanitizer of older compilers does not start where addresses are randomized over more than 28 bits.

SANITIZE_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
SANITIZE_tsan := -O1 -g -fsanitize=thread
SANITIZE_plain := -O1 -g
SANITIZE_lanes := -O2 -g
LAUNCH_asan :=
LAUNCH_tsan := setarch -R
LAUNCH_valgrind := valgrind --quiet --error-exitcode=9 --leak-check=full
C_LIBRARIES := -ldl -lm
# Not `plain`: valgrind knows no AVX-512.
MB_asan = $(CRYPTO_MB)
MB_tsan = $(CRYPTO_MB)
MB_lanes = $(CRYPTO_MB)
C_EITHER := $(filter-out engine_shim/csrc/mb_%.c,$(C_SOURCES))

define sanitized
build/$(1)/%.o: engine_shim/csrc/%.c $$(C_HEADERS)
	@mkdir -p $$(@D)
	@$$(CC) $$(C_FLAGS) $$(SANITIZE_$(1)) -c -o $$@ $$<
build/$(1)/tests/%.o: tests/c/%.c $$(C_HEADERS)
	@mkdir -p $$(@D)
	@$$(CC) $$(C_FLAGS) $$(SANITIZE_$(1)) -c -o $$@ $$<
build/$(1)/mb.o: $$(wildcard engine_shim/csrc/mb_*.c) $$(C_HEADERS)
	@mkdir -p $$(@D)
	@$$(CC) $$(C_FLAGS) $$(SANITIZE_$(1)) $$(addprefix -isystem ,$$(word 1,$$(MB_$(1)))) -c -o $$@ engine_shim/csrc/mb_$$(if $$(MB_$(1)),ifma,none).c
build/$(1)/shim.a: build/$(1)/mb.o $$(C_EITHER:engine_shim/csrc/%.c=build/$(1)/%.o) $$(C_HELPERS:tests/c/%.c=build/$(1)/tests/%.o)
	@rm -f $$@
	@$$(AR) rcs $$@ $$^
build/$(1)/test_%: build/$(1)/tests/test_%.o build/$(1)/shim.a
	@$$(CC) $$(SANITIZE_$(1)) -pthread -o $$@ $$^ $$(word 2,$$(MB_$(1))) $$(C_LIBRARIES)
endef
$(foreach variant,plain asan tsan lanes,$(eval $(call sanitized,$(variant))))

asan: $(C_UNITS:tests/c/%.c=build/asan/%)
tsan: $(C_UNITS:tests/c/%.c=build/tsan/%)
valgrind: $(C_UNITS:tests/c/%.c=build/plain/%)
asan tsan valgrind:
	@set -e; for program in $^; do echo "$(LAUNCH_$@) $$program"; $(LAUNCH_$@) $$program; done

# Random ops of each class against OpenSSL, the system's and the wheel's: about an hour. `make test` does a few.
BATCH_OPS ?= 100000
batch-check: venv build/lanes/test_batch
	build/lanes/test_batch $(BATCH_OPS)
	$(BIN)/python -m pytest -m batch --durations=0 $(PYTEST_ARGS)

# Costs and timing of the lanes, without an engine: tests/benchmarks/lanes.py runs it.
build/lanes/lanes: tests/benchmarks/lanes.c build/lanes/shim.a
	@$(CC) $(C_FLAGS) $(C_STRICT) $(SANITIZE_lanes) -Itests/c -pthread -o $@ $^ $(word 2,$(MB_lanes)) $(C_LIBRARIES)

# The shim's own tests under valgrind, with a Python whose objects it can see. About eight minutes.
# Not those that start processes or hold what they leak on purpose, nor RSA-4096 and every digest (slow under valgrind).
MEMCHECK_TESTS := $(addprefix tests/test_,$(addsuffix .py,engine_contract key async_ssl wait wait_connection job thread_jobs testing_scripted openssl_provider operations requests signer signer_taking identity server_names ticket_keys questions staple))
memcheck: $(DISTRO)/.stamp
	PYTHONMALLOC=malloc valgrind --quiet --undef-value-errors=no --error-exitcode=9 --suppressions=tests/c/python.supp \
	    $(DISTRO)/bin/python -m pytest -q --timeout 500 -o faulthandler_timeout=400 $(MEMCHECK_TESTS) \
	    -k 'not exit and not collected and not first_use and not SHA and not rsa4096 and not fork and not hundreds'

# --- Releases ---

# LDSHARED: pyenv's and conda's Python would put a run path of the building machine into the extension.
wheel: venv
	rm -rf build/wheel
	LDSHARED='$(CC) -shared' $(BIN)/python -m build --outdir build/wheel
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/wheel/*.whl
	cp build/wheel/*.tar.gz dist/

canary: venv
	$(BIN)/python -m pytest -m canary $(PYTEST_ARGS)

# Thousands of clients that leave at every moment, on both linkages; tests/support/memory.py has the reason of these.
STRESS_ENV := GLIBC_TUNABLES=glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0 PYTHONMALLOC=malloc
stress: venv $(DISTRO)/.stamp
	$(STRESS_ENV) $(BIN)/python -m pytest -m stress -s $(PYTEST_ARGS)
	$(STRESS_ENV) $(DISTRO)/bin/python -m pytest -m stress -s $(PYTEST_ARGS)

# Scanners that others trust: testssl.sh is Debian's; sslyze has dependencies of its own, so an environment too.
SCAN := -m pytest -m scan -o faulthandler_timeout=290
build/scan/.stamp:
	test -x build/scan/bin/python || $(PYTHON) -m venv build/scan
	build/scan/bin/python $(PIP) install 'sslyze>=6.3'
	touch $@

scan: venv $(DISTRO)/.stamp build/scan/.stamp
	$(BIN)/python $(SCAN) $(PYTEST_ARGS)
	$(DISTRO)/bin/python $(SCAN) $(PYTEST_ARGS)

# Random streams for the decoder of the keyless protocol, an hour of them. `make test` does a few.
FUZZ_SECONDS ?= 3600
FUZZ_EXAMPLES ?= 100000
fuzz: venv
	@mkdir -p build/fuzz/keyless
	$(BIN)/python tests/fuzz/keyless.py -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/ build/fuzz/keyless tests/fuzz/keyless-seeds
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest --timeout 0 tests/test_keyless_fuzz.py $(PYTEST_ARGS)

bench: venv
	@for file in $(wildcard tests/benchmarks/*.py); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

# Other servers beside ours, for docs/performance.md: about an hour, on a machine with nothing else to do.
PEERS_ARGS ?=
# Debian's Python is built with profile-guided optimization; here it has the packages of PyPI.
build/pgo/.stamp: $(BUILD_INPUTS)
	test -x build/pgo/bin/python || $(DISTRO_PYTHON) -m venv build/pgo
	build/pgo/bin/python $(PIP) install --editable .
	touch $@

peers: venv $(DISTRO)/.stamp build/pgo/.stamp
	$(BIN)/python tests/benchmarks/peers --document $(PEERS_ARGS)
	$(BIN)/python tests/benchmarks/round_trip.py --peers --document
	$(BIN)/python tests/benchmarks/memory.py --peers --document

clean:
	rm -rf build dist *.egg-info $(VENV) $(DISTRO) .pytest_cache .mypy_cache .ruff_cache .hypothesis engine_shim/_native*.so tlsserver/testing/_provider*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
