# SPDX-License-Identifier: Apache-2.0
# What bad input gets: the documented exit code, a text that says what to do, nothing half-done.
# shellcheck shell=bash disable=SC2154

case_errors() {
    mkdir "$work/errors"
    check "a missing emulator: refused before the first step, with the command" missing_emulator
    check "a syntax error: code 3, file and line" \
        fails_with 3 "Dockerfile:2" $'FROM scratch\nRUM true\n'
    check "an unknown stage: code 3" \
        fails_with 3 "nowhere" $'FROM scratch AS somewhere\nCOPY Dockerfile /\n' --target nowhere
    check "a file that isn't there: code 3" \
        fails_with 3 "absent" $'FROM scratch\nCOPY absent /\n'
    check "a failing step: code 1, its last line, its exit code" failing_step
    check "a platform that the base lacks: code 4, those it has" \
        fails_with 4 "linux/arm64" "FROM $registry/debian:12"$'\nRUN true\n' --platform linux/s390x
    check "a registry that can't be reached: code 5" \
        fails_with 5 "127.0.0.1:9" $'FROM 127.0.0.1:9/nothing:1\nRUN true\n'
    check "an unknown flag: code 2" exits 2 in_store errors "$POLYARCH" build --no-such-flag "$work/errors"
    check "no such context: code 2" exits 2 in_store errors "$POLYARCH" build "$work/no-such-directory"
    check "Ctrl-C: code 130, and the step's processes are gone" interrupted
    check "two builds in one store at once both succeed" two_at_once
}

fails_with() { # fails_with CODE TEXT DOCKERFILE [FLAG…]
    local code=$1 text=$2
    printf '%s' "$3" >"$work/errors/Dockerfile"
    shift 3
    exits "$code" in_store errors "$POLYARCH" build "$@" "$work/errors" && contains "$work/err" "$text"
}

missing_emulator() {
    printf 'FROM %s/debian:12\nRUN echo the step ran\n' "$registry" >"$work/errors/Dockerfile"
    exits 4 env PATH=/nonexistent POLYARCH_ROOT="$work/store-errors" "$POLYARCH" build --platform "$foreign" "$work/errors" || return 1
    contains "$work/err" "$foreign" || return 1
    contains "$work/err" "qemu-user-static" || return 1
    ! grep -q 'the step ran' "$work/err"
}

failing_step() {
    fails_with 1 "last words" "FROM $registry/debian:12"$'\nRUN echo last words; exit 7\n' || return 1
    contains "$work/err" "exit code: 7"
}

interrupted() {
    printf 'FROM %s/debian:12\nRUN echo started; sleep 987654\n' "$registry" >"$work/errors/Dockerfile"
    local pid tries code=0
    # Job control gives the build signals that a script's background jobs ignore.
    set -m
    POLYARCH_ROOT=$work/store-errors "$POLYARCH" build --progress plain "$work/errors" >"$work/interrupted" 2>&1 &
    pid=$!
    set +m
    for ((tries = 0; tries < 300; tries++)); do
        if pgrep -fx 'sleep 987654' >/dev/null && grep -q ' started' "$work/interrupted"; then
            break
        fi
        sleep 0.1
    done
    kill -INT "$pid"
    wait "$pid" || code=$?
    equal 130 "$code" || { cat "$work/interrupted"; return 1; }
    ! pgrep -fx 'sleep 987654' || { printf 'the step still runs\n'; return 1; }
}

two_at_once() {
    printf 'FROM %s/debian:12\nRUN dpkg -l > /list\n' "$registry" >"$work/errors/Dockerfile"
    local first second status=0
    in_store both "$POLYARCH" build -t localhost/first "$work/errors" >"$work/first.log" 2>&1 &
    first=$!
    in_store both "$POLYARCH" build -t localhost/second "$work/errors" >"$work/second.log" 2>&1 &
    second=$!
    wait "$first" || { cat "$work/first.log"; status=1; }
    wait "$second" || { cat "$work/second.log"; status=1; }
    return "$status"
}
