#!/bin/bash
# A local agent in shell and curl: tells margay the routes of a file, `PREFIX INTERFACE` a line, and all of them anew when it has changed.
# margay writes them to the kernel and announces them. When margay goes away, so does curl: come back, tell everything.
# Usage: agent.sh NAME FILE [SOCKET]
name=$1 file=$2 socket=${3:-/run/margay/margay.sock}

table() { # the whole table: what is not in it goes
    echo '{"word":"begin"}'
    while read -r prefix dev _; do
        [ -n "$dev" ] && echo "{\"word\":\"upsert\",\"prefix\":\"$prefix\",\"dev\":\"$dev\"}"
    done < "$file"
    echo '{"word":"end"}'
}

follow() { # the table now and whenever the file is another; else an empty line, so that curl sees when margay has gone
    while kill -0 $$; do
        now=$(stat -c '%i %s %y' "$file")
        [ "$now" = "$seen" ] && echo || table
        seen=$now
        sleep 0.5
    done 2> /dev/null
}

while :; do
    exec {words}< <(follow)
    # `-T .` sends what comes as it comes (and draws a progress meter on stderr); the answers, a line each, go to the standard output.
    curl -sN --unix-socket "$socket" -X POST -T . -H 'Expect:' "http://margay/v1/agents/$name" <&"$words" 2> /dev/null
    echo "curl ended with $?: trying again" >&2
    exec {words}<&-
    sleep 1
done
