#!/bin/sh
# The handler of the conformance suite: it does what the item's "do" says. Plain sh,
# without jq: it reads the few fields it knows the place of, and wants
# items_in_flight: 1, since it waits for its answers in line.

frame() { printf '%s\n' "$1" >&3; }
exec 3>&1 1>&2 # prints become logs, never frames

# text <name>: a string of the frame; number <name>: a number of it.
text() { v=${line#*\"$1\":\"}; [ "$v" = "$line" ] && v= || v=${v%%\"*}; }
number() { v=${line#*\"$1\":}; [ "$v" = "$line" ] && v= || v=${v%%[,\}]*}; }

run() {
	number id; id=$v
	number attempt; attempt=$v
	text key; key=$v
	text cursor; cursor=${v:-0}
	text do
	set -f
	OIFS=$IFS; IFS=';'; set -- $v; IFS=$OIFS
	for cmd in "$@"; do
		set -- $cmd
		if [ "$1" = try ]; then
			[ "$attempt" = "$2" ] || continue
			shift 2
		fi
		case $1 in
		row) frame "{\"t\":\"row\",\"id\":$id,\"row\":{\"key\":\"$key\",\"n\":$2}}" ;;
		cursor) frame "{\"t\":\"row\",\"id\":$id,\"row\":{\"key\":\"$key\",\"n\":$cursor}}" ;;
		ok) frame "{\"t\":\"ok\",\"id\":$id}" ;;
		err)
			more=
			case $3 in retry) more=',"retry":true' ;; final) more=',"retry":false' ;; esac
			[ -n "$4" ] && more="$more,\"after_ms\":$4"
			[ -n "$5" ] && more="$more,\"status\":$5"
			frame "{\"t\":\"err\",\"id\":$id,\"class\":\"$2\",\"msg\":\"as told\"$more}"
			return
			;;
		need)
			frame "{\"t\":\"need\",\"id\":$id,\"rate\":\"$2\",\"key\":\"$3\",\"n\":$4}"
			IFS= read -r line
			number n
			frame "{\"t\":\"row\",\"id\":$id,\"row\":{\"key\":\"$key\",\"n\":$v}}"
			;;
		back) frame "{\"t\":\"back\",\"id\":$id,\"remaining\":0,\"reset_ms\":2000}" ;;
		beat) frame "{\"t\":\"beat\",\"id\":$id,\"done\":$2,\"of\":$3}" ;;
		mark) frame "{\"t\":\"mark\",\"id\":$id,\"cursor\":\"$2\"}" ;;
		metric) frame "{\"t\":\"metric\",\"id\":$id,\"name\":\"$3\",\"$2\":$4}" ;;
		log) echo "log of $key $2" ;;
		crash) echo "about to die"; kill -KILL $$ ;;
		hang)
			while IFS= read -r line; do case $line in *'"t":"cancel"'*) break ;; esac; done
			frame "{\"t\":\"err\",\"id\":$id,\"class\":\"cancelled\",\"msg\":\"as asked\"}"
			return
			;;
		stuck)
			trap '' TERM
			frame "{\"t\":\"beat\",\"id\":$id,\"done\":$2,\"of\":$3}"
			while :; do :; done
			;;
		esac
	done
}

while IFS= read -r line; do
	case $line in
	*'"t":"hello"'*) frame '{"t":"ready","proto":1,"name":"conform.sh"}' ;;
	*'"t":"list"'*)
		number id
		for n in 0 1 2; do frame "{\"t\":\"record\",\"id\":$v,\"item\":{\"word\":\"l$n\",\"params\":1}}"; done
		frame "{\"t\":\"ok\",\"id\":$v}"
		;;
	*'"t":"item"'*) run ;;
	*'"t":"stop"'*) break ;;
	esac
done
frame '{"t":"bye"}'
