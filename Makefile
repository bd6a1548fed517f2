# Every target is one script in scripts/; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help up down status logs restart reconcile clean setup protos lock run migrate format lint types \
        charts test test-contract test-e2e test-vllm chaos simulate routing bench check image

##@ Run the platform
up:            ## Start everything here (MODELS=chat: fewer models; PORT_OFFSET=1000: other ports)
	@scripts/up
down:          ## Stop everything; data stays
	@scripts/down
status:        ## Show what runs
	@scripts/status
logs:          ## Follow the logs of one process (S=chat) or of all
	@scripts/logs
restart:       ## Stop and start one process (S=chat) or all
	@scripts/restart
reconcile:     ## Compare what was reported, rated and posted (ARGS="--start 2026-10-05 --end 2026-10-06")
	@scripts/reconcile
clean:         ## Stop everything and delete its data
	@scripts/clean

##@ Work on it
setup:         ## Install all that development needs into .venv
	@scripts/setup dev
protos:        ## Generate the messages and stubs from protos/
	@scripts/setup dev
	@scripts/protos
lock:          ## Bring requirements.lock up to date with the members (ARGS=--upgrade: newest of all)
	@scripts/lock $(ARGS)
run:           ## Run one service in this terminal instead of the background (S=chat)
	@scripts/run
migrate:       ## Migrate the database of one service (S=chat)
	@scripts/run migrate
format:        ## Format the code
	@scripts/format

##@ Trust it
lint:          ## Check style, imports, contracts, scripts and the Dockerfile
	@scripts/lint
types:         ## Check types, strictly
	@scripts/types
charts:        ## Lint and render the Helm charts
	@scripts/charts
test:          ## Run all tests, or those of one member (S=credits)
	@scripts/test $(S)
test-contract: ## Run the official client and every caller against the real services
	@scripts/test contract
test-e2e:      ## Run the journeys, against DOZEN_URL or a platform of their own
	@scripts/test e2e
test-vllm:     ## Run chat and completion on a real vLLM for the CPU, which is installed first
	@scripts/test vllm
chaos:         ## Kill parts of a platform under load (KILLS=100, SEED=7), then check its books
	@scripts/chaos
simulate:      ## Play credits, gateway and a bad network through from seeds (SEEDS=5000)
	@scripts/simulate
routing:       ## Play the choice of replicas through, beside other policies (ARGS="--seeds 5")
	@scripts/routing $(ARGS)
bench:         ## Measure (ONLY="edge decide", PEERS=nginx, QUICK=1); writes .dozen/bench/latest.json
	@scripts/bench
check:         ## Run all that CI runs: lint, types, charts, test
	@scripts/check
image:         ## Build the container image of one service (S=chat)
	@scripts/image

help:
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
