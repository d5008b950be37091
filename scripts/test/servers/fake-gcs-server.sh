# shellcheck shell=sh disable=SC2154 # of server.sh
# An emulator of Google's storage: not the real thing, which nobody can run. It
# asks for no credentials. Without -public-host every read is a 404. Objects are
# in memory, since versioning is an error with files.

need fake-gcs-server
run fake-gcs-server '' \
	fake-gcs-server -scheme http -host 127.0.0.1 -port "$port" -backend memory \
	-external-url "http://127.0.0.1:$port" -public-host "127.0.0.1:$port" -log-level warn
await ask -f "http://127.0.0.1:$port/_internal/healthcheck"
ask -f -o /dev/null -H 'Content-Type: application/json' -d '{"name":"walg"}' \
	"http://127.0.0.1:$port/storage/v1/b?project=test" || failed "made no bucket"

setting "STORAGE_EMULATOR_HOST=127.0.0.1:$port"
setting "WALG_GS_PREFIX=gs://walg/test"
