# All tasks of this project. "make demo" and "make test" need Python 3.11 or newer, and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .tools
# Stamps: what the service needs is installed, and what development needs.
RUNTIME := $(VENV)/.runtime
READY := $(VENV)/.ready
# uv trusts the machine's certificates, as pip does, and not only its own.
export UV_SYSTEM_CERTS := 1
export UV_PYTHON_DOWNLOADS := never
# Without grpc's own notes between the dots of the tests.
export GRPC_VERBOSITY := NONE
# Most tests wait for something most of the time. Each worker takes its share of neighbours, which have fixtures in common.
PARALLEL := -n $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN)) --dist worksteal
# What other programs do, faults between, and many processes together, hardly depend on the versions of Python and its libraries.
ONE_VERSION_IS_ENOUGH := $(addprefix --ignore=tests/,clients conformance deploy distribution docs faults replicas)
# The oldest Rust that the client declares. rustup gets it when it is missing.
RUST_MINIMUM := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' clients/rust/Cargo.toml)
# For Go, which asks a registry once for each module.
AGAIN := $(CURDIR)/.ci/again
BENCH := $(TOOLS)/bench/bin/python -m bench
BEFORE := f5b559f
SAMPLE := examples/support_agent.json

# A machine that has pip needs no other in the environment, which would take 26 MB and most of the time.
PIP = $$(test -x $(BIN)/pip && echo $(BIN)/pip || echo $(PYTHON) -m pip --python $(VENV)) --disable-pip-version-check
# Install the packages of a lock file, and show their progress on a terminal. Python compiles a module when it first needs it.
define install
@{ $(PIP) install --no-compile --require-hashes -r $(1) || echo Failed; } | while read -r what package _; do \
  test $$what != Failed || exit 1; \
  test -t 1 || continue; \
  case $$what in \
    Requirement) count=$$((count + 1));; \
    Collecting) count=$$((count + 1)); printf '\r\033[K  %d of %d: %s' $$count $$(grep -c == $(1)) "$${package%%==*}";; \
    Installing) printf '\r\033[K  unpacking';; \
    Successfully) printf '\r\033[K';; \
  esac; done
endef

.PHONY: help demo run test conformance test-slow test-oldest test-newest live bench bench-smoke lint check format proto docs docs-site pictures clients deploy-check release-check baseline lock clean

help: ## List these targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Say which with: make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $$($(PYTHON) -m pip --version > /dev/null 2>&1 && echo --without-pip) $(VENV)

$(RUNTIME): pyproject.toml requirements.lock | $(VENV)/pyvenv.cfg
	@echo "Installing what the service needs into $(VENV): 90 MB, half a minute."
	$(call install,requirements.lock)
	@$(PIP) install -q --no-deps -e .
	@touch $@

$(READY): $(RUNTIME) requirements-dev.lock
	@echo "Installing what development needs into $(VENV): 600 MB, a minute or two."
	$(call install,requirements-dev.lock)
	@touch $@

demo: $(RUNTIME) ## Refine a sample prompt, with a stand-in for Agenta: no account needed.
	@echo "Starting the service and a stand-in for Agenta, and refining $(SAMPLE)."
	@PATH="$(BIN):$$PATH" agenta-ai-server dev -- \
	  agenta-ai refine $(SAMPLE) --guidelines "Be brief and polite."

run: $(RUNTIME) ## Serve on 127.0.0.1:50051 with a stand-in for Agenta, until Ctrl-C.
	@$(BIN)/agenta-ai-server dev

test: $(READY) ## Run the tests; says which were left out for lack of a program. Below five minutes.
	@$(BIN)/pytest -q $(PARALLEL)

conformance: $(READY) ## Play the same vectors with the clients of all languages. See tests/conformance.
	@PYTHONPATH=tests $(BIN)/python -m conformance.runner

$(TOOLS)/bin/cargo-semver-checks:
	@cargo install -q --locked --root $(TOOLS) cargo-semver-checks@0.51.0

test-slow: $(READY) $(TOOLS)/bin/cargo-semver-checks ## Run what is too long for every run: 20,000 examples of each property, crashes under load, a soak.
	@HYPOTHESIS_PROFILE=thorough $(BIN)/pytest -q $(PARALLEL) --timeout 0 \
	  tests/guarantee tests/replicas tests/limits/test_history.py tests/idempotency/test_histories.py tests/auth/test_attacks.py tests/clients tests/soak tests/distribution tests/bridge/test_foreign.py

test-oldest: $(READY) ## Run the tests on Python 3.11 with the oldest dependencies that are declared.
	@$(BIN)/uv venv -q --clear --python 3.11 $(TOOLS)/oldest
	@$(BIN)/uv pip install -q -p $(TOOLS)/oldest --resolution lowest-direct -e . 
	@$(TOOLS)/oldest/bin/python -c 'import agenta_ai, agenta_ai.v1.tool_service_pb2_grpc'
	@$(BIN)/uv pip install -q -p $(TOOLS)/oldest --resolution lowest-direct -e '.[server,cli,mcp,redis,tracing]' --group dev
	@$(TOOLS)/oldest/bin/pytest -q $(PARALLEL) $(ONE_VERSION_IS_ENOUGH)

test-newest: $(READY) ## Run the tests on the newest Python of this machine with the newest dependencies.
	@newest=$$(for python in python3.15 python3.14 python3.13 python3.12 $(PYTHON); do $$python -c '' 2>/dev/null && echo $$python && break; done); \
	  $(BIN)/uv venv --clear --python $$newest $(TOOLS)/newest
	@$(BIN)/uv pip install -q -p $(TOOLS)/newest --upgrade -e '.[server,cli,mcp,redis,tracing]' --group dev
	@$(TOOLS)/newest/bin/pytest -q $(PARALLEL) $(ONE_VERSION_IS_ENOUGH)

live: $(READY) ## Provision into a real Agenta, run the whole path, clean up. Needs AGENTA_AI_SERVICES_API_URL and AGENTA_API_KEY. Costs a few calls.
	@$(BIN)/pytest -q tests/live --live

$(TOOLS)/bench/.ready: $(READY) pyproject.toml bench/peers/ceiling/main.go bench/peers/ceiling/go.mod
	@$(BIN)/uv venv -q --clear --python $(PYTHON) $(TOOLS)/bench
	@$(BIN)/uv pip install -q --compile-bytecode -p $(TOOLS)/bench -c requirements-dev.lock -e '.[server,mcp,redis,tracing]' --group bench
	@GOBIN=$(CURDIR)/$(TOOLS)/bin $(AGAIN) go install github.com/bojand/ghz/cmd/ghz@v0.121.0
	@cd bench/peers/ceiling && $(AGAIN) go mod download && go build -o $(CURDIR)/$(TOOLS)/bin/ . github.com/tsenart/vegeta/v12
	@touch $@

# The service as the image has it. With what its peers need, httpx would import what its own command line is made of.
$(TOOLS)/served/.ready: $(READY) pyproject.toml
	@$(BIN)/uv venv -q --clear --python $(PYTHON) $(TOOLS)/served
	@$(BIN)/uv pip install -q --compile-bytecode -p $(TOOLS)/served -c requirements-dev.lock -e '.[server,redis,tracing]'
	@touch $@

# The state before the refactoring, as a peer. A shallow clone doesn't have it.
$(TOOLS)/before/.ready: requirements-dev.lock | $(READY)
	@if git cat-file -e $(BEFORE)^{commit} 2> /dev/null; then \
	  $(BIN)/uv venv -q --clear --python $(PYTHON) $(TOOLS)/before && mkdir $(TOOLS)/before/source && \
	  git archive $(BEFORE) client server pyproject.toml README.md LICENSE CHANGELOG.md | tar -xC $(TOOLS)/before/source && \
	  $(BIN)/uv pip install -q --compile-bytecode -p $(TOOLS)/before -c requirements-dev.lock '$(TOOLS)/before/source[server]' && \
	  touch $@; \
	else echo "This clone lacks commit $(BEFORE), so the state before the refactoring isn't measured. Get it: git fetch --unshallow"; fi

bench: $(TOOLS)/bench/.ready $(TOOLS)/served/.ready $(TOOLS)/before/.ready ## Measure: remakes bench/README.md and docs/scale.md in 20 minutes. Needs Go, redis-server, and a quiet machine.
	@$(BENCH).compare
	@$(BENCH).parts
	@$(BENCH).scale
	@$(BENCH).replicas
	@$(BENCH).load 2000 5000 > bench/results/load.txt
	@$(BENCH).overload --plot bench/plots/overload.png > bench/results/overload.txt
	-@$(BENCH).soak --calls 15000 --plot bench/plots/soak.png > bench/results/soak.txt
	@for each in concurrency limits idempotency telemetry streams mcp tools typed guarantee cases; do $(BENCH).$$each > bench/results/$$each.txt || exit 1; done
	@$(BENCH).report

bench-smoke: $(TOOLS)/bench/.ready $(TOOLS)/served/.ready $(TOOLS)/before/.ready ## See that everything that is compared can be measured, and that bench/README.md shows the last results.
	@cd bench/peers/ceiling && test -z "$$(gofmt -l .)" && $(AGAIN) go mod tidy -diff && go vet .
	@$(BENCH).smoke
	@$(BENCH).typed --calls 10 > /dev/null
	@$(BENCH).report --check

lint: $(READY) ## Lint, types, floors, contract.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/hadolint deploy/Dockerfile
	@$(BIN)/buf lint protos
	@$(BIN)/buf format --diff --exit-code protos
	@$(BIN)/buf breaking protos --against tests/contract/baseline.binpb

check: lint proto docs ## Lint, and see that what is generated is as it is committed.
	@git diff --exit-code --stat -- client/agenta_ai/v1 client/agenta_ai/tools protos/agenta/ai/tools server/agenta_ai_server/typed/builtin.lock docs/configuration.md docs/reference.md client/agenta_ai/cli/completion || { echo "Generated files have changed: commit what 'make proto docs' made."; exit 1; }

format: $(READY) ## Put the code into its form.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/buf format -w protos

$(TOOLS)/proto/.ready: $(READY) pyproject.toml
	@$(BIN)/uv venv -q --clear --python $(PYTHON) $(TOOLS)/proto
	@$(BIN)/uv pip install -q -p $(TOOLS)/proto --group proto
	@touch $@

proto: $(TOOLS)/proto/.ready ## Describe our own tools in protos/, and generate the Python code from it.
	@$(BIN)/python protos/tools.py
	@PATH="$(TOOLS)/proto/bin:$$PATH" python protos/generate.py

docs: $(READY) ## Write the references of the settings and of the contract from these themselves.
	@$(BIN)/python docs/configuration.py > docs/configuration.md
	@$(BIN)/python docs/reference.py > docs/reference.md
	@$(BIN)/python docs/completion.py > /dev/null

$(TOOLS)/site/.ready: $(READY) pyproject.toml
	@$(BIN)/uv venv -q --clear --python $(PYTHON) $(TOOLS)/site/venv
	@$(BIN)/uv pip install -q -p $(TOOLS)/site/venv -c requirements-dev.lock --group docs
	@npm install --silent --no-save --ignore-scripts --prefix $(TOOLS)/site mermaid@11.17.2
	@touch $@

pictures: $(READY) ## Draw the pictures of the documentation from real runs.
	@$(BIN)/python docs/pictures/terminal.py
	@$(BIN)/python docs/pictures/trace.py

docs-site: $(TOOLS)/site/.ready ## Build the site of the documentation, .tools/site/html. Needs Node. Every link must hold.
	@$(BIN)/python docs/site/assemble.py $(TOOLS)/site/source
	@cp $(TOOLS)/site/node_modules/mermaid/dist/mermaid.min.js $(TOOLS)/site/source/assets/
	@$(TOOLS)/site/venv/bin/zensical build --strict -f $(TOOLS)/site/zensical.toml

clients: $(READY) ## Make the clients in other languages from protos/, check and test them. Needs Go, Node, Java with Maven, and Rust.
	@cd clients/go && $(AGAIN) go mod download && ../../$(BIN)/buf generate
	@cd clients/go && test -z "$$(gofmt -l .)" && $(AGAIN) go mod tidy -diff && go vet ./... && go test ./...
	@cd clients/typescript && npm ci --silent --prefer-offline && npm run -s generate && npm run -s check && npm test -s && npm run -s test:versions && npm run -s check:package
	@mvn -q -B -f clients/java verify
	@$(BIN)/buf build protos -o - | cargo run -q --locked --manifest-path clients/rust/generate/Cargo.toml
	@cd clients/rust && cargo fmt --all --check && cargo clippy -q --locked --workspace --all-targets -- -D warnings
	@cd clients/rust && RUSTDOCFLAGS="-D warnings" cargo doc -q --locked --no-deps --workspace && cargo test -q --locked --workspace
	@cd clients/rust && rm -rf target/package && cargo package -q --locked --allow-dirty -p agenta-ai
	@cd clients/rust && cargo test -q --locked --manifest-path target/package/agenta-ai-*/Cargo.toml --target-dir target
	@cd clients/rust && for features in tls-ring,tls-native-roots tls-aws-lc,tls-webpki-roots tls-ring,tls-aws-lc,tls-native-roots ""; do \
	  cargo +$(RUST_MINIMUM) check -q --locked -p agenta-ai --no-default-features --features "$$features" --target-dir target/minimum || exit 1; done
	@HYPOTHESIS_PROFILE=thorough $(BIN)/pytest -q tests/clients/test_typed_tools.py
	@test -z "$$(git status --porcelain -- clients)" || { git status --short -- clients; echo "Generated clients have changed: commit what 'make clients' made."; exit 1; }

# What python:3.13-slim holds that matters here, from Debian's packages: no registry of images is needed.
$(TOOLS)/image/base.tar:
	@mkdir -p $(@D)
	@debootstrap --variant=minbase --include=python3,ca-certificates trixie $(@D)/base > $(@D)/base.log
	@tar -C $(@D)/base -cf $@ --exclude './var/cache/apt/*' --exclude './var/lib/apt/lists/*' .
	@rm -rf $(@D)/base

$(TOOLS)/browser/.ready: $(READY) examples/browser/package.json
	@mkdir -p $(@D) && cp examples/browser/package.json $(@D)
	@npm install --silent --ignore-scripts --prefix $(@D)
	@touch $@

deploy-check: $(READY) $(TOOLS)/image/base.tar $(TOOLS)/browser/.ready ## Run the image, and gRPC-Web in a browser. Needs root, podman, runc, debootstrap, Node and chromium.
	@$(BIN)/pytest -q -s tests/deploy/image.py tests/deploy/browser.py --timeout 900

$(TOOLS)/release/.ready: $(READY) pyproject.toml
	@$(BIN)/uv venv -q --clear --python $(PYTHON) $(TOOLS)/release/venv
	@$(BIN)/uv pip install -q -p $(TOOLS)/release/venv --group release
	@touch $@

release-check: $(TOOLS)/release/.ready ## Build all packages, the chart and the bill of materials into dist/, and check them. Publishes nothing.
	@$(BIN)/python release/check.py

baseline: $(READY) ## Make the contract and the clients in Python, Java and Rust as they are the ones that must not be broken. For a release only.
	@$(BIN)/buf build protos -o tests/contract/baseline.binpb
	@$(BIN)/stubgen -q -o tests/distribution/public $(addprefix client/agenta_ai/,$(addsuffix .py,__init__ client diff errors meta results sync testing version))
	@mvn -q -B -f clients/java clean package -Dmaven.test.skip=true -pl agenta-ai -am
	@cd clients/java/agenta-ai/target/classes && jar --create --file ../../../baseline.jar --date 2026-01-01T00:00:00Z --no-manifest ai/agenta/ai/*.class
	@cd clients/rust && cargo package -q --locked --allow-dirty --no-verify -p agenta-ai && cp target/package/agenta-ai-*.crate baseline.crate

LOCK := $(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
  --extra server --extra cli --extra redis --extra tracing pyproject.toml

lock: $(READY) ## Renew the versions of what is installed: by users of the image and the demo, and for development.
	@$(LOCK) -o requirements.lock
	@$(LOCK) -c requirements.lock --extra mcp --group dev --group protoc -o requirements-dev.lock

clean: ## Remove what the other targets made.
	@rm -rf $(VENV) $(TOOLS) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis clients/typescript/node_modules clients/typescript/dist clients/java/*/target clients/rust/target
	@find . -name __pycache__ -prune -exec rm -rf {} +
