# dash takes no arguments to `.`, which `localstack/env minio` needs.
SHELL := bash
GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
# Tests on the stand-ins mostly wait: so many go on at once, whatever the machine has.
ON_STANDINS = -count=1 -parallel 4 -tags standins
# The packages whose interleavings matter most.
CORE = . ./manifest ./ratelimit ./coordinator ./worker ./retryplanner ./aggregator ./mem ./local ./internal/...

.PHONY: help build test race fuzz sim model mutants storm lint localstack-up localstack-down localstack-smoke test-aws test-minio merge-aws golden bench demo clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ## bin/hayrick, static
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/hayrick ./cmd/hayrick

test: ## all tests, no network, no account
	$(GO) test ./...

race: ## the core under the race detector (needs gcc)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 30m $(CORE)
	CGO_ENABLED=1 $(GO) test -race -short ./sim -run 'TestScenarios|TestExplore|TestRecorder'

# A finding is kept in testdata/fuzz beside the test, where `go test` tries it again.
fuzz: ## each fuzz target for FUZZTIME (20s); ONLY=<regexp> for some
	@set -e; $(GO) list -f '{{.Dir}}' ./... | while read -r dir; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(f \*testing.F).*/\1/p' "$$dir"/*_test.go 2>/dev/null | grep -E '$(or $(ONLY),.)' || true); do \
			echo "== $${dir#$(CURDIR)/} $$target"; \
			(cd "$$dir" && $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(or $(FUZZTIME),20s) -fuzzminimizetime 1s .) || exit 1; \
		done; \
	done

sim: ## every call of every scenario x every fault, and 2,000 seeds of several faults
	HAYRICK_SIM_EVERY=1 HAYRICK_SIM_SEEDS=2000 $(GO) test -count=1 -timeout 60m ./sim -run 'TestScenarios|TestSingleFaults|TestRandomFaults' -v

model: ## the states of the protocol, two or three faults at once (2 GB), and 2,000 traces of the simulator
	HAYRICK_MODEL_STATES=8000000 HAYRICK_MODEL_SEEDS=150 $(GO) test -count=1 -timeout 90m ./sim/model -v

mutants: ## defects of the protocol that the simulator must notice, one after the other
	$(GO) test -count=1 -timeout 120m -tags mutants ./sim -run TestMutants -v

storm: build ## 2,000 processes of a run killed; queue, state and disk taken away: ten minutes
	HAYRICK_STORM_KILLS=$${HAYRICK_STORM_KILLS:-2000} HAYRICK_STORM_BINARY=$(CURDIR)/bin/hayrick $(GO) test -count=1 -timeout 60m ./cmd/hayrick -run 'TestStorm$$' -v

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) vet -tags standins,moto ./...
	$(GO) run $(STATICCHECK) ./...
	@if command -v cfn-lint >/dev/null; then cfn-lint infra/template.yaml; else echo "NOT TRIED: cfn-lint on infra/template.yaml (pip install cfn-lint)"; fi

localstack-up: ## start the stand-ins of S3, DynamoDB and SQS (no Docker, no account)
	localstack/up

localstack-down: ## stop them
	localstack/down

test-aws: localstack-up ## the adapters for AWS on the stand-ins
	. localstack/env && $(GO) test $(ON_STANDINS) ./aws && $(GO) test $(ON_STANDINS) -timeout 20m ./cmd/hayrick -run OnStandIns
	@if [ -f $${HAYRICK_STANDINS:-localstack/run}/moto.pid ]; then . localstack/env moto && $(GO) test -count=1 -tags moto ./cmd/hayrick -run OnMoto; \
	else echo "NOT TRIED: infra up and down on an emulator of CloudFormation (pip install 'moto[server]')"; fi

test-minio: ## the adapters on MinIO, a second S3 (its build takes four minutes, once)
	localstack/up minio
	. localstack/env minio && $(GO) test $(ON_STANDINS) ./aws

localstack-smoke: localstack-up ## one small job on the stand-ins, from doctor to audit
	. localstack/env && localstack/smoke

merge-aws: localstack-up ## a thousand results of a megabyte, merged on the stand-ins: what passes through
	. localstack/env && HAYRICK_TEST_MERGE_RESULTS=1000 $(GO) test $(ON_STANDINS) -timeout 60m ./cmd/hayrick -run TestUpperLevels -v

golden: ## rewrite golden files; review the diff
	$(GO) test ./manifest ./ratelimit ./retryplanner ./worker ./jobfile ./schema ./infra -rewrite
	$(GO) test ./cmd/hayrick -run TestReferencePages -rewrite

bench: ## ratios against peers and physical limits, measured in one run
	cd bench && $(GO) run .

demo: ## a real batch job: no account, no network
	$(GO) run ./cmd/hayrick run jobs/backfill --profile demo

clean: ## what builds and runs leave here
	rm -rf bin out .hayrick
