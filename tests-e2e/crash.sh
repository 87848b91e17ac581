# SPDX-License-Identifier: Apache-2.0
# kill -9 at any moment, then a rebuild: the right result, nothing to clean by hand.
# shellcheck shell=bash disable=SC2154

case_crash() {
    mkdir "$work/crash"
    head -c 3000000 /dev/urandom >"$work/crash/random"
    cat >"$work/crash/Dockerfile" <<TXT
FROM $registry/debian:12
COPY random /random
RUN sha256sum /random > /sum && cp /random /copy
RUN rm /random && dpkg -l > /list
TXT
    check "a reference build" crash_build reference
    local expected milliseconds
    expected=$(digest_of "$work/crash-reference.json" || true)
    for milliseconds in 5 20 50 100 200 400 700 1000 1500 2500; do
        check "killed after $milliseconds ms, built again" crash_and_rebuild "$milliseconds" "$expected"
    done
    check "killed ten times in one store, built again" crash_build killed
    check "the store has nothing unfinished" nothing_unfinished
}

crash_build() {
    SOURCE_DATE_EPOCH=1700000000 in_store "$1" "$POLYARCH" build --platform linux/amd64,linux/arm64 -t localhost/crash \
        --metadata-file "$work/crash-$1.json" "$work/crash"
}

crash_and_rebuild() {
    local pid
    SOURCE_DATE_EPOCH=1700000000 POLYARCH_ROOT=$work/store-killed "$POLYARCH" build --no-cache \
        --platform linux/amd64,linux/arm64 -t localhost/crash "$work/crash" >/dev/null 2>&1 &
    pid=$!
    sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    crash_build killed || return 1
    equal "$2" "$(digest_of "$work/crash-killed.json")"
}

nothing_unfinished() {
    equal "" "$(find "$work/store-killed/ingest" -type f 2>/dev/null)"
}
