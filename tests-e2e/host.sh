# SPDX-License-Identifier: Apache-2.0
# The host stays as it is while foreign steps run on it.
# shellcheck shell=bash disable=SC2154

case_host() {
    mkdir "$work/host"
    # The step says that it runs and goes on until it is told that somebody has looked.
    cat >"$work/host/Dockerfile" <<TXT
FROM $registry/debian:12
ARG SALT
RUN for i in 1 2 3 4 5 6 7 8 9 10; do /bin/ls -R /usr/share > /dev/null; done; dpkg --print-architecture
TXT
    check "binfmt_misc and mounts are the same before, during and after a foreign step" host_stays
    check "no process is left after a build" no_children_left
}

handlers() { ls -l /proc/sys/fs/binfmt_misc 2>/dev/null || true; }

host_stays() {
    local handlers_before mounts_before pid looked=0 status=0
    handlers_before=$(handlers)
    mounts_before=$(cut -d ' ' -f 2- /proc/mounts | sort)
    in_store host "$POLYARCH" build --platform "$foreign" --progress plain "$work/host" >"$work/host.log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        equal "$handlers_before" "$(handlers)" || return 1
        equal "$mounts_before" "$(cut -d ' ' -f 2- /proc/mounts | sort)" || return 1
        if emulated_step_runs; then
            looked=$((looked + 1))
        fi
    done
    wait "$pid" || status=$?
    [ "$status" -eq 0 ] || { cat "$work/host.log"; return 1; }
    [ "$looked" -gt 0 ] || { printf 'no emulated process was ever seen: the check proved nothing\n'; return 1; }
    equal "$handlers_before" "$(handlers)" && equal "$mounts_before" "$(cut -d ' ' -f 2- /proc/mounts | sort)"
}

emulated_step_runs() {
    local exe
    for exe in /proc/[0-9]*/exe; do
        case $(readlink "$exe" 2>/dev/null) in
        */qemu-*) return 0 ;;
        esac
    done
    return 1
}

no_children_left() {
    local exe left=
    for exe in /proc/[0-9]*/exe; do
        case $(readlink "$exe" 2>/dev/null) in
        "$POLYARCH"*) left="$left $exe" ;;
        esac
    done
    equal "" "$left"
}
