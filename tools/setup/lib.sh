# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# How a set-up step runs: skipped if its inputs have not changed, shown with
# its progress and its duration, and either complete or absent.

# One line, aligned: name, what the step does, its result.
say_step()
{
	printf '%-14s %-50s %s\n' "$1" "$2" "$3"
}

# Ends a step, or the whole set-up, with one sentence for the user.
die()
{
	if [ -n "${STEP_SENTENCE:-}" ]; then
		printf '%s\n' "$*" >"$STEP_SENTENCE"
	else
		printf 'setup: %s\n' "$*" >&2
	fi
	exit 1
}

digest()
{
	sha256sum | cut -c1-16
}

# Digest of files and directories: names and contents, in a fixed order.
digest_of()
{
	find "$@" -type f ! -name '*.pyc' ! -path '*/target/*' -print0 |
		LC_ALL=C sort -z | xargs -0 sha256sum | sed "s|$TOP/||" | digest
}

version_at_least()
{
	[ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n1)" = "$2" ]
}

duration()
{
	if [ "$1" -ge 60 ]; then
		printf '%dm%02ds' $(($1 / 60)) $(($1 % 60))
	else
		printf '%ds' "$1"
	fi
}

# If the disk is full, a step's own errors seldom name that cause.
need_space()
{
	local free
	free=$(df -Pk "$CACHE" | awk 'NR == 2 { print int($4 / 1048576) }')
	[ "$free" -ge "$1" ] ||
		die "$CACHE has $free GiB free and this step needs $1: make room," \
			"or name a larger disk with CACHE="
}

# The progress of a step: its last line of output, and the amount of output.
progress()
{
	printf '%s lines, ' "$(wc -l <"$1")"
	tail -c 2000 "$1" 2>/dev/null | tr '\r' '\n' | grep -v '^[[:space:]]*$' |
		tail -n1 | tr -d '\033' | cut -c1-48 || true
}

# Parts of the set-up that run beside each other: the processes, and which of them this is,
# nothing while it is the only one. On a terminal they take turns with the last line.
LANES=()
LANE=

is_my_turn()
{
	[ -z "$LANE" ] || [ $((EPOCHSECONDS / 2 % 3)) -eq "$LANE" ]
}

run_lane()
{
	LANE=$1
	LANES=()
	trap 'rc=$?; stop_step; [ "$rc" -eq 0 ] || kill -TERM $$' EXIT
	trap 'exit 143' TERM
	"${@:2}"
}

# lane NUMBER FUNCTION [ARGUMENT...]: runs the function beside what follows, until join_lanes.
# If it fails, the whole set-up ends.
lane()
{
	LANE=0
	run_lane "$@" &
	LANES+=($!)
}

join_lanes()
{
	wait "${LANES[@]}"
	LANES=()
	LANE=
}

# Waits for the process, and regularly shows that it is alive.
watch_step()
{
	local pid=$1 name=$2 what=$3 log=$4 begun=$SECONDS said=$SECONDS
	while kill -0 "$pid" 2>/dev/null; do
		if [ -t 1 ]; then
			! is_my_turn ||
				printf '\r\033[K%-14s %-50.50s %s  %s' "$name" "$what" \
					"$(duration $((SECONDS - begun)))" "$(progress "$log")"
		elif [ $((SECONDS - said)) -ge 60 ]; then
			said=$SECONDS
			say_step "$name" "$what" \
				"... $(duration $((SECONDS - begun))), $(progress "$log")"
		fi
		sleep 0.3
	done
	if [ -t 1 ]; then
		printf '\r\033[K'
	fi
}

STEP_PID=
stop_step()
{
	if [ -n "$STEP_PID" ]; then
		kill -TERM -- "-$STEP_PID" 2>/dev/null || true
		STEP_PID=
	fi
	if [ ${#LANES[@]} -gt 0 ]; then
		kill -TERM "${LANES[@]}" 2>/dev/null || true
		LANES=()
	fi
}

# run_step NAME WHAT KEY COMMAND...: runs the command, a function, unless it succeeded with
# this KEY before.  With a KEY of "always" the caller decides.
run_step()
{
	local name=$1 what=$2 key=$3
	local stamp=$CACHE/stamps/$name log=$CACHE/log/$name.log rc=0 begun=$SECONDS

	shift 3
	if [ "$key" != always ] && [ "$(cat "$stamp" 2>/dev/null)" = "$key" ]; then
		if [ "$V" = 1 ]; then
			say_step "$name" "$what" "done before"
		fi
		return 0
	fi
	rm -f "$stamp"
	: >"$log"
	STEP_SENTENCE=$CACHE/log/$name.sentence
	rm -f "$STEP_SENTENCE"
	export STEP_SENTENCE

	# A separate process group, so that an interrupted set-up can end all
	# that the step has started.
	set -m
	( set -euo pipefail; "$@" ) >"$log" 2>&1 </dev/null 9>&- &
	STEP_PID=$!
	set +m
	watch_step "$STEP_PID" "$name" "$what" "$log"
	wait "$STEP_PID" || rc=$?
	STEP_PID=

	if [ "$rc" -ne 0 ]; then
		local sentence="it ended with status $rc"
		if [ -s "$STEP_SENTENCE" ]; then
			sentence=$(cat "$STEP_SENTENCE")
		elif grep -q 'No space left on device' "$log"; then
			sentence="the disk is full: make room, or name a larger disk with CACHE="
		fi
		say_step "$name" "$what" "FAILED after $(duration $((SECONDS - begun)))"
		if [ ! -t 1 ]; then
			tail -n 25 "$log" | sed 's/^/    | /'
		fi
		unset STEP_SENTENCE
		die "$name: $sentence (log: $log)"
	fi
	unset STEP_SENTENCE
	if [ "$key" != always ]; then
		printf '%s\n' "$key" >"$stamp.new"
		mv "$stamp.new" "$stamp"
	fi
	say_step "$name" "$what" "$(duration $((SECONDS - begun)))"
}
