# shellcheck shell=bash
# Completion of the six commands, of the scripts and of wal-g, for bash; zsh runs
# it too (see _walg). Options and commands come from --help, so that they are
# those of the version that is installed. Names of backups are asked of the
# storage, with the settings of this shell, for at most two seconds.

_walg_options() { # PROGRAM [COMMAND]
	"$@" --help 2>/dev/null | sed -n 's/^  *\(-[A-Za-z], \)\{0,1\}\(--[a-z][a-z-]*\).*/\2/p'
}

_walg_commands() { # PROGRAM
	"$1" --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p'
}

_walg_backups() {
	# Names come from the storage, and the shell expands what it completes.
	timeout 2 walg-retain list 2>/dev/null | sed -n '1d; s/ .*//; /^[A-Za-z0-9_.-]*$/p'
	echo LATEST
}

# _walg_delete prints what may come after these words of delete.
_walg_delete() {
	local word mode='' modifier='' skip=''
	for word; do
		[ -z "$skip" ] || { skip='' && continue; }
		case $word in
		--after | --grace | --system | --batch | --segment-size | --prefix | --storage-prefix | --target-user-data) skip=yes ;;
		-*) ;;
		retain | before | target | everything | garbage) mode=$word ;;
		*) modifier=$word ;;
		esac
	done
	case $mode,$modifier in
	,) echo 'retain before target everything garbage' ;;
	retain,) echo 'FULL FIND_FULL' ;;
	before, | target,) echo FIND_FULL && _walg_backups ;;
	before,FIND_FULL | target,FIND_FULL) _walg_backups ;;
	everything,) echo FORCE ;;
	garbage,) echo 'ARCHIVES BACKUPS' ;;
	esac
}

_walg() {
	local program=${COMP_WORDS[0]} current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
	local name=${program##*/} at=1 command='' words='' i operands=''
	COMPREPLY=()
	# wal-g backup-list is walg-backup-list, and that is walg-retain list.
	if [ "$name" = wal-g ]; then
		if [ "$COMP_CWORD" = 1 ]; then
			words=$("$program" help 2>/dev/null | sed -n 's/.*\] \([a-z|-]*\) ARGUMENT.*/\1/p' | tr '|' ' ')
			# shellcheck disable=SC2207 # names have no blanks
			COMPREPLY=($(compgen -W "$words" -- "$current"))
			return
		fi
		name=walg-${COMP_WORDS[1]} at=2
	fi
	case $name in
	walg-tar | walg-retain)
		if [ "$COMP_CWORD" = "$at" ]; then
			# shellcheck disable=SC2207
			COMPREPLY=($(compgen -W "$(_walg_commands "$program")" -- "$current"))
			return
		fi
		command=${COMP_WORDS[at]} at=$((at + 1)) name=$program ;;
	walg-backup-list) command=list name=walg-retain ;;
	walg-backup-mark) command=mark name=walg-retain ;;
	walg-delete) command=delete name=walg-retain ;;
	walg-wal-show) command=wal-show name=walg-retain ;;
	walg-wal-verify) command=wal-verify name=walg-retain ;;
	walg-backup-fetch) command=fetch ;;
	esac
	for ((i = at; i < COMP_CWORD; i++)); do
		operands="$operands ${COMP_WORDS[i]}"
	done
	case $current in
	-*)
		case $command in
		fetch) words='--tablespace-mapping --restore-spec' ;;
		'') words=$(_walg_options "$name") ;;
		*) words=$(_walg_options "$name" "$command") ;;
		esac ;;
	*)
		case $command,$previous in
		*,--after) words=$(_walg_backups) ;;
		show,* | chain,* | parts,* | mark,*) words=$(_walg_backups) ;;
		delete,*)
			# shellcheck disable=SC2086 # they are words
			words=$(_walg_delete $operands) ;;
		wal-verify,*) words='integrity timeline' ;;
		fetch,*) [ -z "$operands" ] || words=$(_walg_backups) ;;
		esac
		if [ "$name" = walg-compress ] || [ "$name" = walg-crypt ]; then
			case $name,$previous in
			walg-compress,-m | walg-compress,--method) words='lz4 zstd brotli lzma none' ;;
			walg-crypt,-m | walg-crypt,--method) words='openpgp libsodium aws-kms yc-kms none auto' ;;
			esac
		fi ;;
	esac
	# Where nothing is proposed the shell completes names of files.
	# shellcheck disable=SC2207
	COMPREPLY=($(compgen -W "$words" -- "$current"))
}

complete -o default -F _walg walg-tar walg-compress walg-crypt walg-put walg-get walg-retain \
	wal-g walg-backup-list walg-backup-mark walg-backup-fetch walg-backup-push walg-delete \
	walg-wal-show walg-wal-verify
