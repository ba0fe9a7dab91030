.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help demo build test bench lint dist

# The real programs that the tests and linters run, on PATH.
testbench = eval "$$(scripts/testbench --env)" &&

help: ## List the targets
	@awk -F ': .*## ' '/^[a-z]+:.* ## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## Build the example fleet here and push it to a binary cache in a directory
	@scripts/demo

build: ## Build dist/nix-matrix-OS-ARCH for this machine
	@scripts/build-dist --host

test: ## Install the real programs that the tests run against, lint, test
	@scripts/testbench
	@$(MAKE) --no-print-directory lint
	@scripts/fuzz
	@$(testbench) NIX_MATRIX_REQUIRE_PARTS=$(if $(CI),1,$(NIX_MATRIX_REQUIRE_PARTS)) scripts/in-memory go test -timeout 40m ./...

bench: build ## Measure the speed, into docs/performance.md too
	@scripts/testbench nix-2.34 npm zstd
	@$(testbench) go run ./internal/bench

lint: ## Check the format, the layers, the workflows and the scripts
	@scripts/testbench lint
	@unformatted=$$(gofmt -l .) && if [[ -n $$unformatted ]]; then echo "not as gofmt has it, run gofmt -w on:" $$unformatted; exit 1; fi
	@go vet ./...
	@go run ./internal/inputs/generate --check
	@go run ./internal/schema/generate --check
	@$(testbench) golangci-lint run
	@$(testbench) find .github examples -path '*/workflows/*.yml' -exec actionlint {} +
	@$(testbench) RUST_LOG=error zizmor --offline --quiet --no-progress --config .github/zizmor.yml action.yml .github/workflows/*.yml examples/workflows/*.yml
	@$(testbench) find . \( -path ./.git -o -path './dist/nix-matrix-*' \) -prune -o -type f -exec awk 'FNR == 1 && (/^#!.*sh/ || FILENAME ~ /[.]sh$$/) { printf "%s%c", FILENAME, 0 }' {} + | xargs -0 shellcheck

dist: ## Build the files of a release: dist/ for all systems, the same bytes everywhere
	@scripts/build-dist
