# make          the commands, static, in bin/
# make test     all tests; they get their servers by themselves (scripts/testbed)
# make chaos    the fault test for as long as you like: CHAOS_TIME=10m CHAOS_SEED=7
# make demo     the main job on two throwaway servers
# make demo-postgres  a partitioned table of plain PostgreSQL becomes a hypertable
# make bench    its speed against psql's, on two throwaway servers; see lib/bench
#               BENCH_OLD=DIR: and against another build's, the commands in DIR
#               BENCH_PEER=PROGRAM: and against timescaledb-backfill
# make install  commands, manual pages and completions, below PREFIX
# make dist     archives for Linux and macOS, .deb and .rpm, in dist/
#
# None of them needs a C compiler, root or a running PostgreSQL. To test on one
# version of TimescaleDB: make test BF_TEST_VERSIONS=2.17.2; on named pairs, or on
# all that there are: BF_TEST_MATRIX, see lib/README.md

PREFIX  = /usr/local
MANDIR  = $(PREFIX)/share/man
DESTDIR =

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null)
GOBUILD  = go build -trimpath -ldflags '-s -w -X bf/lib/cli.version=$(VERSION) -X bf/lib/cli.commit=$(COMMIT)'
TOOLS    = backfill
SHELLS   = $(filter-out %.1,$(wildcard scripts/*)) .ci/run
# Version of a package: it begins with a digit and has no hyphen.
PACKAGED := $(shell case "$(VERSION)" in (v[0-9]*) echo "$(VERSION:v%=%)" ;; \
             (*) echo "0~git.$(VERSION)" ;; esac | tr - .)
# The manual: a page stands beside what it describes.
MAN      = $(wildcard cmd/*/*.1 scripts/*.1 lib/*/*.5 cmd/*.7)

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.8.0
NFPM        = github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0

export CGO_ENABLED = 0
export BF_TEST_VERSIONS BF_TEST_MATRIX

.PHONY: build test chaos short race demo demo-postgres bench lint completions install files dist archives packages clean

build:
	$(GOBUILD) -o bin/ ./cmd/...

# Three packages at a time on two processors, as they wait as well: each has servers
# of its own. Those that take longest come first. What an application waits for is
# measured afterwards, with nothing else at work.
test:
	go test -count=1 -p 3 -timeout 60m -skip '^TestLatency' ./lib/target ./lib/e2e ./lib/chaos $$(go list ./...)
	go test -count=1 -timeout 60m -run '^TestLatency' ./lib/chaos

# Backfills while things are killed, cut and damaged at random.
CHAOS_TIME = 60s
CHAOS_SEED = 1
chaos:
	CHAOS_TIME=$(CHAOS_TIME) CHAOS_SEED=$(CHAOS_SEED) go test -count=1 -timeout 0 -v -run '^TestChaos$$' ./lib/chaos

# The oldest and the newest TimescaleDB only.
short:
	go test -count=1 -p 2 -timeout 40m -short ./...

# Data races, in the packages and in the commands at work. Needs a C compiler.
race: export CGO_ENABLED = 1
race: export GORACE = atexit_sleep_ms=0
race:
	go test -count=1 -p 2 -timeout 40m -short -race ./lib/task ./lib/pg ./lib/tsdb ./lib/queue ./lib/verify \
	  ./lib/cli ./lib/jobs
	go test -count=1 -timeout 40m -short -race -run 'TestPipelines|TestVerify$$|TestAttachRace' ./lib/e2e

demo: build
	PATH="$(CURDIR)/bin:$$PATH" scripts/testbed run scripts/demo

demo-postgres: build
	PATH="$(CURDIR)/bin:$$PATH" scripts/testbed run scripts/demo-postgres

bench: build
	PATH="$(CURDIR)/bin:$$PATH" scripts/testbed run --tcp go run ./lib/bench || echo "bench: nothing was measured"

lint:
	@unformatted=$$(gofmt -l cmd lib); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	@if command -v shellcheck >/dev/null; then echo shellcheck $(SHELLS); shellcheck $(SHELLS); \
	else echo "lint: no shellcheck here, scripts not checked"; fi
	@if command -v mandoc >/dev/null; then echo mandoc -Tlint; mandoc -Tlint -W warning $(MAN); \
	else echo "lint: no mandoc here, manual pages not checked"; fi
	@echo govulncheck; out=$$(go run $(GOVULNCHECK) ./... 2>&1) || case "$$out" in \
	*"fetching vulnerabilities"*) echo "lint: vulnerability database unreachable, not checked" ;; \
	*) echo "$$out"; exit 1 ;; esac

# The commands are run for their --help.
completions: build
	mkdir -p bin/completions
	for s in $(TOOLS); do cp scripts/$$s bin/completions/bf-$$s || exit; done
	PATH="$(CURDIR)/bin:$$PATH" scripts/completions bin/completions bin/bf-* bin/completions/bf-*

install: completions files

# What is installed: the commands in BIN, and the rest.
BIN = bin
files:
	install -d "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 $(BIN)/bf-* "$(DESTDIR)$(PREFIX)/bin"
	install -d "$(DESTDIR)$(PREFIX)/share/bash-completion/completions" "$(DESTDIR)$(PREFIX)/share/zsh/site-functions"
	install -m 644 bin/completions/bash/* "$(DESTDIR)$(PREFIX)/share/bash-completion/completions"
	install -m 644 bin/completions/zsh/* "$(DESTDIR)$(PREFIX)/share/zsh/site-functions"
	for s in $(TOOLS); do install -m 755 scripts/$$s "$(DESTDIR)$(PREFIX)/bin/bf-$$s" || exit; done
	for m in $(MAN); do install -d "$(DESTDIR)$(MANDIR)/man$${m##*.}" && \
	  install -m 644 $$m "$(DESTDIR)$(MANDIR)/man$${m##*.}" || exit; done

dist: clean archives packages
	cd dist && { sha256sum *.tar.gz *.deb *.rpm || shasum -a 256 *.tar.gz *.deb *.rpm; } 2>/dev/null >SHA256SUMS

ARCHITECTURES = amd64 arm64
PACKAGES      = deb rpm
packages: completions
	set -e; for arch in $(ARCHITECTURES); do \
	  GOOS=linux GOARCH=$$arch $(GOBUILD) -o dist/$$arch/ ./cmd/...; \
	  $(MAKE) -s files BIN=dist/$$arch DESTDIR=dist/root-$$arch PREFIX=/usr MANDIR=/usr/share/man; \
	  install -D -m 644 LICENSE dist/root-$$arch/usr/share/doc/bf/copyright; \
	  mv dist/root-$$arch/usr/share/zsh dist/zsh-$$arch; \
	  for p in $(PACKAGES); do \
	    ARCH=$$arch VERSION="$(PACKAGED)" go run $(NFPM) package --config .nfpm.yaml --packager $$p --target dist/; \
	  done; \
	  rm -r dist/$$arch dist/root-$$arch dist/zsh-$$arch; \
	done

archives:
	set -e; for platform in linux-amd64 linux-arm64 darwin-amd64 darwin-arm64; do \
	  name=bf-$(VERSION)-$$platform; mkdir -p dist/$$name; \
	  GOOS=$${platform%-*} GOARCH=$${platform#*-} $(GOBUILD) -o dist/$$name/ ./cmd/...; \
	  for s in $(TOOLS); do cp scripts/$$s dist/$$name/bf-$$s; done; \
	  cp LICENSE README.md dist/$$name; \
	  for m in $(MAN); do mkdir -p dist/$$name/man/man$${m##*.}; cp $$m dist/$$name/man/man$${m##*.}; done; \
	  tar -C dist -czf dist/$$name.tar.gz $$name; rm -r dist/$$name; \
	done

clean:
	rm -rf bin dist
