#!/bin/sh
# Runs all tests with coverage of the packages and of the programs that the
# tests start, and prints the share of each function. Programs also run as other
# users, so the counters go to a folder that anyone may write in.
set -eu
cd "$(dirname "$0")/../.."

counters=$(mktemp -d)
trap 'rm -rf "$counters"' EXIT
trap 'exit 1' HUP INT TERM
chmod 777 "$counters" # not 1777: users replace each other's files

# With -cover go test puts its own folder in the place of ours, so the tests
# whose programs count run without.
status=0
go test -count=1 -cover -coverpkg=walg/... ./lib/... ./cmd/... -args -test.gocoverdir="$counters" || status=$?
GOCOVERDIR=$counters go test -count=1 -timeout 60m ./scripts/test/... || status=$?
mkdir -p build
go tool covdata textfmt -i="$counters" -o build/coverage.txt
go tool cover -func=build/coverage.txt
exit "$status"
