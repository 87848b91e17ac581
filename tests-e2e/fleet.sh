# SPDX-License-Identifier: Apache-2.0
# Three nodes with addresses of their own, and builds on them: TLS and ssh, a node that is killed, a link that is cut. No
# registry has a part in it. The third node is an unmodified buildkitd where POLYARCH_TEST_BUILDKITD names one.
# shellcheck shell=bash disable=SC2154

case_fleet() {
    local node
    fleet=$work/fleet
    # Two platforms that each node runs by itself; programs of amd64 are fine for steps of the other.
    pair=linux/amd64,linux/386
    [ "$native" = linux/amd64 ] || pair=linux/arm64,linux/arm/v7
    mkdir -p "$fleet/context"
    cp "$top/.quickstart/busybox/amd64" "$fleet/context/busybox-amd64"
    cp "$top/.quickstart/busybox/arm64" "$fleet/context/busybox-arm64"
    cp "$top/.quickstart/busybox/armhf" "$fleet/context/busybox-arm"
    cp "$fleet/context/busybox-amd64" "$fleet/context/busybox-386"
    chmod 755 "$fleet"/context/busybox-*
    fleet_dockerfile 0

    ip link add fleet type bridge
    ip address add 10.77.0.1/24 dev fleet
    ip link set fleet up
    for node in 1 2 3; do fleet_machine "$node"; done

    check "an authority is made with certificates of two nodes, and of a third later" fleet_certificates
    check "three nodes listen, each on a machine of its own" fleet_start
    check "one builder of three nodes is made through mutual TLS" fleet_builder
    check "without a certificate of ours nobody gets in" fleet_stranger
    check "two platforms are built on a node each, and one index comes home" fleet_pair
    check "a foreign platform is built on the node that it is fixed for" fleet_foreign
    check "a node that is killed in the middle is replaced by another" fleet_killed
    check "a link that is cut for a moment costs nothing" fleet_moment
    check "a link that stays cut costs the node, and comes back with it" fleet_cut
    check "a machine behind ssh is looked at and becomes a node" fleet_ssh
    check "a build on the node behind ssh" fleet_ssh_build
    check "caches of all nodes are shown and removed" fleet_caches

    for node in "${fleet_pids[@]}"; do kill "$node" 2>/dev/null || true; done
    wait "${fleet_pids[@]}" 2>/dev/null || true
    ip link delete fleet
}

# A step that says that it has begun, and takes some seconds when it shall be disturbed.
fleet_dockerfile() { # fleet_dockerfile SECONDS
    cat >"$fleet/context/Dockerfile" <<TXT
FROM scratch
ARG TARGETARCH TARGETVARIANT SALT
COPY busybox-\$TARGETARCH /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "echo begun; /bin/busybox sleep $1"]
RUN ["/bin/busybox", "sh", "-c", "echo built for \$TARGETARCH\$TARGETVARIANT >/for"]
TXT
}

# A network namespace with one link to the bridge. Its process holds it, so that nothing is mounted for it.
fleet_machine() { # fleet_machine NUMBER
    unshare --net --uts sleep infinity &
    fleet_pids+=("$!")
    machine[$1]=$!
    # The namespace is there when it is another than ours.
    until [ "$(readlink "/proc/${machine[$1]}/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
    ip link add "fleet$1" type veth peer name node netns "${machine[$1]}"
    ip link set "fleet$1" master fleet up
    on_machine "$1" ip address add "10.77.0.1$1/24" dev node
    on_machine "$1" ip link set node up
    on_machine "$1" ip link set lo up
    on_machine "$1" hostname "machine$1"
}
machine=()

# In the background the function is a process, which becomes the command: what is killed then is the command.
become_on_machine() { # become_on_machine NUMBER command…
    local number=$1
    shift
    exec nsenter --net --uts --target "${machine[$number]}" -- "$@"
}

on_machine() { # on_machine NUMBER command…
    local number=$1
    shift
    nsenter --net --uts --target "${machine[$number]}" -- "$@"
}

fleet_certificates() {
    "$POLYARCH" node certs "$fleet/tls" --host 10.77.0.11 --host 10.77.0.12 || return 1
    local before after
    before=$(sha256sum "$fleet/tls/ca.pem")
    "$POLYARCH" node certs "$fleet/tls" --host 10.77.0.13,machine3 || return 1
    after=$(sha256sum "$fleet/tls/ca.pem")
    equal "$before" "$after" && equal 600 "$(stat -c %a "$fleet/tls/10.77.0.13-key.pem")"
}

fleet_start() { fleet_node 1 && fleet_node 2 && fleet_node 3; }

fleet_node() { # fleet_node NUMBER ; starts it and waits until it listens
    local address=10.77.0.1$1 tries
    local tls=$fleet/tls
    if [ "$1" = 3 ] && [ -n "${POLYARCH_TEST_BUILDKITD:-}" ]; then
        : >"$fleet/buildkitd.toml"
        become_on_machine 3 "$POLYARCH_TEST_BUILDKITD" --config "$fleet/buildkitd.toml" --root "$fleet/buildkitd" \
            --oci-worker=true --containerd-worker=false --oci-worker-net=host --addr "tcp://$address:1234" \
            --tlscacert "$tls/ca.pem" --tlscert "$tls/$address.pem" --tlskey "$tls/$address-key.pem" \
            >"$fleet/node$1.log" 2>&1 &
    else
        POLYARCH_ROOT=$fleet/node$1 become_on_machine "$1" "$POLYARCH" node serve --listen "tcp://$address:1234" \
            --tls-ca "$tls/ca.pem" --tls-cert "$tls/$address.pem" --tls-key "$tls/$address-key.pem" \
            >"$fleet/node$1.log" 2>&1 &
    fi
    serving[$1]=$!
    fleet_pids+=("$!")
    for ((tries = 0; tries < 200; tries++)); do
        ! (: </dev/tcp/"$address"/1234) 2>/dev/null || return 0
        kill -0 "${serving[$1]}" 2>/dev/null || break
        sleep 0.1
    done
    cat "$fleet/node$1.log"
    return 1
}
serving=()

fleet_tls() { printf 'cacert=%s,cert=%s,key=%s' "$fleet/tls/ca.pem" "$fleet/tls/client.pem" "$fleet/tls/client-key.pem"; }

fleet_builder() {
    local node append=
    # The third comes first: so builds use it.
    for node in 3 1 2; do
        # shellcheck disable=SC2086 # no word when empty
        in_store fleet "$POLYARCH" buildx create --name fleet $append --node "machine$node" --driver remote \
            --bootstrap --driver-opt "$(fleet_tls)" "tcp://10.77.0.1$node:1234" || return 1
        append=--append
    done
    in_store fleet "$POLYARCH" buildx ls --format json >"$fleet/ls" || return 1
    equal 3 "$(jq -r 'select(.Name == "fleet") | .Nodes[] | select(.Status == "running") | .Name' "$fleet/ls" | wc -l)"
}

fleet_stranger() {
    "$POLYARCH" node certs "$fleet/other" --host 10.77.0.11 || return 1
    in_store fleet exits 5 "$POLYARCH" buildx create --name strange --driver remote --bootstrap --driver-opt \
        "cacert=$fleet/tls/ca.pem,cert=$fleet/other/client.pem,key=$fleet/other/client-key.pem" tcp://10.77.0.11:1234 &&
        in_store fleet exits 5 "$POLYARCH" buildx create --name strange --driver remote --bootstrap --driver-opt \
            "cacert=$fleet/other/ca.pem" tcp://10.77.0.11:1234 &&
        in_store fleet exits 2 "$POLYARCH" buildx create --name strange --driver remote tcp://10.77.0.11:1234
}

# The events of a build are lines at once with rawjson.
fleet_build() { # fleet_build argument… ; the steps are never in a cache
    in_store fleet "$POLYARCH" build --builder "${fleet_builder:-fleet}" --build-arg "SALT=$RANDOM$RANDOM" --no-cache \
        --no-verify --progress rawjson "$@" "$fleet/context" 2>"$fleet/build.log"
}

# What the last build warned of.
fleet_warnings() { jq -r '.warnings[]?.short | @base64d' "$fleet/build.log" 2>/dev/null; }

# Says how the last build ended.
fleet_failed() { { fleet_warnings; tail -n 3 "$fleet/build.log"; } | cut -c 1-400; }

# The last build has left a node out, as it says.
fleet_left_out() { # fleet_left_out NODE
    fleet_warnings >"$fleet/warnings" || true
    contains "$fleet/warnings" "the node $1 failed and is left out"
}

# The machines that have begun that step in the last build, by the names that steps have with several nodes.
fleet_begun() {
    jq -r '.vertexes[]? | select(.started).name' "$fleet/build.log" 2>/dev/null |
        sed -n 's/^\[\(machine[0-9]\) .*RUN .*echo begun.*/\1/p' | sort -u
}

fleet_pair() {
    fleet_build --platform "$pair" -t example.com/pair:1 --metadata-file "$fleet/pair.json" ||
        { fleet_failed; return 1; }
    equal 2 "$(fleet_begun | wc -l)" || return 1
    in_store fleet "$POLYARCH" images --tree >"$fleet/images" || return 1
    contains "$fleet/images" "$native" && contains "$fleet/images" "${pair#*,}" || return 1
    in_store fleet "$POLYARCH" resolve "$(digest_of "$fleet/pair.json")" >"$fleet/resolved" || return 1
    contains "$fleet/resolved" example.com/pair:1
}

fleet_foreign() {
    # The second machine would emulate it: that is said, and done because it was asked for.
    in_store fleet exits 0 "$POLYARCH" buildx create --name mixed --node machine1 --driver remote --bootstrap \
        --driver-opt "$(fleet_tls)" tcp://10.77.0.11:1234 &&
        in_store fleet exits 0 "$POLYARCH" buildx create --name mixed --append --node machine2 --platform "$foreign" \
            --bootstrap --driver-opt "$(fleet_tls)" tcp://10.77.0.12:1234 || return 1
    contains "$work/err" "only emulates $foreign" || return 1
    fleet_builder=mixed fleet_build --platform "$native,$foreign" -o "$fleet/mixed" || { fleet_failed; return 1; }
    equal "built for ${foreign#linux/}" "$(cat "$fleet/mixed/${foreign/\//_}/for")" &&
        equal "built for ${native#linux/}" "$(cat "$fleet/mixed/${native/\//_}/for")"
}

# Begins a build of the pair whose steps take some seconds, and returns when two machines are at it.
fleet_begin() { # fleet_begin SECONDS argument…
    local tries
    fleet_dockerfile "$1"
    shift
    : >"$fleet/build.log"
    fleet_build --platform "$pair" "$@" &
    building=$!
    for ((tries = 0; tries < 600; tries++)); do
        [ "$(fleet_begun | wc -l)" -lt 2 ] || return 0
        kill -0 "$building" 2>/dev/null || break
        sleep 0.1
    done
    fleet_failed
    return 1
}

fleet_killed() {
    fleet_begin 6 -o "$fleet/killed" || return 1
    local lost
    lost=$(fleet_begun | head -n 1)
    kill -9 "${serving[${lost#machine}]}"
    wait "$building" || { fleet_failed; return 1; }
    fleet_left_out "$lost" || return 1
    equal 2 "$(find "$fleet/killed" -name for | wc -l)" || return 1
    # It comes back as it was.
    fleet_node "${lost#machine}"
}

fleet_moment() {
    fleet_begin 6 -o "$fleet/moment" || return 1
    ip link set fleet1 down
    ip link set fleet3 down
    sleep 3
    ip link set fleet1 up
    ip link set fleet3 up
    wait "$building" || { fleet_failed; return 1; }
    equal "" "$(fleet_warnings)" && equal 2 "$(find "$fleet/moment" -name for | wc -l)"
}

fleet_cut() {
    fleet_begin 8 -o "$fleet/cut" || return 1
    local lost
    lost=$(fleet_begun | head -n 1)
    ip link set "fleet${lost#machine}" down
    wait "$building" || { ip link set "fleet${lost#machine}" up; fleet_failed; return 1; }
    ip link set "fleet${lost#machine}" up
    fleet_left_out "$lost" || return 1
    equal 2 "$(find "$fleet/cut" -name for | wc -l)" || return 1
    fleet_dockerfile 0
    fleet_build --platform "$pair" || { fleet_failed; return 1; }
    equal "" "$(fleet_warnings)" && equal 2 "$(fleet_begun | wc -l)"
}

# An ordinary sshd on the first machine, which lets in a key made for this.
fleet_sshd() {
    local ssh=$fleet/ssh tries
    mkdir -p "$ssh/bin" "$ssh/home" /run/sshd
    ssh-keygen -q -t ed25519 -N '' -f "$ssh/host"
    ssh-keygen -q -t ed25519 -N '' -f "$ssh/key"
    printf '[10.77.0.11]:2222 %s\n' "$(cut -d ' ' -f 1-2 "$ssh/host.pub")" >"$ssh/known_hosts"
    cat >"$ssh/sshd_config" <<TXT
Port 2222
ListenAddress 10.77.0.11
HostKey $ssh/host
AuthorizedKeysFile $ssh/key.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
SetEnv HOME=$ssh/home POLYARCH_ROOT=$fleet/node-ssh
TXT
    # What the user's own configuration would say.
    cat >"$ssh/bin/ssh" <<TXT
#!/bin/sh
exec $(command -v ssh) -F none -i $ssh/key -o IdentitiesOnly=yes -o UserKnownHostsFile=$ssh/known_hosts "\$@"
TXT
    chmod 755 "$ssh/bin/ssh"
    become_on_machine 1 "$(command -v sshd)" -D -e -f "$ssh/sshd_config" >"$ssh/log" 2>&1 &
    fleet_pids+=("$!")
    for ((tries = 0; tries < 100; tries++)); do
        ! (: </dev/tcp/10.77.0.11/2222) 2>/dev/null || return 0
        sleep 0.1
    done
    cat "$ssh/log"
    return 1
}

fleet_ssh() {
    fleet_sshd || return 1
    local PATH=$fleet/ssh/bin:$PATH
    in_store fleet "$POLYARCH" node add root@10.77.0.11:2222 --copy-binary --builder far --node behind --format json \
        >"$fleet/machine.json" 2>"$work/err" || { cat "$work/err" "$fleet/ssh/log"; return 1; }
    equal "$native" "$(head -n 1 "$fleet/machine.json" | jq -r .Platform)" || return 1
    in_store fleet "$POLYARCH" buildx inspect far >"$fleet/far" || return 1
    contains "$fleet/far" "ssh://root@10.77.0.11:2222" && contains "$fleet/far" "running"
}

fleet_ssh_build() {
    local PATH=$fleet/ssh/bin:$PATH
    fleet_builder=far fleet_build --platform "$native" -t example.com/far:1 || { fleet_failed; return 1; }
    in_store fleet "$POLYARCH" inspect example.com/far:1 >/dev/null
}

fleet_caches() {
    in_store fleet "$POLYARCH" --builder fleet buildx du --format json >"$fleet/du" || return 1
    [ "$(jq -r .Node "$fleet/du" | sort -u | wc -l)" -ge 2 ] || { cat "$fleet/du"; return 1; }
    in_store fleet "$POLYARCH" --builder fleet buildx prune --all --force >"$fleet/prune" || return 1
    contains "$fleet/prune" "Total:"
}
