# SPDX-License-Identifier: Apache-2.0
# Our registry: killed again and again while clients push, it keeps all that it acknowledged; many clients at once.
# shellcheck shell=bash disable=SC2154

# ROUNDS=20 tests-e2e/run registry is shorter.
case_registry() {
    mkdir "$work/own"
    : >"$work/own/acknowledged"
    check "${ROUNDS:-200} rounds of kill -9 under load lose nothing that was acknowledged" registry_crashes "${ROUNDS:-200}"
    check "scrub finds nothing damaged" "$POLYARCH" registry scrub --root "$work/own/root"
    check "${CLIENTS:-32} clients at once for ${SECONDS_OF_LOAD:-60} seconds: no error, every digest right" registry_load
    check "scrub finds nothing damaged after that" "$POLYARCH" registry scrub --root "$work/own/root"
}

own_start() {
    : >"$work/own/log"
    "$POLYARCH" registry serve --listen 127.0.0.1:0 --root "$work/own/root" --log none 2>>"$work/own/log" &
    own_pid=$!
    own=
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        own=$(sed -n 's|^serving .* on http://||p' "$work/own/log")
        [ -z "$own" ] || return 0
        sleep 0.05
    done
    cat "$work/own/log"
    return 1
}

own_end() { # own_end SIGNAL
    kill -s "$1" "$own_pid"
    wait "$own_pid" || true
}

# Pushes images of one layer until the registry is gone; writes down those that it acknowledged.
own_pusher() { # own_pusher ADDRESS NAME
    local number=0 layer config manifest digest
    config=sha256:$(printf '{}' | sha256sum | cut -d' ' -f1)
    while :; do
        number=$((number + 1))
        head -c $((RANDOM * 8 + 1)) /dev/urandom >"$work/own/layer-$2"
        layer=sha256:$(sha256sum <"$work/own/layer-$2" | cut -d' ' -f1)
        own_put POST "$1/v2/$2/blobs/uploads/?digest=$layer" "$work/own/layer-$2" || return 0
        printf '%s blobs %s\n' "$2" "$layer" >>"$work/own/acknowledged"
        printf '{}' >"$work/own/config-$2"
        own_put POST "$1/v2/$2/blobs/uploads/?digest=$config" "$work/own/config-$2" || return 0
        manifest='{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"'$config'","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"'$layer'","size":'$(stat -c %s "$work/own/layer-$2")'}]}'
        printf '%s' "$manifest" >"$work/own/manifest-$2"
        digest=sha256:$(sha256sum <"$work/own/manifest-$2" | cut -d' ' -f1)
        own_put PUT "$1/v2/$2/manifests/v$number" "$work/own/manifest-$2" || return 0
        printf '%s manifests %s\n' "$2" "$digest" >>"$work/own/acknowledged"
    done
}

own_put() { # own_put METHOD ADDRESS FILE
    local status
    status=$(curl -s -o /dev/null -w '%{http_code}' -X "$1" --data-binary "@$3" \
        -H 'Content-Type: application/octet-stream' "http://$2") || return 1
    [ "$status" = 201 ] || { printf '%s %s: %s\n' "$1" "$2" "$status" >>"$work/own/refused"; return 1; }
}

registry_crashes() { # registry_crashes ROUNDS
    local round name pids line repository kind digest missing=0
    for ((round = 0; round < $1; round++)); do
        own_start || return 1
        pids=()
        for name in "a$((round % 7))" "b/c$((round % 5))" "shared$((round % 3))"; do
            own_pusher "$own" "${name//\//-}" &
            pids+=($!)
        done
        sleep "0.$((RANDOM % 5))$((RANDOM % 10))"
        own_end KILL
        wait "${pids[@]}" || true
    done
    [ ! -s "$work/own/refused" ] || { cat "$work/own/refused"; return 1; }
    own_start || return 1
    while read -r repository kind digest; do
        line=$(curl -s -I -o /dev/null -w '%{http_code}' "http://$own/v2/$repository/$kind/$digest")
        [ "$line" = 200 ] || { printf 'lost: %s %s %s\n' "$repository" "$kind" "$digest"; missing=1; }
    done < <(sort -u "$work/own/acknowledged")
    wc -l "$work/own/acknowledged"
    own_end TERM
    return "$missing"
}

registry_load() {
    local number pids=() failed=0 pid
    own_start || return 1
    for ((number = 0; number < ${CLIENTS:-32}; number++)); do
        # Half of them meet in one repository.
        own_client "$own" "$number" "$((number % 2 == 0 ? number : 1))" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
    own_end TERM
    return "$failed"
}

own_client() { # own_client ADDRESS NUMBER REPOSITORY
    local file=$work/own/client-$2 digest found end=$((SECONDS + ${SECONDS_OF_LOAD:-60}))
    while [ "$SECONDS" -lt "$end" ]; do
        head -c $((RANDOM * 32 + 1)) /dev/urandom >"$file"
        digest=sha256:$(sha256sum <"$file" | cut -d' ' -f1)
        own_put POST "$1/v2/load/$3/blobs/uploads/?digest=$digest" "$file" || return 1
        found=sha256:$(curl -s "http://$1/v2/load/$3/blobs/$digest" | sha256sum | cut -d' ' -f1)
        equal "$digest" "$found" || return 1
    done
    rm -f "$file"
}
