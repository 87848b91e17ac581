# SPDX-License-Identifier: Apache-2.0
# The same input gives the same index digest: as root and as an ordinary user, in two directories, with other times on
# the context's files (earlier and later than the epoch), on one processor, after a prune, without the cache.
# shellcheck shell=bash disable=SC2154

epoch=1700000000

case_reproducible() {
    reproducible_context "$work/first"
    local reference
    check "a reference build" reproducible_build first "$work/first"
    reference=$(digest_of "$work/first.json" || true)
    check "it has a digest" test -n "$reference"

    cp -r "$work/first" "$work/second-directory"
    find "$work/second-directory" -exec touch -d 2025-02-03 {} +
    check "another directory, other times, another store" same_digest "$reference" second "$work/second-directory"
    find "$work/second-directory" -exec touch -d 2001-02-03 {} +
    check "times before the epoch" same_digest "$reference" fourth "$work/second-directory"
    check "one processor" same_digest "$reference" third "$work/first" "taskset -c 0"

    check "prune" in_store first "$POLYARCH" prune -a -f
    check "the same store after a full prune" same_digest "$reference" first "$work/first"
    check "without the cache" same_digest "$reference" first "$work/first" "" --no-cache

    local user=polyarch-e2e
    id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
    check "as an ordinary user" same_digest_as_user "$reference" "$user"
}

reproducible_context() {
    mkdir -p "$1/files/deep"
    printf 'one\n' >"$1/files/one"
    printf 'two\n' >"$1/files/deep/two"
    ln -s deep/two "$1/files/link"
    chmod 750 "$1/files/deep"
    cat >"$1/Dockerfile" <<TXT
FROM $registry/debian:12
COPY files /files
RUN date > /dev/null; mkdir -p /made/by/run && ln /files/one /made/hard && chown 33:33 /made/by && chmod 4755 /made/by/run \\
    && rm -r /usr/share/pam && setpriv --version > /made/version
RUN rm -rf /files/deep && mkdir /files/deep && echo again > /files/deep/again
WORKDIR /made
ENV A=b
TXT
}

reproducible_build() { # reproducible_build NAME CONTEXT [PREFIX [FLAG…]]
    local name=$1 context=$2 prefix=${3:-}
    shift 2
    [ $# -eq 0 ] || shift
    # shellcheck disable=SC2086
    SOURCE_DATE_EPOCH=$epoch in_store "$name" $prefix "$POLYARCH" build --platform linux/amd64,linux/arm64 \
        -t "$registry/reproducible:1" --metadata-file "$work/$name.json" "$@" "$context"
}

same_digest() { # same_digest EXPECTED NAME CONTEXT [PREFIX [FLAG…]]
    local expected=$1
    shift
    reproducible_build "$@" || return 1
    equal "$expected" "$(digest_of "$work/$1.json")"
}

same_digest_as_user() {
    local home
    home=$(getent passwd "$2" | cut -d : -f 6)
    install -m 755 "$POLYARCH" "$home/polyarch"
    rm -rf "$home/context" "$home/out.json"
    cp -r "$work/first" "$home/context"
    chown -R "$2:" "$home/context"
    runuser -u "$2" -- env -C "$home" HOME="$home" SOURCE_DATE_EPOCH="$epoch" "$home/polyarch" build \
        --platform linux/amd64,linux/arm64 -t "$registry/reproducible:1" --metadata-file "$home/out.json" context || return 1
    equal "$1" "$(digest_of "$home/out.json")"
}
