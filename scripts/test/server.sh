#!/bin/sh
# server.sh NAME [DIR]: one real storage server, on 127.0.0.1 and ports of its
# own choice, for the tests and for a try by hand.
#
# NAME is minio, minio-tls, versitygw, fake-gcs-server, azurite, azurite-tls,
# swift (authentication of version 1), swift-v3 (Keystone), sshd or toxiproxy.
# They come from tools.sh. As root, Swift and Keystone run as their own users;
# sshd needs root.
#
# DIR, an empty folder or none yet, takes the data, and stays; every user must be
# able to pass through it, and through those above it. Without it there is a
# temporary one, which goes at the end.
#
# When the server answers, stdout has lines NAME=VALUE, with all that a client
# needs under the names of the settings; lines PID=NUMBER, one per process
# started; and last "ready". A bucket or container walg is there.
#
# It ends, with status 0, at the end of its standard input, so that no server
# outlives the test that holds the pipe; at a signal; and, where stdin is a
# terminal or /dev/null, only at a signal. Status 1: the server could not
# start, or died.
# shellcheck disable=SC2034 # servers/*.sh use all of it
set -eu
umask 022
unset AWS_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR CURL_CA_BUNDLE REQUESTS_CA_BUNDLE # the servers' CA is ours
unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY
export LC_ALL=C TZ=UTC

die() { echo "server.sh: $1" >&2; exit 1; }

here=$(cd "$(dirname "$0")" && pwd)
cache=$("$here/tools.sh" --cache)
export PATH="$cache/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"
root=false
[ "$(id -u)" -ne 0 ] || root=true

name=${1:-}
scheme=http
case $name in
minio | versitygw | fake-gcs-server | azurite | swift | swift-v3 | sshd | toxiproxy) ;;
minio-tls | azurite-tls) scheme=https ;;
*) die "usage: server.sh minio|minio-tls|versitygw|fake-gcs-server|azurite|azurite-tls|swift|swift-v3|sshd|toxiproxy [DIR]" ;;
esac

# random BYTES prints that many random bytes in hex digits.
random() { od -An -v -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

# need PROGRAM... is for a clear message.
need() {
	for program; do
		command -v "$program" >/dev/null || die "$program is missing: run scripts/test/tools.sh"
	done
}

# has_listener PORT: whether the port is in use.
has_listener() { grep -qsi "^ *[0-9]*: [0-9A-F]*:$(printf %04X "$1") " /proc/net/tcp /proc/net/tcp6; }

# pick_ports sets port to the first of ten free ones. The lock keeps them for
# this run until it ends, so that two runs never pick the same; they are below
# those that the kernel gives to clients.
pick_ports() {
	mkdir -p "$cache/ports"
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		port=$((21000 + $(od -An -N2 -tu2 /dev/urandom) % 1000 * 10))
		exec 9>"$cache/ports/$port"
		flock -n 9 || continue
		for offset in 0 1 2 3 4 5 6 7 8 9; do
			! has_listener $((port + offset)) || continue 2
		done
		return
	done
	die "no free ports"
}

# run LOG USER [NAME=VALUE]... PROGRAM [ARGUMENT]... starts a process of the
# server, as USER if that is not empty and we are root. It has a process group
# of its own and nothing of our environment. If this shell is killed, it dies.
pids=
run() {
	log=$dir/log/$1 as=$2
	shift 2
	set -- env -i PATH="$PATH" HOME="$dir" LC_ALL=C TZ=UTC "$@"
	if $root && [ -n "$as" ]; then
		set -- --reuid "$as" --regid "$as" --init-groups "$@"
	fi
	setsid setpriv --pdeathsig KILL "$@" </dev/null >"$log" 2>&1 3<&- 9>&- &
	pids="$! $pids"
}

alive() {
	for pid in $pids; do
		kill -0 "$pid" 2>/dev/null || return 1
	done
}

failed() {
	echo "server.sh: $name $1" >&2
	for log in "$dir"/log/*; do
		echo "--- ${log##*/}" >&2
		tail -n 20 "$log" >&2
	done
	exit 1
}

# ask CURL-ARGUMENTS... is one request, without the caller's settings for curl.
ask() { curl -q -sS --max-time 10 --noproxy '*' "$@"; }

# await COMMAND... tries until it succeeds; a minute at most.
began=$(date +%s)
await() {
	until "$@" >/dev/null 2>&1; do
		alive || failed "ended at its start"
		[ $(($(date +%s) - began)) -lt 60 ] || failed "did not answer in 60 seconds"
		sleep 0.05
	done
	alive || failed "ended at its start"
}

# make_certificates makes a CA, and a server's certificate that it signed.
make_certificates() {
	need openssl
	mkdir "$dir/tls"
	printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >"$dir/tls/extensions"
	(
		cd "$dir/tls"
		openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 30 \
			-subj "/CN=walg test CA" -addext basicConstraints=critical,CA:TRUE
		openssl req -newkey rsa:2048 -nodes -keyout private.key -out server.csr -subj /CN=localhost
		openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out public.crt -days 30 -extfile extensions
	) >"$dir/log/openssl" 2>&1 || failed "has no certificate"
	cp "$dir/tls/ca.crt" "$dir/ca.crt"
}

# stop ends what was started, and what that started: sshd's connections have
# groups of their own. Nobody needs the data any more, so nobody is asked.
stop() {
	for pid in $pids; do
		below=$(ps -e -o pid= -o ppid= | awk -v of="$pid" '
			{ parent[$1] = $2 }
			END { for (p in parent) { for (q = p; q > 1 && q != of; q = parent[q]); if (q == of && p != of) print p } }')
		for child in $below; do kill -s KILL "$child" 2>/dev/null || :; done
		kill -s KILL -- "-$pid" 2>/dev/null || :
		wait "$pid" 2>/dev/null || :
	done
	pids=
}

finish() {
	status=$?
	trap '' HUP INT TERM PIPE
	[ -z "${watch:-}" ] || kill "$watch" 2>/dev/null || :
	stop
	if [ -n "$own" ]; then
		# What was killed may still be writing its last.
		rm -rf "$own" 2>/dev/null || { sleep 1; rm -rf "$own"; }
	fi
	exit "$status"
}

own='' dir=${2:-}
trap finish EXIT
trap 'exit 0' HUP INT TERM PIPE
if [ -z "$dir" ]; then
	if $root; then base=/tmp; else base=${TMPDIR:-/tmp}; fi
	own=$(mktemp -d "$base/walg-$name.XXXXXX")
	dir=$own
	chmod 755 "$dir"
else
	mkdir -p "$dir"
	dir=$(cd "$dir" && pwd)
	[ -z "$(ls -A "$dir")" ] || die "$dir is not empty"
fi
mkdir "$dir/log"

exec 3<&0
need curl flock setsid setpriv ps awk /usr/bin/python3
pick_ports
secret=$(random 16)
settings=
setting() { settings="$settings$1
"; }

# The file runs the server, waits until it answers, and collects the settings.
file=${name%-tls}
# shellcheck source=/dev/null # each of them is looked at by itself
. "$here/servers/${file%-v3}.sh"

printf %s "$settings"
for pid in $pids; do echo "PID=$pid"; done
echo ready

# The end of stdin and the death of a process are waited for at once, which no
# shell can.
# shellcheck disable=SC2086 # a list of numbers
setpriv --pdeathsig KILL /usr/bin/python3 -c '
import os, select, stat, sys
poll = select.poll()
for pid in sys.argv[1:]:
    poll.register(os.pidfd_open(int(pid)), select.POLLIN)
if not stat.S_ISCHR(os.fstat(0).st_mode):
    poll.register(0, select.POLLIN)
while True:
    for fd, _ in poll.poll():
        if fd != 0:
            sys.exit(1)
        if not os.read(0, 65536):
            sys.exit(0)
' $pids <&3 >/dev/null 9>&- &
watch=$!
wait "$watch" || failed "died"
