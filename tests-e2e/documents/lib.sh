#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The words that the documents' scripts are written in; tests-e2e/documents/run reads this file.
#
#   runs "COMMAND" [EXIT-CODE]     runs a command line; its output is kept for what follows
#   document TEXT                  what the document shows there
#   sees REGEX…                    each must match a line of the output
#   differs TEXT                   why the output is not the document's
# shellcheck shell=bash

passed=0
failed=0
runs_in=()

# A machine: a store, a home and a platform of its own.
machine() { # machine NAME PLATFORM
    export POLYARCH_ROOT=$work/$1/store HOME=$work/$1/home DOCKER_DEFAULT_PLATFORM=$2
    mkdir -p "$HOME"
    write "Machine \`$1\`, $2."
}

write() { printf '%s\n\n' "$*" >>"$transcript"; }

fence() { printf '```text\n%s\n```\n\n' "$1" >>"$transcript"; }

runs() {
    local expected=${2:-0} code=0
    command_line=$1
    "${runs_in[@]}" bash -c "$1" >"$work/output" 2>&1 </dev/null || code=$?
    printf '**`%s`**\n\n' "$(tr '\n' ' ' <<<"${1//"$work"/…}" | sed 's/  */ /g; s/ $//')" >>"$transcript"
    fence "$(shorten "$work/output")"
    verdict "exit code $expected" [ "$code" -eq "$expected" ]
}

# Digests, times and paths are not the same twice; long outputs are cut.
shorten() {
    sed -E "s#$work#…#g; s/(sha256:[0-9a-f]{8})[0-9a-f]{56}/\1…/g; s/(Kernel Version: *).*/\1…/; s/ +$//; s/\r//g; s/\x1b\[[0-9;?]*[a-zA-Z]//g" "$1" |
        awk 'NR <= 40 { print } NR == 41 { print "…" }'
}

document() {
    write "The document shows:"
    fence "$1"
}

differs() { write "Difference: $1"; }

sees() {
    local pattern
    for pattern; do
        verdict "$pattern" grep -Eq -- "$pattern" "$work/output"
    done
}

verdict() { # verdict WHAT command…
    local what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        printf 'ok      %s: %s\n' "$(head -n 1 <<<"$command_line")" "$what"
    else
        failed=$((failed + 1))
        printf 'FAILED  %s: %s\n' "$(head -n 1 <<<"$command_line")" "$what"
        sed 's/^/        /' "$work/output" | tail -n 40
        printf '> FAILED: %s\n\n' "$what" >>"$transcript"
    fi
}

prepare() {
    : >"$transcript"
    cat >>"$transcript" <<'TXT'
# The documents' command lines, run

Written by `tests-e2e/documents/run`: each command line of the five documents, in order, with `docker` replaced by
`polyarch`; below it what polyarch printed (digests shortened), what the document shows, and why they differ. The
registries that the documents name are one `polyarch registry serve` on the loopback of a network namespace that has no
other network. Images of Docker Hub are stand-ins of Debian packages under the same names.

TXT
    ip link set lo up
    # The machines of the document with several nodes.
    ip address add 172.31.154.78/32 dev lo
    ip address add 172.31.154.79/32 dev lo
    mount --bind "$work/hosts" /etc/hosts
    mkdir -p "$work/bin"
    ln -s "$POLYARCH" "$work/bin/polyarch"
    export PATH=$work/bin:$PATH
    unset DOCKER_CONFIG XDG_CONFIG_HOME XDG_DATA_HOME REGISTRY_AUTH_FILE
    start_hub
    export POLYARCH_CONFIG=$work/config.toml
    for host in docker.io hub.c.163.com daocloud.io registry.cn-hangzhou.aliyuncs.com; do
        printf '[registry."%s"]\nhttp = true\n' "$host"
    done >"$POLYARCH_CONFIG"
    publish_stand_ins
}

# The registry that every name of the documents leads to: ours, or with HUB=docker-registry Debian's.
start_hub() {
    if [ "${HUB:-polyarch}" = polyarch ]; then
        # It answers here to names of others, as a page of theirs in a browser would have it.
        polyarch registry serve --listen 127.0.0.1:80 --root "$work/registry" --log none --allow-unprotected \
            >"$work/registry.log" 2>&1 &
    else
        cat >"$work/registry.yml" <<TXT
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:80"}
TXT
        "$(command -v "$HUB")" serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
    fi
    hub_pid=$!
    trap 'kill "$hub_pid" "${nodes_pids[@]}" 2>/dev/null || true' EXIT
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        ! grep -Eqs 'listening on|^serving ' "$work/registry.log" || return 0
        sleep 0.1
    done
    cat "$work/registry.log" >&2
    return 1
}

# A node that builds for others, with certificates of $work/tls.
nodes_pids=()
start_node() { # start_node ADDRESS
    local tries
    POLYARCH_ROOT=$work/node-$1 polyarch node serve --listen "tcp://$1:1234" --tls-ca "$work/tls/ca.pem" \
        --tls-cert "$work/tls/$1.pem" --tls-key "$work/tls/$1-key.pem" >"$work/node-$1.log" 2>&1 &
    nodes_pids+=("$!")
    for ((tries = 0; tries < 200; tries++)); do
        ! (: </dev/tcp/"$1"/1234) 2>/dev/null || return 0
        sleep 0.1
    done
    cat "$work/node-$1.log" >&2
    return 1
}

stop_nodes() {
    kill "${nodes_pids[@]}" 2>/dev/null || true
    wait "${nodes_pids[@]}" 2>/dev/null || true
    nodes_pids=()
}

# Debian's tree under the names of the images that the documents start from, and a list with the platforms of
# golang:1.16 of which nothing is ever run.
publish_stand_ins() {
    local names=(alpine:latest golang:1.18 golang:alpine tomcat:jdk8-openjdk nginx:1.20.1-alpine) name tags=()
    for name in "${names[@]}"; do tags+=(-t "$name"); done
    mkdir "$work/base" "$work/list"
    printf 'FROM localhost/debian:12\n' >"$work/base/Dockerfile"
    POLYARCH_ROOT=$top/.quickstart/store polyarch build --platform linux/amd64,linux/arm64,linux/arm/v7 "${tags[@]}" \
        --output type=image,push=true,oci-mediatypes=false "$work/base" >"$work/stand-ins.log" 2>&1 ||
        { cat "$work/stand-ins.log" >&2; return 1; }
    for name in "${names[@]}"; do
        POLYARCH_ROOT=$top/.quickstart/store polyarch rmi "$name" >/dev/null
    done
    printf 'FROM scratch\nCOPY Dockerfile /\n' >"$work/list/Dockerfile"
    POLYARCH_ROOT=$work/list/store polyarch build --output type=image,push=true,oci-mediatypes=false -t golang:1.16 \
        --platform linux/amd64,linux/arm/v5,linux/arm/v7,linux/arm64,linux/386,linux/mips64le,linux/ppc64le,linux/s390x \
        "$work/list" >"$work/stand-ins.log" 2>&1 || { cat "$work/stand-ins.log" >&2; return 1; }
}

# The program of the documents, for a tree without a compiler: a step that runs on each platform writes it.
write_program() { # write_program DIRECTORY BUILDER-IMAGE
    mkdir -p "$1"
    cat >"$1/Dockerfile" <<TXT
FROM $2 AS builder
WORKDIR /app
COPY main.sh /app/main.sh
RUN sed "s/ARCHITECTURE/\$(dpkg --print-architecture)/" main.sh >main && chmod 755 main

FROM alpine:latest
WORKDIR /root
COPY --from=builder /app/main .
CMD /root/main
TXT
    cat >"$1/main.sh" <<'TXT'
#!/bin/sh
echo "Hello world!"
echo "Running in [ARCHITECTURE] architecture."
TXT
}

# The same as runs, in a user namespace with its own binfmt_misc, so that installing emulators changes no host. It is one
# namespace for the whole script, as the documents look at what they have installed.
installs() {
    if [ -z "${emulators_pid:-}" ]; then
        mkdir -p "$work/binfmt.d" /etc/binfmt.d
        # shellcheck disable=SC2016 # expanded inside
        unshare --user --map-root-user --mount --propagation private bash -c '
            mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
            mount --bind "$1" /etc/binfmt.d
            : >"$1/.ready"
            exec sleep infinity' bash "$work/binfmt.d" &
        emulators_pid=$!
        trap 'kill "$hub_pid" "$emulators_pid" "${nodes_pids[@]}" 2>/dev/null || true' EXIT
        local tries
        for ((tries = 0; tries < 100; tries++)); do
            [ ! -e "$work/binfmt.d/.ready" ] || break
            sleep 0.1
        done
    fi
    local line=$1
    runs_in=(nsenter --target "$emulators_pid" --user --mount --preserve-credentials)
    runs "$line" "${2:-0}"
    runs_in=()
}
