# SPDX-License-Identifier: Apache-2.0
# Images after the build. What needs no registry runs in a network namespace where there is none, not even a loopback
# that is up; what needs one has Debian's docker-registry and no other network.
# shellcheck shell=bash disable=SC2154

four=linux/amd64,linux/arm64,linux/arm/v7,linux/s390x

case_images() {
    mkdir -p "$work/images"
    check "a base for four platforms is made of Debian's busybox" four_platforms
    # Job after job in one network namespace without any network: no registry can be asked, and none is missed.
    check "joined by hand from two builds, annotated and inspected, without a registry" alone joined_by_hand
    check "saved, loaded elsewhere, same digest, every platform runs, without a registry" alone saved_and_loaded
    check "history, inspect, resolve, df and diff, without a registry" alone looked_at
    check "imagetools create and inspect over OCI layouts, without a registry" alone layouts_composed
    check "verify: a good index passes, and all of its platforms execute" verify_says 0 good \
        'linux/s390x +sha256:[0-9a-f]+  ok \('
    check "verify: an amd64 program in the arm64 image is named" verify_says 1 foreign \
        'error: /bin/busybox is the program of CMD and of amd64, and the image is for linux/arm64 \[entry-foreign'
    check "verify: an entry whose platform is not its config's is named" verify_says 1 annotated \
        'error: the index says linux/s390x, the config says linux/arm64 \[platform-contradicts\]'
    check "verify: a truncated layer is named with what was expected and what was there" verify_says 1 truncated \
        'error: layer sha256:[0-9a-f]+ is damaged: .* has [0-9]+ bytes but [0-9]+ were expected \[layer-damaged, layer [0-9]\]'
    check "a build that copies an amd64 program into an arm64 image names the line" classic_mistake
    check "pulled for four platforms, all under one name, run, saved, loaded into podman, pushed again: same digest" \
        four_under_one_name
}

# Runs a function of this file where there is no network at all.
alone() {
    export -f "$@" in_store equal contains exits
    export work native foreign four
    unshare --net bash -euc "$1"
}

# The static busybox of four architectures, as Debian packages it; kept for the next run. The only thing here that needs
# a network, and done before there is none.
fetch_busyboxes() {
    local architecture codename sources
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
    # The release alone, without its updates: one package is wanted, and mirrors disagree least about the release.
    # shellcheck disable=SC2016 # apt's own variables
    sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v codename="$codename" '$3 == codename && $4 == "main"' | sort -u)
    mkdir -p "$top/.quickstart/busybox"
    for architecture in amd64 arm64 armhf s390x; do
        [ ! -e "$top/.quickstart/busybox/$architecture" ] || continue
        if ! mmdebstrap --quiet --variant=extract --include=busybox-static --architectures="$architecture" \
            "$codename" "$work/busybox.tar" "$sources" ||
            ! tar -xOf "$work/busybox.tar" ./bin/busybox >"$top/.quickstart/busybox/.new"; then
            printf 'the busybox of %s could not be fetched\n' "$architecture" >&2
            return 1
        fi
        mv "$top/.quickstart/busybox/.new" "$top/.quickstart/busybox/$architecture"
        rm "$work/busybox.tar"
    done
}

four_platforms() {
    local row architecture platform
    for row in amd64=linux/amd64 arm64=linux/arm64 armhf=linux/arm/v7 s390x=linux/s390x; do
        architecture=${row%=*} platform=${row#*=}
        mkdir -p "$work/images/$platform/bin"
        install -m 755 "$top/.quickstart/busybox/$architecture" "$work/images/$platform/bin/busybox" || return 1
        ln -sf busybox "$work/images/$platform/bin/sh"
    done
    cat >"$work/images/Dockerfile" <<'TXT'
FROM scratch
ARG TARGETPLATFORM
COPY $TARGETPLATFORM/ /
COPY Dockerfile /etc/Dockerfile
RUN ["/bin/busybox", "mkdir", "-p", "/made/by/a/step"]
ENV PATH=/bin
CMD ["/bin/busybox", "uname", "-m"]
TXT
    in_store images "$POLYARCH" build --platform "$four" -t localhost/four:1 -t "$registry/four:1" "$work/images" &&
        in_store images "$POLYARCH" push "$registry/four:1"
}

joined_by_hand() {
    in_store images "$POLYARCH" build --platform linux/amd64 -t localhost/one:amd64 "$work/images"
    in_store images "$POLYARCH" build --platform linux/arm64 -t localhost/one:arm64 "$work/images"
    in_store images "$POLYARCH" manifest create localhost/one:1 localhost/one:amd64 localhost/one:arm64
    in_store images "$POLYARCH" manifest annotate localhost/one:1 localhost/one:arm64 --variant v8
    in_store images "$POLYARCH" manifest inspect localhost/one:1 >"$work/out"
    contains "$work/out" '"variant": "v8"'
    in_store images "$POLYARCH" manifest ls >"$work/out"
    contains "$work/out" localhost/one:1
    exits 4 in_store images "$POLYARCH" manifest annotate localhost/one:1 localhost/one:arm64 --arch ppc64le
    contains "$work/err" ppc64le
    in_store images "$POLYARCH" manifest rm localhost/one:1
}

saved_and_loaded() {
    in_store images "$POLYARCH" save -o "$work/four.tar" localhost/four:1
    in_store loaded "$POLYARCH" load -i "$work/four.tar"
    equal "$(in_store images "$POLYARCH" images --format json | jq -r '.[] | select(.name == "localhost/four:1") | .digest')" \
        "$(in_store loaded "$POLYARCH" images --format json | jq -r '.[] | select(.name == "localhost/four:1") | .digest')"
    local row
    for row in linux/amd64=x86_64 linux/arm64=aarch64 linux/arm/v7=armv7l linux/s390x=s390x; do
        equal "${row#*=}" "$(in_store loaded "$POLYARCH" run --rm --platform "${row%=*}" localhost/four:1)"
    done
    head -c 100000 "$work/four.tar" >"$work/torn.tar"
    exits 6 in_store torn "$POLYARCH" load -i "$work/torn.tar" || exits 2 in_store torn "$POLYARCH" load -i "$work/torn.tar"
    equal '[]' "$(in_store torn "$POLYARCH" images --format json | jq -c .)"
}

looked_at() {
    local index
    index=$(in_store images "$POLYARCH" images --format json | jq -r '.[] | select(.name == "localhost/four:1") | .digest')
    equal linux/arm64 "$(in_store images "$POLYARCH" image inspect --platform linux/arm64 --format '{{.Os}}/{{.Architecture}}' localhost/four:1)"
    in_store images "$POLYARCH" history localhost/four:1 >"$work/out"
    contains "$work/out" 'COPY Dockerfile'
    in_store images "$POLYARCH" resolve "$index" >"$work/out"
    contains "$work/out" localhost/four:1
    in_store images "$POLYARCH" df >"$work/out"
    exits 1 in_store images "$POLYARCH" diff localhost/four:1 --platform linux/amd64 --platform linux/arm64
    contains "$work/out" bin/busybox
    contains "$work/out" 'program of amd64 -> arm64'
    in_store images "$POLYARCH" diff localhost/four:1 localhost/four:1
    exits 2 in_store images "$POLYARCH" inspect localhost/fuor:1
    contains "$work/err" localhost/four:1
}

layouts_composed() {
    in_store images "$POLYARCH" build --platform linux/amd64 -o "type=oci,tar=false,dest=$work/layout-a" "$work/images"
    in_store images "$POLYARCH" build --platform linux/arm64 -o "type=oci,tar=false,dest=$work/layout-b" "$work/images"
    in_store images "$POLYARCH" imagetools create -t "oci-layout://$work/layout-c:1" \
        "oci-layout://$work/layout-a" "oci-layout://$work/layout-b"
    in_store images "$POLYARCH" imagetools inspect "oci-layout://$work/layout-c:1" >"$work/out"
    contains "$work/out" 'linux/arm64'
}

# Makes the image that a case of verify is about and judges what is said of it.
verify_says() { # verify_says CODE CASE REGEX
    local name=localhost/verify:$2 layer
    case $2 in
    good) name=localhost/four:1 ;;
    foreign)
        # Two files swapped by hand: the mistake that a cross build makes.
        cp -r "$work/images" "$work/swapped" 2>/dev/null
        cp "$work/images/linux/amd64/bin/busybox" "$work/swapped/linux/arm64/bin/busybox"
        sed -i '/^RUN/d' "$work/swapped/Dockerfile"
        in_store verify "$POLYARCH" build --no-verify --platform linux/amd64,linux/arm64 -t "$name" "$work/swapped" || return 1
        ;;
    annotated)
        in_store images "$POLYARCH" manifest create --amend "$registry/annotated:1" localhost/one:amd64 localhost/one:arm64 &&
            in_store images "$POLYARCH" manifest annotate --force "$registry/annotated:1" localhost/one:arm64 --arch s390x &&
            in_store images "$POLYARCH" manifest push "$registry/annotated:1" || return 1
        name=$registry/annotated:1
        ;;
    truncated)
        # A store of its own: every large blob in there is a layer of this image.
        in_store truncated "$POLYARCH" pull --all-platforms "$registry/four:1" || return 1
        name=$registry/four:1
        layer=$(find "$work/store-truncated" -path '*blobs/sha256/*' -type f -size +200k | head -n 1)
        truncate -s -1000 "$layer" || { chmod u+w "$layer" && truncate -s -1000 "$layer"; } || return 1
        ;;
    esac
    local store=verify flags=()
    case $2 in
    good) store=images flags=(--exec) ;;
    truncated) store=truncated ;;
    esac
    exits "$1" in_store "$store" "$POLYARCH" verify "${flags[@]}" "$name" || { cat "$work/out"; return 1; }
    cat "$work/out" "$work/err" >"$work/said"
    grep -Eq -- "$3" "$work/said" || { cat "$work/said"; return 1; }
}

classic_mistake() {
    mkdir -p "$work/classic"
    cp /bin/busybox "$work/classic/tool"
    printf 'FROM scratch\nCOPY tool /usr/bin/tool\nENTRYPOINT ["/usr/bin/tool"]\n' >"$work/classic/Dockerfile"
    exits 4 in_store classic "$POLYARCH" build --platform "$foreign" -t localhost/classic "$work/classic" || return 1
    contains "$work/err" 'Dockerfile:2' && contains "$work/err" 'COPY tool /usr/bin/tool'
}

four_under_one_name() {
    local image=$registry/four:1 platform before
    before=$(skopeo inspect --raw --tls-verify=false "docker://$image" | sha256sum)
    for platform in ${four//,/ }; do
        in_store pulled "$POLYARCH" pull --platform "$platform" "$image" || return 1
    done
    equal 4 "$(in_store pulled "$POLYARCH" images --format json |
        jq --arg name "$image" '[.[] | select(.name == $name) | .platforms[] | select(.complete)] | length')" || return 1
    for platform in ${four//,/ }; do
        in_store pulled "$POLYARCH" run --rm --platform "$platform" "$image" >/dev/null || return 1
    done
    in_store pulled "$POLYARCH" save -o "$work/pulled.tar" "$image" || return 1
    podman_here load -i "$work/pulled.tar" || return 1
    skopeo delete --tls-verify=false "docker://$image" >/dev/null 2>&1 || true
    in_store pulled "$POLYARCH" tag "$image" "$registry/again:1" &&
        in_store pulled "$POLYARCH" push "$registry/again:1" || return 1
    equal "$before" "$(skopeo inspect --raw --tls-verify=false "docker://$registry/again:1" | sha256sum)"
}
