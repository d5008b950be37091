# shellcheck shell=sh disable=SC2154,SC2034,SC2086 # of and for server.sh and swift.sh
# Keystone, for swift.sh; it sets project, a number, and secret. Its database takes
# half a minute to make, so it is made once for each version of the package and
# copied; only addresses and the catalogue of services differ from run to run.

need keystone-manage uwsgi_python3 dpkg-query
owner=
if $root; then owner=keystone; fi

# conf FOLDER prints the configuration with all state in FOLDER.
conf() {
	cat <<-CONF
		[DEFAULT]
		use_stderr = true
		log_file =
		log_dir =
		[database]
		connection = sqlite:///$1/keystone.db
		[fernet_tokens]
		key_repository = $1/fernet
		[fernet_receipts]
		key_repository = $1/receipts
		[credential]
		key_repository = $1/credential
		[identity]
		password_hash_rounds = 4
		[cache]
		enabled = true
		backend = oslo_cache.dict
	CONF
}

# manage ARGUMENT... is keystone-manage on the new state.
manage() {
	set -- env -i PATH="$PATH" HOME="$new" LC_ALL=C keystone-manage --config-file "$new/keystone.conf" "$@"
	[ -z "$owner" ] || set -- setpriv --reuid "$owner" --regid "$owner" --init-groups "$@"
	"$@" </dev/null 3<&- 8>&- 9>&-
}

# Without the journal's mode requests find the database locked.
prepare() {
	group="--keystone-user ${owner:-$(id -un)} --keystone-group ${owner:-$(id -gn)}"
	rm -rf "$cache"/.keystone.* "$cache"/keystone-* &&
		new=$(mktemp -d "$cache/.keystone.XXXXXX") &&
		chmod 755 "$new" &&
		mkdir -m 700 "$new/fernet" "$new/receipts" "$new/credential" &&
		conf "$new" >"$new/keystone.conf" &&
		random 16 >"$new/password" &&
		if [ -n "$owner" ]; then chown -R "$owner:" "$new"; fi &&
		manage db_sync &&
		/usr/bin/python3 -c 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute("pragma journal_mode=wal")' "$new/keystone.db" &&
		manage fernet_setup $group &&
		manage credential_setup $group &&
		manage bootstrap --bootstrap-username walg --bootstrap-password "$(cat "$new/password")" \
			--bootstrap-project-name walg --bootstrap-role-name admin \
			--bootstrap-service-name keystone --bootstrap-region-id RegionOne \
			--bootstrap-public-url http://keystone/v3 --bootstrap-internal-url http://keystone/v3 --bootstrap-admin-url http://keystone/v3 &&
		mv "$new" "$1"
}

# The number changes with what the state is made with.
state=$cache/keystone-2-$(dpkg-query -W -f '${Version}' keystone)
exec 8>"$cache/keystone.lock"
flock 8
[ -d "$state" ] || prepare "$state" >"$dir/log/keystone-manage" 2>&1 || failed "has no Keystone"
cp -a "$state" "$dir/keystone"
exec 8>&-
began=$(date +%s)

conf "$dir/keystone" >"$dir/keystone/keystone.conf"
secret=$(cat "$dir/keystone/password")
project=$(/usr/bin/python3 -c '
import sqlite3, sys
database, keystone, swift = sys.argv[1:]
db = sqlite3.connect(database)
db.execute("update endpoint set url = replace(url, ?, ?)", ("http://keystone", "http://" + keystone))
db.execute("insert into service (id, type, enabled, extra) values (?, ?, 1, ?)", ("swift", "object-store", "{\"name\": \"swift\"}"))
for interface in "public", "internal", "admin":
    db.execute("insert into endpoint (id, interface, service_id, url, extra, enabled, region_id) values (?, ?, ?, ?, ?, 1, ?)",
        ("swift-" + interface, interface, "swift", "http://" + swift + "/v1/AUTH_%(project_id)s", "{}", "RegionOne"))
db.commit()
print(db.execute("select id from project where name = ?", ("walg",)).fetchone()[0])
' "$dir/keystone/keystone.db" "127.0.0.1:$keystone" "127.0.0.1:$port") || failed "has no project"
[ -z "$owner" ] || chown -R "$owner:" "$dir/keystone"

run keystone "$owner" OS_KEYSTONE_CONFIG_DIR="$dir/keystone" OS_KEYSTONE_CONFIG_FILES=keystone.conf \
	uwsgi_python3 --http-socket "127.0.0.1:$keystone" --wsgi-file /usr/bin/keystone-wsgi-public \
	--master --no-orphans --workers 1 --threads 1 --enable-threads --die-on-term --need-app --buffer-size 65535
