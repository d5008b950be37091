#!/bin/sh
# make demo: a small database is backed up while it is written to, a table is
# dropped by mistake, and the moment before comes back. Everything happens in one
# temporary folder, with a server that only listens on a socket in it.
set -eu

say() { printf '%s\n' "demo: $*"; }
die() { say "$*" >&2; exit 1; }

# PostgreSQL refuses to run as root, so root makes the folder and hands it, with
# the programs and this script, to the user postgres.
if [ "${1:-}" != inside ]; then
	cd "$(dirname "$0")/../.."
	if [ "$(id -u)" -eq 0 ]; then base=/tmp; else base=${TMPDIR:-/tmp}; fi
	dir=$(mktemp -d "$base/walg-demo.XXXXXX")
	trap 'rm -rf "$dir"' EXIT
	trap 'exit 1' HUP INT TERM
	mkdir "$dir/bin" "$dir/store"
	find scripts -maxdepth 1 -type f -exec cp {} "$dir/bin/" \;
	cp bin/walg-* scripts/test/demo.sh "$dir/bin/"
	set -- "$dir/bin/demo.sh" inside "$dir"
	if [ "$(id -u)" -eq 0 ]; then
		chown -R postgres "$dir"
		set -- setpriv --reuid postgres --regid postgres --init-groups "$@"
	fi
	"$@"
	exit
fi

dir=$2
export HOME="$dir" PGDATA="$dir/data" PGHOST="$dir" PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
export WALG_FILE_PREFIX="$dir/store"
for bin in /usr/lib/postgresql/*/bin; do
	[ ! -x "$bin/pgbench" ] || PATH=$bin:$PATH
done
PATH=$dir/bin:$PATH
unset PGPASSWORD PGPASSFILE PGSERVICE PGOPTIONS PGSSLMODE
cd "$dir"

# start DATA starts the server there; it archives and restores with walg.
start() { pg_ctl -s -w -t 60 -D "$1" -l "$dir/$(basename "$1").log" start || { tail "$dir/$(basename "$1").log" >&2; die "the server in $1 did not start"; }; }
query() { psql -X -A -t -q -v ON_ERROR_STOP=1 -c "$1"; }
finish() {
	status=$?
	for data in "$dir/data" "$dir/restored"; do
		[ ! -e "$data/postmaster.pid" ] || pg_ctl -s -m immediate -D "$data" stop || :
	done
	exit "$status"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

say "1. a new PostgreSQL $(postgres --version | sed 's/[^0-9]*\([0-9]*\).*/\1/') cluster, archive_command = 'walg-wal-push %p'"
initdb --no-sync -k -A trust -U postgres --no-locale -E UTF8 -D "$PGDATA" >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; die "initdb"; }
cat >>"$PGDATA/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
archive_mode = on
archive_command = 'walg-wal-push %p'
restore_command = 'walg-wal-fetch %f %p'
CONF
start "$PGDATA"

say "2. pgbench loads 500,000 accounts, and goes on writing"
pgbench -i -q -s 5 >"$dir/pgbench.log" 2>&1 || { cat "$dir/pgbench.log" >&2; die "pgbench -i"; }
pgbench -n -c 2 -T 5 >>"$dir/pgbench.log" 2>&1 &
load=$!

say "3. walg-backup-push takes a base backup meanwhile"
name=$(walg-backup-push "$PGDATA" 2>"$dir/push.log") || { cat "$dir/push.log" >&2; die "walg-backup-push"; }
wait "$load"
walg-backup-list | grep -q "^$name " || die "walg-backup-list does not show $name"

sum="select count(*) || ' accounts, balances add up to ' || sum(abalance) from pgbench_accounts"
before=$(query "$sum")
moment=$(query 'select clock_timestamp()')
say "4. $name is stored; at $moment: $before"
query 'select pg_sleep(0.1)' >/dev/null
query 'drop table pgbench_accounts'
say "5. drop table pgbench_accounts. A mistake."
! query "$sum" >/dev/null 2>&1 || die "the table is still there"
pg_ctl -s -m fast -w -D "$PGDATA" stop # archives what is left

say "6. walg-backup-fetch restores the backup; recovery_target_time is the moment before"
walg-backup-fetch "$dir/restored" LATEST 2>"$dir/fetch.log" || { cat "$dir/fetch.log" >&2; die "walg-backup-fetch"; }
cat >>"$dir/restored/postgresql.conf" <<CONF
recovery_target_time = '$moment'
recovery_target_action = promote
CONF
touch "$dir/restored/recovery.signal"
start "$dir/restored"
for _ in $(seq 300); do
	[ "$(query 'select pg_is_in_recovery()')" = t ] || break
	sleep 0.2
done

after=$(query "$sum") || after="no table"
say "7. in the restored cluster: $after"
[ "$after" = "$before" ] || die "the table did not come back as it was"
say "the table is back"
