# shellcheck shell=sh disable=SC2154 # of server.sh
# OpenStack's Swift: the proxy and one server each for accounts, containers and
# objects, with one copy of all on one device, which is a folder; memcached,
# where tokens are kept; for version 3 of the authentication, Keystone.
#
# Swift reads /etc/swift/swift.conf wherever the other files are. Debian's is
# good: limits are the defaults. Timeouts are not: on a busy machine the proxy would
# give its only servers up, and listings would lag behind.

need swift-ring-builder /usr/bin/swift-proxy-server memcached
user=
if $root; then user=swift; fi
memcached=$((port + 1)) keystone=$((port + 2))
mkdir -p "$dir/etc" "$dir/devices/d1"

offset=3
for type in account container object; do
	cat >"$dir/etc/$type-server.conf" <<-CONF
		[DEFAULT]
		bind_ip = 127.0.0.1
		bind_port = $((port + offset))
		workers = 0
		user = ${user:-$(id -un)}
		swift_dir = $dir/etc
		devices = $dir/devices
		mount_check = false
		disable_fallocate = true
		conn_timeout = 10
		node_timeout = 30
		container_update_timeout = 30
		fallocate_reserve = 0
		log_address = $dir/no-syslog
		[pipeline:main]
		pipeline = $type-server
		[app:$type-server]
		use = egg:swift#$type
	CONF
	ring=$dir/etc/$type.builder
	for command in "create 6 1 1" "add r1z1-127.0.0.1:$((port + offset))/d1 1" rebalance; do
		# shellcheck disable=SC2086 # its words
		swift-ring-builder "$ring" $command >"$dir/log/ring" 2>&1 || failed "has no $type ring"
	done
	offset=$((offset + 1))
done

auth=tempauth
if [ "$name" = swift-v3 ]; then
	auth='authtoken keystoneauth'
	# shellcheck source=keystone.sh
	. "$here/servers/keystone.sh"
fi
cat >"$dir/etc/proxy-server.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $port
workers = 0
user = ${user:-$(id -un)}
swift_dir = $dir/etc
log_address = $dir/no-syslog
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache bulk tempurl $auth copy slo dlo versioned_writes proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 10
node_timeout = 30
error_suppression_limit = 1000000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$memcached
[filter:bulk]
use = egg:swift#bulk
[filter:tempurl]
use = egg:swift#tempurl
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = $secret .admin
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = http://127.0.0.1:$keystone
auth_url = http://127.0.0.1:$keystone
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = walg
username = walg
password = $secret
delay_auth_decision = True
cache = swift.cache
include_service_catalog = False
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin
CONF
if [ -n "$user" ]; then
	chown -R "$user:" "$dir/etc" "$dir/devices"
fi
run memcached "$user" memcached -l 127.0.0.1 -p "$memcached" -U 0 -m 16
for type in account container object proxy; do
	run "$type" "$user" "/usr/bin/swift-$type-server" "$dir/etc/$type-server.conf" -v
done
for offset in 3 4 5; do await has_listener $((port + offset)); done
await ask -f "http://127.0.0.1:$port/healthcheck"
[ "$name" = swift ] || await ask -f "http://127.0.0.1:$keystone/v3"

# header NAME prints that header's value, of the response read.
header() { tr -d '\r' | sed -n "s/^$1: //Ip"; }

if [ "$name" = swift ]; then
	url=http://127.0.0.1:$port/auth/v1.0
	reply=$(ask -f -i -H "X-Auth-User: test:tester" -H "X-Auth-Key: $secret" "$url") || failed "gave no token"
	storage=$(echo "$reply" | header X-Storage-Url) token=$(echo "$reply" | header X-Auth-Token)
	setting "OS_AUTH_URL=$url"
	setting "OS_USERNAME=test:tester"
else
	url=http://127.0.0.1:$keystone/v3
	storage=http://127.0.0.1:$port/v1/AUTH_$project
	token=$(ask -f -i -H 'Content-Type: application/json' -d '{"auth": {
		"identity": {"methods": ["password"], "password": {"user": {"name": "walg", "domain": {"id": "default"}, "password": "'"$secret"'"}}},
		"scope": {"project": {"name": "walg", "domain": {"id": "default"}}}}}' "$url/auth/tokens" | header X-Subject-Token)
	[ -n "$token" ] || failed "gave no token"
	setting "OS_IDENTITY_API_VERSION=3"
	setting "OS_AUTH_URL=$url"
	setting "OS_USERNAME=walg"
	setting "OS_PROJECT_NAME=walg"
	setting "OS_USER_DOMAIN_NAME=Default"
	setting "OS_PROJECT_DOMAIN_NAME=Default"
	setting "OS_REGION_NAME=RegionOne"
fi
await ask -f -o /dev/null -X PUT -H "X-Auth-Token: $token" "$storage/walg"
setting "OS_PASSWORD=$secret"
setting "WALG_SWIFT_PREFIX=swift://walg/test"
