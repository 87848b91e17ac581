# SPDX-License-Identifier: Apache-2.0
# Clients that others wrote, unmodified, on a node of ours: `docker buildx` and `buildctl`, with registries of Debian's and
# an ssh server of OpenSSH. No distribution has the two programs, so the case runs where POLYARCH_TEST_BUILDX and
# POLYARCH_TEST_BUILDCTL name them.
# shellcheck shell=bash disable=SC2154

case_foreign_clients() {
    if [ -z "${POLYARCH_TEST_BUILDX:-}" ] || [ -z "${POLYARCH_TEST_BUILDCTL:-}" ]; then
        printf 'not run: POLYARCH_TEST_BUILDX and POLYARCH_TEST_BUILDCTL name no programs\n'
        return
    fi
    foreign_home=$work/foreign
    foreign_context
    foreign_node

    check "buildx: the node is made a builder, inspected and listed" foreign_builder
    check "buildx: two platforms are pushed under the digest that is told, and get another tag" foreign_push
    check "buildx: a registry that wants a password gets the client's, and nobody else's" foreign_credentials
    check "buildx: an image for docker load goes into our store and runs" foreign_load
    check "buildx: files, archives and OCI layouts come back" foreign_outputs
    check "buildx: secrets of files and variables" foreign_secrets
    check "buildx: the client's ssh agent signs in a step" foreign_agent
    check "buildx: named contexts of a directory, a layout and an image" foreign_contexts
    check "buildx: --check, and calls for the outline and the targets" foreign_calls
    check "buildx: three targets of a bake file at once" foreign_bake
    check "buildx: a failing step names its line and leaves nothing behind" foreign_failure
    check "buildx: two clients with secrets of the same name each see their own" foreign_neighbours
    check "buildx: Ctrl-C in the middle ends the step" foreign_interrupted
    check "buildx: a client that is killed in the middle leaves nothing" foreign_killed
    check "buildx: du with details, filters and JSON; prune down to nothing" foreign_disk
    check "buildctl: workers, every output, secrets, metadata" foreign_buildctl
    check "buildctl: on our binary called as buildkitd, with that program's flags and file" foreign_as_buildkitd
    check "buildctl: through ssh, with nothing but our binary on the other side" foreign_ssh

    kill -INT "$foreign_pid"
    wait "$foreign_pid" || true
    check "the node ends when it is asked to, and leaves no mount" foreign_no_mounts
}

buildx() {
    DOCKER_CONFIG=${docker_config:-$foreign_home/docker} BUILDX_CONFIG=$foreign_home/buildx \
        "$POLYARCH_TEST_BUILDX" "$@"
}

# Both streams go to $work/foreign/log, which is shown when the command fails.
on_node() { # on_node FLAG… ; a build on the node
    buildx build --builder far --progress plain "$@" >"$foreign_home/log" 2>&1 || { cat "$foreign_home/log"; return 1; }
}

buildctl() {
    DOCKER_CONFIG=$foreign_home/docker "$POLYARCH_TEST_BUILDCTL" --addr "unix://$foreign_home/node.sock" "$@"
}

foreign_context() {
    local architecture=${native#linux/} pair=386
    [ "$architecture" = amd64 ] || pair=arm
    mkdir -p "$foreign_home/context" "$foreign_home/docker" "$foreign_home/other"
    cp "$top/.quickstart/busybox/$architecture" "$foreign_home/context/busybox-$architecture"
    # A second platform that runs by itself; programs of the first are fine for its steps.
    cp "$foreign_home/context/busybox-$architecture" "$foreign_home/context/busybox-$pair"
    chmod 755 "$foreign_home"/context/busybox-*
    foreign_pair=$native,linux/$pair
    printf 'over the wire\n' >"$foreign_home/context/word"
    printf 'of the other\n' >"$foreign_home/other/word"
    printf 'x' >"$foreign_home/context/left-out"
    printf 'left-out\n' >"$foreign_home/context/.dockerignore"
    foreign_dockerfile Dockerfile <<'TXT'
COPY . /context
RUN test ! -e /context/left-out && cat /context/word >/made
FROM scratch
COPY --from=make /made /made
TXT
}

# A Dockerfile in the context: a stage with a shell, then what is read from standard input.
foreign_dockerfile() { # foreign_dockerfile NAME
    {
        cat <<'TXT'
FROM scratch AS shell
ARG TARGETARCH
COPY busybox-$TARGETARCH /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
CMD ["/bin/busybox", "echo", "it runs"]
FROM shell AS make
TXT
        cat
    } >"$foreign_home/context/$1"
}

foreign_node() {
    local tries
    : >"$foreign_home/node.log"
    POLYARCH_ROOT=$foreign_home/node "$POLYARCH" node serve --listen "unix://$foreign_home/node.sock" \
        >"$foreign_home/node.log" 2>&1 &
    foreign_pid=$!
    fleet_pids+=("$foreign_pid")
    for ((tries = 0; tries < 200; tries++)); do
        ! grep -q "running server on" "$foreign_home/node.log" || return 0
        sleep 0.1
    done
    cat "$foreign_home/node.log" >&2
    return 1
}

foreign_builder() {
    buildx create --name far --driver remote "unix://$foreign_home/node.sock" >"$foreign_home/name" 2>&1 ||
        { cat "$foreign_home/name"; return 1; }
    equal far "$(cat "$foreign_home/name")" || return 1
    buildx inspect --bootstrap far >"$foreign_home/inspect" 2>&1 || { cat "$foreign_home/inspect"; return 1; }
    contains "$foreign_home/inspect" "running" && contains "$foreign_home/inspect" "$native" || return 1
    buildx ls >"$foreign_home/ls" 2>&1
    contains "$foreign_home/ls" "far" && contains "$foreign_home/ls" "running"
}

foreign_push() {
    local image=$registry/foreign:1 digest
    on_node --platform "$foreign_pair" -t "$image" --push --metadata-file "$foreign_home/push.json" \
        "$foreign_home/context" || return 1
    digest=$(digest_of "$foreign_home/push.json")
    skopeo inspect --raw --tls-verify=false "docker://$image" >"$foreign_home/pushed"
    equal "$digest" "sha256:$(sha256sum "$foreign_home/pushed" | cut -d ' ' -f 1)" || return 1
    equal "$foreign_pair" \
        "$(jq -r '[.manifests[].platform | select(.os != "unknown") | "\(.os)/\(.architecture)"] | join(",")' \
            "$foreign_home/pushed" | sed 's,linux/arm$,linux/arm,')" || return 1
    buildx imagetools create --builder far -t "$registry/foreign:2" "$image" || return 1
    equal "$digest" "$(skopeo inspect --tls-verify=false --raw "docker://$registry/foreign:2" | sha256sum |
        sed 's/^/sha256:/; s/ .*//')"
}

foreign_credentials() {
    local address tries server
    server=$(command -v docker-registry)
    # "secret-word", as crypt(3) keeps it.
    # shellcheck disable=SC2016
    printf '%s\n' 'tester:$2b$05$abcdefghijklmnopqrstuuUOabO4v2PoT/v47Y.znQK.9MsMDnesq' >"$foreign_home/htpasswd"
    cat >"$foreign_home/registry.yml" <<TXT
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: $foreign_home/registry}}
http: {addr: "127.0.0.1:0"}
auth: {htpasswd: {realm: test, path: $foreign_home/htpasswd}}
TXT
    : >"$foreign_home/registry.log"
    "$server" serve "$foreign_home/registry.yml" >>"$foreign_home/registry.log" 2>&1 &
    fleet_pids+=("$!")
    for ((tries = 0; tries < 100; tries++)); do
        address=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$foreign_home/registry.log")
        [ -z "$address" ] || break
        sleep 0.1
    done
    ! on_node -t "$address/locked:1" --push "$foreign_home/context" >/dev/null || return 1
    grep -qi "401\|unauthorized\|authentication\|credentials" "$foreign_home/log" || { cat "$foreign_home/log"; return 1; }
    mkdir -p "$foreign_home/logged-in"
    printf '{"auths": {"%s": {"auth": "%s"}}}\n' "$address" "$(printf 'tester:secret-word' | base64)" \
        >"$foreign_home/logged-in/config.json"
    docker_config=$foreign_home/logged-in on_node -t "$address/locked:1" --push "$foreign_home/context" || return 1
    skopeo inspect --raw --tls-verify=false --creds tester:secret-word "docker://$address/locked:1" >/dev/null || return 1
    # What the node was told for that build it has not kept.
    ! on_node -t "$address/locked:2" --push "$foreign_home/context" >/dev/null
}

foreign_load() {
    buildx build --builder far --target shell -t example.com/loaded:1 -o type=docker,dest=- "$foreign_home/context" \
        >"$foreign_home/docker.tar" 2>"$foreign_home/log" || { cat "$foreign_home/log"; return 1; }
    in_store loaded "$POLYARCH" load -i "$foreign_home/docker.tar" || return 1
    equal "it runs" "$(in_store loaded "$POLYARCH" run --rm example.com/loaded:1)"
}

foreign_outputs() {
    local context=$foreign_home/context out=$foreign_home/out
    on_node -o "$out" "$context" && equal "over the wire" "$(cat "$out/made")" || return 1
    on_node --platform "$foreign_pair" -o "type=local,dest=$out/two" "$context" || return 1
    equal "over the wire" "$(cat "$out/two/${native//\//_}/made")" || return 1
    on_node -o "type=tar,dest=$out/files.tar" "$context" || return 1
    equal "over the wire" "$(tar -xOf "$out/files.tar" made)" || return 1
    on_node --platform "$foreign_pair" -o "type=oci,dest=$out/image.tar,compression=zstd" \
        --metadata-file "$out/oci.json" "$context" || return 1
    skopeo inspect --raw "oci-archive:$out/image.tar" >"$out/raw" || return 1
    equal "$(digest_of "$out/oci.json")" "sha256:$(sha256sum "$out/raw" | cut -d ' ' -f 1)" || return 1
    # Several outputs of one build.
    on_node -o "$out/again" -o "type=oci,dest=$out/again.tar" "$context" || return 1
    [ -s "$out/again.tar" ] && equal "over the wire" "$(cat "$out/again/made")"
}

foreign_secrets() {
    foreign_dockerfile secrets <<'TXT'
RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=WORD \
    echo "$(cat /run/secrets/file) $WORD" >/made
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent
FROM scratch
COPY --from=make /made /made
TXT
    printf 'of a file' >"$foreign_home/secret"
    of_variable="and a variable" on_node -f "$foreign_home/context/secrets" -o "$foreign_home/secrets" \
        --secret "id=file,src=$foreign_home/secret" --secret id=variable,env=of_variable \
        "$foreign_home/context" || return 1
    equal "of a file and a variable" "$(cat "$foreign_home/secrets/made")"
}

foreign_agent() {
    local bin file
    bin=$(command -v ssh-add)
    mkdir -p "$foreign_home/tools"
    # The program with the libraries that it wants.
    for file in "$bin" $(ldd "$bin" | grep -o '/[^ ]*'); do cp --parents -L "$file" "$foreign_home/tools"; done
    foreign_dockerfile agent <<TXT
COPY --from=tools . /
RUN echo root:x:0:0:root:/:/bin/sh >/etc/passwd || (mkdir -p /etc && echo root:x:0:0:root:/:/bin/sh >/etc/passwd)
RUN --mount=type=ssh $bin -L >/made
FROM scratch
COPY --from=make /made /made
TXT
    ssh-keygen -q -t ed25519 -N '' -C 'of the test' -f "$foreign_home/key"
    eval "$(ssh-agent -a "$foreign_home/agent")" >/dev/null
    ssh-add -q "$foreign_home/key" 2>/dev/null
    local ended=0
    on_node -f "$foreign_home/context/agent" --ssh default --build-context "tools=$foreign_home/tools" \
        -o "$foreign_home/agent-out" "$foreign_home/context" || ended=1
    ssh-agent -k >/dev/null
    unset SSH_AUTH_SOCK SSH_AGENT_PID
    [ "$ended" = 0 ] || return 1
    equal "$(cat "$foreign_home/key.pub")" "$(cat "$foreign_home/agent-out/made")"
}

foreign_contexts() {
    foreign_dockerfile contexts <<'TXT'
COPY --from=directory word /directory
COPY --from=layout made /layout
COPY --from=image made /image
RUN cat /directory /layout /image >/made
FROM scratch
COPY --from=make /made /made
TXT
    mkdir -p "$foreign_home/layout"
    on_node -t example.com/made:1 -o "type=oci,dest=$foreign_home/layout.tar" "$foreign_home/context" || return 1
    tar -xf "$foreign_home/layout.tar" -C "$foreign_home/layout"
    on_node -f "$foreign_home/context/contexts" --build-context "directory=$foreign_home/other" \
        --build-context "layout=oci-layout://$foreign_home/layout" \
        --build-context "image=docker-image://$registry/foreign:1" \
        -o "$foreign_home/contexts" "$foreign_home/context" || return 1
    equal "of the other over the wire over the wire" "$(tr '\n' ' ' <"$foreign_home/contexts/made" | sed 's/ $//')"
}

foreign_calls() {
    on_node --check "$foreign_home/context" || return 1
    printf 'FROM scratch as base\nCOPY word /\nFROM base\n' >"$foreign_home/context/untidy"
    ! on_node --check -f "$foreign_home/context/untidy" "$foreign_home/context" >/dev/null || return 1
    contains "$foreign_home/log" "FromAsCasing" || return 1
    on_node --call outline -f "$foreign_home/context/secrets" "$foreign_home/context" || return 1
    contains "$foreign_home/log" "variable" || return 1
    on_node --call targets,format=json "$foreign_home/context" && contains "$foreign_home/log" '"shell"'
}

foreign_bake() {
    cat >"$foreign_home/context/docker-bake.hcl" <<TXT
group "default" { targets = ["one", "two", "three"] }
target "one" { output = ["type=local,dest=$foreign_home/baked/one"] }
target "two" {
  dockerfile-inline = "FROM one\nCOPY word /word\n"
  contexts = { one = "target:one" }
  output = ["type=local,dest=$foreign_home/baked/two"]
}
target "three" {
  target = "shell"
  tags = ["$registry/baked:3"]
  output = ["type=registry"]
}
TXT
    (cd "$foreign_home/context" && buildx bake --builder far --progress plain --allow "fs.write=$foreign_home") \
        >"$foreign_home/log" 2>&1 || { cat "$foreign_home/log"; return 1; }
    equal "over the wire" "$(cat "$foreign_home/baked/one/made")" || return 1
    equal "over the wire" "$(cat "$foreign_home/baked/two/word")" && equal "over the wire" \
        "$(cat "$foreign_home/baked/two/made")" || return 1
    skopeo inspect --raw --tls-verify=false "docker://$registry/baked:3" >/dev/null
}

foreign_failure() {
    foreign_dockerfile failing <<'TXT'
RUN echo "I am told"; exit 7
TXT
    ! on_node -f "$foreign_home/context/failing" -o "$foreign_home/never" "$foreign_home/context" >/dev/null || return 1
    contains "$foreign_home/log" "failing:7" && contains "$foreign_home/log" "exit code: 7" || return 1
    contains "$foreign_home/log" "I am told" && [ ! -e "$foreign_home/never/made" ]
}

foreign_neighbours() {
    local one two
    # Neither knows of the other, and both are in the step at the same time as well as machines allow.
    foreign_dockerfile neighbours <<'TXT'
ARG WHO
RUN --mount=type=secret,id=word echo "$WHO" >/dev/null; cat /run/secrets/word >/made; sleep 2; cat /run/secrets/word >>/made
FROM scratch
COPY --from=make /made /made
TXT
    printf 'mine' >"$foreign_home/mine"
    printf 'yours' >"$foreign_home/yours"
    foreign_secret_of mine & one=$!
    foreign_secret_of yours & two=$!
    if ! wait "$one" || ! wait "$two"; then
        cat "$foreign_home"/log.*
        return 1
    fi
    equal minemine "$(cat "$foreign_home/of-mine/made")" && equal yoursyours "$(cat "$foreign_home/of-yours/made")"
}

foreign_secret_of() {
    buildx build --builder far --progress plain --build-arg "WHO=$1" -f "$foreign_home/context/neighbours" \
        --secret "id=word,src=$foreign_home/$1" -o "$foreign_home/of-$1" "$foreign_home/context" \
        >"$foreign_home/log.$1" 2>&1
}

# Begins a build whose step says that it has begun and then sleeps for longer than anybody waits.
foreign_begin() { # foreign_begin SALT ; the client is $client, the seconds that the step sleeps are $sleeping
    local tries
    # A number that no other process sleeps for.
    sleeping=$((100000 + RANDOM * 3 + $1))
    foreign_dockerfile sleeping <<TXT
RUN echo begun; exec sleep $sleeping
TXT
    : >"$foreign_home/log"
    DOCKER_CONFIG=$foreign_home/docker BUILDX_CONFIG=$foreign_home/buildx "$POLYARCH_TEST_BUILDX" build --builder far \
        --progress plain -f "$foreign_home/context/sleeping" -o "$foreign_home/never" "$foreign_home/context" \
        >"$foreign_home/log" 2>&1 &
    client=$!
    for ((tries = 0; tries < 600; tries++)); do
        ! grep -q "^#[0-9]* [0-9.]* begun" "$foreign_home/log" || return 0
        sleep 0.1
    done
    cat "$foreign_home/log"
    return 1
}

# The step of the build that has begun is no process any more.
foreign_gone() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        pgrep -f "^sleep $sleeping\$" >/dev/null || { [ ! -e "$foreign_home/never" ] && foreign_no_mounts; return; }
        sleep 0.1
    done
    printf 'the step still runs\n'
    return 1
}

foreign_no_mounts() {
    ! grep "$foreign_home" /proc/self/mounts
}

foreign_interrupted() {
    local ended=0
    foreign_begin 1 || return 1
    kill -INT "$client"
    wait "$client" || ended=$?
    [ "$ended" -ne 0 ] && foreign_gone
}

foreign_killed() {
    foreign_begin 2 || return 1
    kill -KILL "$client"
    wait "$client" || true
    foreign_gone
}

foreign_disk() {
    buildx du --builder far >"$foreign_home/du" && contains "$foreign_home/du" "Reclaimable:" || return 1
    buildx du --builder far --verbose >"$foreign_home/du" && contains "$foreign_home/du" "Description:" || return 1
    buildx du --builder far --format json >"$foreign_home/du" || return 1
    local id count
    id=$(jq -r .ID "$foreign_home/du" | head -n 1)
    buildx du --builder far --filter "id=$id" --format json >"$foreign_home/du.one" || return 1
    equal 1 "$(jq -r .ID "$foreign_home/du.one" | wc -l)" || return 1
    count=$(wc -l <"$foreign_home/du")
    buildx prune --builder far --force --filter "id=$id" >"$foreign_home/prune" || return 1
    contains "$foreign_home/prune" "Total:" || return 1
    buildx prune --builder far --force --all --max-used-space 1tb >"$foreign_home/prune" || return 1
    contains "$foreign_home/prune" "Total:" && [ "$count" -gt 2 ] || return 1
    buildx prune --builder far --force --all >"$foreign_home/prune" && contains "$foreign_home/prune" "Total:" || return 1
    buildx du --builder far --format json >"$foreign_home/du" || return 1
    equal 0 "$(wc -l <"$foreign_home/du")"
}

foreign_buildctl() {
    local context=$foreign_home/context out=$foreign_home/buildctl kind
    mkdir -p "$out"
    buildctl debug workers >"$out/workers" && contains "$out/workers" "$native" || return 1
    buildctl debug info >"$out/info" || return 1
    for kind in oci docker tar; do
        foreign_buildctl_build --output "type=$kind,name=example.com/by-buildctl:1,dest=$out/$kind.tar" || return 1
    done
    equal "over the wire" "$(tar -xOf "$out/tar.tar" made)" || return 1
    foreign_buildctl_build --output "type=local,dest=$out/files" --metadata-file "$out/metadata" || return 1
    equal "over the wire" "$(cat "$out/files/made")" || return 1
    foreign_buildctl_build --output "type=image,name=$registry/by-buildctl:1,push=true" --metadata-file "$out/metadata" ||
        return 1
    equal "$(digest_of "$out/metadata")" "sha256:$(skopeo inspect --raw --tls-verify=false \
        "docker://$registry/by-buildctl:1" | sha256sum | cut -d ' ' -f 1)" || return 1
    # The values of secrets are no part of what a step is known by.
    foreign_buildctl_build --opt filename=secrets --no-cache --secret "id=file,src=$foreign_home/secret" \
        --secret "id=variable,src=$foreign_home/mine" --output "type=local,dest=$out/secrets" || return 1
    equal "of a file mine" "$(cat "$out/secrets/made")" || return 1
    buildctl du >"$out/du" && contains "$out/du" "Total:" && buildctl prune >"$out/prune"
}

foreign_buildctl_build() {
    buildctl build --progress plain --frontend dockerfile.v0 --local "context=$foreign_home/context" \
        --local "dockerfile=$foreign_home/context" "$@" >"$foreign_home/log" 2>&1 || { cat "$foreign_home/log"; return 1; }
}

foreign_as_buildkitd() {
    local as=$foreign_home/as tries pid
    mkdir -p "$as"
    ln -sf "$POLYARCH" "$as/buildkitd"
    cat >"$as/buildkitd.toml" <<TXT
root = "$as/root"
insecure-entitlements = ["network.host"]
[grpc]
  address = ["unix://$as/buildkitd.sock"]
[worker.oci]
  labels = { "team" = "ci" }
TXT
    : >"$as/log"
    "$as/buildkitd" --config "$as/buildkitd.toml" --oci-worker=true --containerd-worker=false \
        --oci-worker-snapshotter overlayfs >"$as/log" 2>&1 &
    pid=$!
    fleet_pids+=("$pid")
    for ((tries = 0; tries < 200; tries++)); do
        ! grep -q "running server on" "$as/log" || break
        sleep 0.1
    done
    "$POLYARCH_TEST_BUILDCTL" --addr "unix://$as/buildkitd.sock" debug workers -v >"$as/workers" || { cat "$as/log"; return 1; }
    contains "$as/workers" "team" || return 1
    "$POLYARCH_TEST_BUILDCTL" --addr "unix://$as/buildkitd.sock" build --progress plain --frontend dockerfile.v0 \
        --allow network.host --local "context=$foreign_home/context" --local "dockerfile=$foreign_home/context" \
        --output "type=local,dest=$as/out" >"$as/build" 2>&1 || { cat "$as/build"; return 1; }
    equal "over the wire" "$(cat "$as/out/made")" && [ -d "$as/root" ] || return 1
    kill "$pid" && wait "$pid"
}

# A machine behind ssh, which has nothing but our binary under the name of buildctl.
foreign_ssh() {
    local ssh=$foreign_home/ssh tries port
    mkdir -p "$ssh/bin" "$ssh/far-bin" /run/sshd
    ln -sf "$POLYARCH" "$ssh/far-bin/buildctl"
    ssh-keygen -q -t ed25519 -N '' -f "$ssh/host" && ssh-keygen -q -t ed25519 -N '' -f "$ssh/user" || return 1
    cp "$ssh/user.pub" "$ssh/authorized"
    for ((tries = 0; tries < 10; tries++)); do
        port=$((20000 + RANDOM % 20000))
        "$(command -v sshd || echo /usr/sbin/sshd)" -D -e -f /dev/null -p "$port" -o ListenAddress=127.0.0.1 \
            -o HostKey="$ssh/host" -o AuthorizedKeysFile="$ssh/authorized" -o StrictModes=no -o PidFile=none \
            -o PermitRootLogin=yes -o SetEnv="PATH=$ssh/far-bin:/usr/bin:/bin POLYARCH_ROOT=$foreign_home/behind-ssh" \
            >"$ssh/log" 2>&1 &
        fleet_pids+=("$!")
        sleep 0.5
        ! grep -q "Server listening" "$ssh/log" || break
    done
    cat >"$ssh/bin/ssh" <<TXT
#!/bin/sh
exec /usr/bin/ssh -F none -i $ssh/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=$ssh/known "\$@"
TXT
    chmod 755 "$ssh/bin/ssh"
    PATH=$ssh/bin:$PATH "$POLYARCH_TEST_BUILDCTL" --addr "ssh://root@127.0.0.1:$port" build --progress plain \
        --frontend dockerfile.v0 --local "context=$foreign_home/context" --local "dockerfile=$foreign_home/context" \
        --output "type=local,dest=$ssh/out" >"$ssh/build" 2>&1 || { cat "$ssh/build" "$ssh/log"; return 1; }
    equal "over the wire" "$(cat "$ssh/out/made")" || return 1
    PATH=$ssh/bin:$PATH buildx create --name behind --driver remote "ssh://root@127.0.0.1:$port" >/dev/null 2>&1 || return 1
    PATH=$ssh/bin:$PATH buildx build --builder behind -o "$ssh/again" "$foreign_home/context" >"$ssh/build" 2>&1 ||
        { cat "$ssh/build" "$ssh/log"; return 1; }
    equal "over the wire" "$(cat "$ssh/again/made")"
}
