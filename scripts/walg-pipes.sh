# shellcheck shell=sh disable=SC2034 # the scripts use walg_ext
# walg-pipes.sh - the two pipelines of walg, sourced by the scripts.
#
#   walg_push FILE KEY OPTION...   FILE, or standard input where it is empty, to an object
#   walg_fetch KEY OPTION...       an object to standard output, or where OPTIONs of walg-compress say
#
# Each stage's end of file is earned, so the status of the last one is that of
# the first that failed. WALG_PIPES=nested runs each stage as the COMMAND of
# the next, for systems whose pipes cannot carry the stamp.

walg_fail() { # STATUS MESSAGE...
	walg_status=$1 && shift
	echo "${0##*/}: $*" >&2
	exit "$walg_status"
}

walg_nested() {
	case ${WALG_PIPES:-} in
	'') [ ! -e /proc/self/ns ] ;; # not Linux
	piped) return 1 ;;
	nested) return 0 ;;
	*) walg_fail 64 "setting WALG_PIPES=$WALG_PIPES: it is piped or nested" ;;
	esac
}

# A stage is the walg filter, or the user's program run by it. It takes the
# place of the subshell that it is called in.
walg_stage() { # FILTER COMMAND OPTION...
	walg_filter=$1 walg_command=$2 && shift 2
	[ -n "$walg_command" ] || exec "$walg_filter" "$@"
	# shellcheck disable=SC3040 # asked of the shell that has it only
	if (set -o pipefail) 2>/dev/null; then
		walg_command="set -o pipefail; $walg_command"
	fi # without it the filter warns of a | in the command
	exec "$walg_filter" "$@" --through -- sh -c "$walg_command"
}

# walg_find_ext sets walg_ext to the extension of new objects.
walg_find_ext() {
	if [ -n "${WALG_COMPRESS_COMMAND-}" ]; then
		walg_ext=${WALG_COMPRESS_EXT-}
		case $walg_ext in
		.?*) ;;
		*) walg_fail 64 'WALG_COMPRESS_COMMAND needs WALG_COMPRESS_EXT, such as .zst' ;;
		esac
	elif [ "${WALG_COMPRESSION_METHOD:-lz4}" = lz4 ]; then
		walg_ext=.lz4 # what --ext prints, without a process on the way of each segment
	else
		walg_ext=$(walg-compress --ext)
	fi
}

walg_push() {
	walg_source=$1 && shift
	if [ -n "$walg_source" ] && walg_nested; then
		[ -z "${WALG_COMPRESS_COMMAND-}${WALG_CRYPT_COMMAND-}" ] ||
			walg_fail 64 "WALG_PIPES=nested cannot run WALG_COMPRESS_COMMAND or WALG_CRYPT_COMMAND"
		walg-put "$@" -- walg-crypt -- walg-compress "$walg_source"
	else
		(walg_stage walg-compress "${WALG_COMPRESS_COMMAND-}" ${walg_source:+"$walg_source"}) |
			(walg_stage walg-crypt "${WALG_CRYPT_COMMAND-}") | walg-put "$@"
	fi
}

# walg_fetch passes its options to walg-compress -d; the method is that of the
# object's extension, not of its content.
walg_fetch() {
	walg_key=$1 walg_expand='' walg_method=none && shift
	case $walg_key in
	*.lz4) walg_method=lz4 ;;
	*.lzma) walg_method=lzma ;;
	*.br) walg_method=brotli ;;
	*.zst) walg_method=zstd ;;
	*.gz) walg_method=gzip ;;
	*.lzo) walg_method='' ;; # which walg-compress names
	esac
	if [ -n "${WALG_DECOMPRESS_COMMAND-}" ] && [ "${walg_key%"${WALG_COMPRESS_EXT:-/}"}" != "$walg_key" ]; then
		walg_method=none walg_expand=$WALG_DECOMPRESS_COMMAND
	fi
	if walg_nested; then
		[ -z "$walg_expand${WALG_DECRYPT_COMMAND-}" ] ||
			walg_fail 64 "WALG_PIPES=nested cannot run WALG_DECRYPT_COMMAND or WALG_DECOMPRESS_COMMAND"
		walg-compress -d ${walg_method:+-m "$walg_method"} "$@" -- walg-crypt -d -- walg-get "$walg_key"
	else
		walg-get "$walg_key" | (walg_stage walg-crypt "${WALG_DECRYPT_COMMAND-}" -d) |
			(walg_stage walg-compress "$walg_expand" -d ${walg_method:+-m "$walg_method"} "$@")
	fi
}
