# walg: six filters in cmd/, and the scripts that compose them in scripts/.

PREFIX  ?= /usr/local
bindir  ?= $(PREFIX)/bin
mandir  ?= $(PREFIX)/share/man
docdir  ?= $(PREFIX)/share/doc/walg
bashdir ?= $(PREFIX)/share/bash-completion/completions
zshdir  ?= $(PREFIX)/share/zsh/site-functions
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

LDFLAGS  = -s -w -X walg/lib/cli.Version=$(VERSION)
GOBUILD  = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'
SCRIPTS  = $(shell find scripts -maxdepth 1 -type f)
MANUALS  = $(wildcard cmd/*/*.scd docs/man/*.scd)
FOREIGN  = linux/arm64 darwin/arm64 windows/amd64
RACING   = ./lib/cli ./lib/dirfd ./lib/fence ./lib/pipe ./lib/rate ./lib/tarball/... ./lib/tree

# A time for what must come out the same each time it is made.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
# Where tools.sh keeps what is no package, and what the random tests start from.
export WALG_TEST_CACHE ?= $(shell scripts/test/tools.sh --cache)
ifndef WALG_SEED
WALG_SEED := $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
endif
export WALG_SEED

.PHONY: build help test tools unittest fuzz e2e lint cross coverage soak bench bench-store bench-codec man install dist demo clean
.NOTPARALLEL:

build: ## the six programs, in bin/
	@mkdir -p bin
	$(GOBUILD) -o bin/ ./cmd/...

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

test: tools build lint unittest fuzz e2e ## all that CI runs; random tests are sampled
	@echo "make test: ok (seed $(WALG_SEED))"

tools:
	@scripts/test/tools.sh

unittest: ## the tests of the packages, that of deadlines alone, some under the race detector too
	$(GO) test -count=1 $$($(GO) list ./lib/... ./cmd/... | grep -v /store/open$$)
	$(GO) test -count=1 ./lib/store/open
	$(GO) test -count=1 -race $(RACING)
	$(GO) test -count=1 -race -run Format ./lib/codec/... ./lib/crypt/openpgp/...

fuzz: ## the fuzzers of compression and encryption, a minute each
	scripts/test/fuzz.sh 60s lib/codec lib/crypt

e2e: ## the programs and scripts against real servers
	@echo "seed: WALG_SEED=$(WALG_SEED) repeats this run"
	$(GO) test -count=1 -timeout 30m ./scripts/test/...

lint: man cross ## gofmt, vet, staticcheck, shellcheck, scdoc, and builds for other systems
	@test -z "$$(gofmt -l cmd lib scripts | tee /dev/stderr)"
	$(GO) vet ./...
	$(WALG_TEST_CACHE)/bin/staticcheck ./...
	shellcheck -x -P SCRIPTDIR .ci/run $(SCRIPTS) scripts/test/*.sh scripts/test/servers/*.sh scripts/completion/walg.bash

cross:
	@set -e; for system in $(FOREIGN); do \
		export GOOS=$${system%/*} GOARCH=$${system#*/}; \
		echo "vet and compile for $$system"; \
		$(GO) vet ./cmd/... ./lib/...; \
		CGO_ENABLED=0 $(GO) build ./cmd/... ./lib/...; \
	done

coverage: tools ## what the tests reach, the programs that they run included
	scripts/test/coverage.sh

soak: tools build ## the random tests at full length (an hour or more)
	@echo "seed: WALG_SEED=$(WALG_SEED) repeats this run"
	WALG_SOAK=1 $(GO) test -count=1 -race -timeout 12h ./lib/... ./cmd/... ./scripts/test/...

bench: tools build ## speed and memory, beside tar and lz4
	$(GO) run ./scripts/test/bench

bench-store: tools build ## speed to and from MinIO, beside aws and rclone
	$(GO) run ./scripts/test/bench store

bench-codec: tools build ## speed of the codecs, beside lz4, zstd, brotli, xz and gpg
	$(GO) run ./scripts/test/bench codec

man: ## the manual pages, in build/man/
	@mkdir -p build/man
	@set -e; for page in $(MANUALS); do \
		scdoc <$$page >build/man/$$(basename $$page .scd) || { echo "$$page: not accepted by scdoc" >&2; exit 1; }; \
	done

install: build man ## into DESTDIR and PREFIX
	install -d $(DESTDIR)$(bindir) $(DESTDIR)$(mandir)/man1 $(DESTDIR)$(mandir)/man7 $(DESTDIR)$(docdir)
	install -m 755 bin/walg-* $(SCRIPTS) $(DESTDIR)$(bindir)
	install -m 644 build/man/*.1 $(DESTDIR)$(mandir)/man1
	install -m 644 build/man/*.7 $(DESTDIR)$(mandir)/man7
	install -d $(DESTDIR)$(bashdir) $(DESTDIR)$(zshdir)
	install -m 644 scripts/completion/walg.bash $(DESTDIR)$(bashdir)/walg-retain
	@set -e; for name in $(filter-out walg-retain %.sh,$(notdir $(SCRIPTS) $(wildcard cmd/walg-*))); do \
		ln -sf walg-retain $(DESTDIR)$(bashdir)/$$name; \
	done
	install -m 644 scripts/completion/_walg $(DESTDIR)$(zshdir)
	install -m 644 README.md LICENSE docs/*.md $(DESTDIR)$(docdir)

dist: ## a release archive, the same bytes for the same commit
	rm -rf dist build/dist
	GOOS=linux GOARCH=amd64 $(MAKE) --no-print-directory install DESTDIR=build/dist/ PREFIX=walg
	mkdir dist
	tar -C build/dist --sort=name --mtime=@$(SOURCE_DATE_EPOCH) --owner=0 --group=0 --numeric-owner \
		--mode=u=rwX,go=rX --format=ustar -cf - walg | gzip -9n >dist/walg.linux-amd64.tar.gz
	cd dist && sha256sum walg.linux-amd64.tar.gz >SHA256SUMS

demo: ## a database lost and restored, in a minute
	@scripts/test/tools.sh --demo
	@$(MAKE) --no-print-directory build
	@scripts/test/demo.sh

clean:
	rm -rf bin build dist
