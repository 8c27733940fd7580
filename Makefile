# wharf: the two commands that matter are `make demo` and `make test`; `make help` lists the rest.
.PHONY: help test
help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

test: ## everything
	cargo test --workspace
