# shellcheck shell=sh disable=SC2154 # cache and go are of tools.sh
# The programs that go install builds, staticcheck among them, and the storage
# servers of the tests. Part of tools.sh, which sources it and gives it need,
# die, cache and go.

programs='
staticcheck honnef.co/go/tools/cmd/staticcheck v0.8.2
minio github.com/minio/minio v0.0.0-20260212201848-7aac2a2c5b7c
fake-gcs-server github.com/fsouza/fake-gcs-server v1.56.1
toxiproxy-server github.com/Shopify/toxiproxy/v2/cmd/server v2.5.0
toxiproxy-cli github.com/Shopify/toxiproxy/v2/cmd/cli v2.5.0
versitygw github.com/versity/versitygw/cmd/versitygw v1.8.0'
azurite=3.37.0

# need_servers adds the packages of Debian's servers, and those of the programs
# that start, ask and measure them. Absolute names where another program of the
# same name may come first in PATH.
need_servers() {
	need swift /usr/bin/swift-ring-builder
	need swift-proxy /usr/bin/swift-proxy-server
	need swift-account /usr/bin/swift-account-server
	need swift-container /usr/bin/swift-container-server
	need swift-object /usr/bin/swift-object-server
	need python3-swiftclient /usr/bin/swift
	need memcached memcached
	need keystone keystone-manage uwsgi_python3
	need sshpass sshpass
	need curl curl
	need procps ps
	need openssl openssl
	need python3 /usr/bin/python3
	need awscli /usr/bin/aws
	need rclone rclone
	need hyperfine hyperfine
	need time /usr/bin/time
	have_azurite || need npm node npm
}

# A program's name says its version and Go's: staticcheck reads no code for a
# newer Go than its own. The plain name is a link to the one in use. It is made
# last, by a rename, from a folder that the next run removes.
have_program() { [ -x "$cache/bin/$1" ] && [ "$(readlink "$cache/bin/$1")" = "$1-$3-$go" ]; }
get_program() {
	have_program "$@" && return
	echo "tools: building $1 $3" >&2
	tmp=$(mktemp -d "$cache/.tmp.XXXXXX")
	mkdir -p "$cache/bin" "$tmp/bin"
	CGO_ENABLED=0 GOBIN=$tmp/bin GOFLAGS='' go install -trimpath -ldflags='-s -w' "$2@$3" </dev/null || die "go install $2@$3"
	mv "$tmp/bin/${2##*/}" "$cache/bin/$1-$3-$go"
	ln -s "$1-$3-$go" "$tmp/link"
	mv "$tmp/link" "$cache/bin/$1"
	rm -rf "$tmp"
}

# Azurite is a folder like those of PostgreSQL: its last file is the version.
have_azurite() {
	installed=
	[ ! -r "$cache/azurite/version" ] || read -r installed <"$cache/azurite/version"
	[ "$installed" = "$azurite" ]
}
get_azurite() {
	have_azurite && return
	echo "tools: installing azurite $azurite" >&2
	tmp=$(mktemp -d "$cache/.tmp.XXXXXX")
	npm install --silent --prefix "$tmp/azurite" --omit=dev --no-audit --no-fund "azurite@$azurite" </dev/null >&2 || die "npm install azurite@$azurite"
	chmod -R a+rX "$tmp/azurite"
	echo "$azurite" >"$tmp/azurite/version"
	rm -rf "$cache/azurite"
	mv "$tmp/azurite" "$cache/azurite"
	rm -rf "$tmp"
}

get_servers() {
	while read -r name package version; do
		[ -z "$name" ] || have_program "$name" "$package" "$version" || with_lock get_program "$name" "$package" "$version"
	done <<-LIST
		$programs
	LIST
	have_azurite || with_lock get_azurite
}
