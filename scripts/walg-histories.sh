# shellcheck shell=sh
# walg-histories.sh - the history files of the archived timelines, sourced by
# the scripts after walg-pipes.sh.
#
#   walg_histories DIR     decodes all there are into DIR
#   walg_plain OPTION...   refuses options that only walg-retain would follow

walg_histories() {
	walg-get -l wal_005/ >"$1/all" # a file, so that half a list fails
	sed -n '/^wal_005\/[0-9A-F]\{8\}\.history/p' "$1/all" >"$1/keys"
	while IFS= read -r walg_key; do
		walg_name=${walg_key#wal_005/}
		case ${walg_name#*.history} in
		'' | .lz4 | .lzma | .br | .zst | .gz | .lzo | "${WALG_COMPRESS_EXT-}") ;;
		*) continue ;; # not WAL-G's
		esac
		walg_fetch "$walg_key" -o "$1/${walg_name%%.*}.history" </dev/null
	done <"$1/keys"
	rm "$1/all" "$1/keys"
}

walg_plain() {
	for walg_word; do
		case $walg_word in
		--prefix | --prefix=* | --storage-prefix | --storage-prefix=* | --histories | --histories=*)
			walg_fail 64 "${walg_word%%=*} is an option of walg-retain; here the settings name the store" ;;
		esac
	done
}
