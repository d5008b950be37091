#!/bin/sh
# Runs each fuzzer below the given folders for so long, seven at once with a
# worker each; what one finds it leaves in its package's testdata/fuzz.
#
# Where the time ends in an unlucky moment, Go takes its own deadline for a
# failure (go.dev/issue/75804): no input is told then, and that fuzzer runs again.
#
#   fuzz.sh TIME FOLDER...
set -eu
time=$1 && shift
# shellcheck disable=SC2016 # the shells that xargs starts expand it
grep -rHo '^func Fuzz[A-Za-z0-9]*' --include='*_test.go' "$@" | sed 's,/[^/:]*:func , ,' | sort |
	xargs -P 7 -L 1 sh -c '
		for try in 1 2 3; do
			said=$(go test -run "^$" -fuzz "^$3\$" -fuzztime "$1" -fuzzminimizetime 10x -parallel 1 "./$2" 2>&1) && status=0 || status=1
			case $status,$said in
			*"Failing input"*) break ;;
			1,*"    context deadline exceeded"*) echo "$2 $3: stopped by its own deadline, try $try" ;;
			*) break ;;
			esac
		done
		[ $status = 0 ] && said=$(printf "%s\n" "$said" | grep "^fuzz: " | tail -n 1)
		printf "%s %s\n%s\n" "$2" "$3" "$said"
		exit $status
	' fuzz "$time"
