# SPDX-License-Identifier: Apache-2.0
# `docker manifest` and `polyarch manifest` side by side, against the same registry: the same lines, the same documents in
# the registry, or one of the differences of docs/docker-differences.md, which are checked as differences.
# Needs docker's client (no daemon), curl and jq.
# shellcheck shell=bash disable=SC2015,SC2153,SC2154

docker_manifest=application/vnd.docker.distribution.manifest.v2+json
docker_list=application/vnd.docker.distribution.manifest.list.v2+json
oci_manifest=application/vnd.oci.image.manifest.v1+json
oci_index=application/vnd.oci.image.index.v1+json

case_manifest() {
    mkdir -p "$work/manifest/docker-home"
    local m=$registry/m t=$registry/m/app
    check "images of both kinds are in the registry" manifest_sources
    check "the two begin with no lists" alike 1 inspect --insecure "$t:none"

    check "create: Docker images" alike 0 create --insecure "$t:docker" "$t:arm64" "$t:amd64"
    check "create: the same list again is refused" alike 1 create --insecure "$t:docker" "$t:armv7"
    check "create --amend: an image of another repository" alike 0 create --insecure --amend "$t:docker" "$m/other:armv7"
    check "annotate: a variant" alike 0 annotate "$t:docker" "$t:arm64" --arch arm64 --variant v8
    check "annotate: an image that is not in the list" alike 1 annotate "$t:docker" "$t:nope" --arch arm64
    check "annotate: a typo" alike 1 annotate "$t:docker" "$t:amd64" --os linux --arch amd65
    check "inspect: the list" alike 0 inspect "$t:docker"
    check "inspect -v: the list" alike 0 inspect -v "$t:docker"
    check "inspect: an image of the list" alike 0 inspect "$t:docker" "$t:arm64"
    check "inspect -v: an image of the list" alike 0 inspect -v "$t:docker" "$m/other:armv7"
    check "push: same lines, same bytes in the registry" pushed_alike "$t:docker"
    check "inspect: the list in the registry" alike_in_registry inspect --insecure "$t:docker"
    check "inspect -v: the list in the registry" alike_in_registry inspect --insecure -v "$t:docker"

    check "create: OCI images, and a Docker one that sorts last" \
        alike 0 create --insecure "$t:oci" "$t:oci-arm64" "$t:oci-amd64" "$t:ppc64le"
    check "inspect: it is an OCI index" alike 0 inspect "$t:oci"
    check "inspect: an OCI image of the list" alike 0 inspect "$t:oci" "$t:oci-amd64"
    check "inspect -v: manifests of both kinds" alike 0 inspect -v "$t:oci"
    check "push --purge: same lines, same bytes" pushed_alike --purge "$t:oci"
    check "push --purge: the list is gone" alike 1 push --insecure "$t:oci"

    check "create: Windows, with its version and features" alike 0 create --insecure "$m/win:1" "$m/win:amd64" "$m/win:386"
    check "annotate: features of the system" \
        alike 0 annotate "$m/win:1" "$m/win:amd64" --os-features x,win32k --os-version 10.0.17763.1
    check "inspect: versions and features" alike 0 inspect "$m/win:1"
    check "push: versions and features" pushed_alike "$m/win:1"

    check "a repository that is new: polyarch mounts first, docker finds the same" mounted_first "$m/new:1" "$t:amd64" "$m/other:armv7"

    check "inspect: a Docker manifest of the registry" alike 0 inspect --insecure "$t:amd64"
    check "inspect -v: a Docker manifest of the registry" alike 0 inspect --insecure -v "$t:arm64"
    check "inspect: an OCI manifest with annotations" alike 0 inspect --insecure "$t:oci-amd64"
    check "inspect -v: an OCI manifest with annotations" alike 0 inspect --insecure -v "$t:oci-amd64"
    check "inspect -v: a Windows manifest" alike 0 inspect --insecure -v "$m/win:amd64"
    check "inspect: a Docker list written by another tool" alike 0 inspect --insecure "$t:list"
    check "inspect -v: a Docker list written by another tool" alike 0 inspect --insecure -v "$t:list"
    check "inspect: an index in buildx's form, without annotations" alike 0 inspect --insecure "$t:index"
    check "inspect -v: an index in buildx's form, without annotations" alike 0 inspect --insecure -v "$t:index"

    check "difference: annotations and attestations of an index are shown" differs_by_annotations "$t:built"
    check "difference: an index as a source is flattened, with its attestation" flattened "$t:joined" "$t:built"
    check "difference: --amend asks again for an image that is in the list" amended_anew "$t:moving"
    check "difference: names of the field are understood" \
        differs 1 0 annotate "$t:docker" "$t:amd64" --os linux --arch x86_64
    check "difference: loong64 is a platform" loong64 "$t:loong"
    check "difference: a platform that contradicts the image is refused" \
        differs 0 4 annotate "$t:docker" "$t:amd64" --os linux --arch arm64
    check "difference: equal platforms are told, and not pushed" equal_platforms "$t:twins"
    check "difference: an image that is nowhere but here is pushed along" local_image "$m/local:1"
    check "difference: an OCI list for a registry that knows only Docker's types" for_an_old_registry "$m/old:1"

    check "rm: a list, and one that isn't there" alike 1 rm "$t:docker" "$t:nope"
    check "rm: it is gone" alike 1 rm "$t:docker"
}

# Puts a blob; prints its digest.
manifest_blob() { # manifest_blob REPOSITORY FILE
    local digest location
    digest=sha256:$(sha256sum <"$2" | cut -d' ' -f1)
    location=$(curl -fsS -X POST -D - -o "$work/manifest/answer" "http://$registry/v2/$1/blobs/uploads/" |
        sed -n 's/^[Ll]ocation: *\([^[:space:]]*\).*/\1/p')
    curl -fsS -X PUT -H 'Content-Type: application/octet-stream' --data-binary "@$2" "$location&digest=$digest"
    printf '%s' "$digest"
}

manifest_put() { # manifest_put REPOSITORY TAG TYPE FILE
    curl -fsS -X PUT -H "Content-Type: $3" --data-binary "@$4" "http://$registry/v2/$1/manifests/$2"
}

manifest_get() { # manifest_get NAME:TAG; the bytes and the type
    local path=${1#*/}
    curl -fsS -D "$work/manifest/headers" -H "Accept: $docker_list, $oci_index, $docker_manifest, $oci_manifest" \
        "http://$registry/v2/${path%:*}/manifests/${path##*:}" || return 1
    printf '\n'
    sed -n 's/^[Cc]ontent-[Tt]ype: *\([^[:space:]]*\).*/\1/p' "$work/manifest/headers"
}

# Puts an image; prints an entry of an index for it.
manifest_image() { # manifest_image REPOSITORY TAG docker|oci CONFIG-FIELDS
    local d=$work/manifest config layer type=$docker_manifest config_type layer_type text="layer of $4"
    config_type=application/vnd.docker.container.image.v1+json
    layer_type=application/vnd.docker.image.rootfs.diff.tar.gzip
    [ "$3" = docker ] || {
        type=$oci_manifest
        config_type=application/vnd.oci.image.config.v1+json
        layer_type=application/vnd.oci.image.layer.v1.tar+gzip
    }
    printf '%s' "$text" | gzip -n >"$d/layer"
    jq -nc --argjson platform "$4" --arg id "sha256:$(printf '%s' "$text" | sha256sum | cut -d' ' -f1)" \
        '$platform + {config: {Cmd: ["sh", "-c", "a && b <c>"]}, rootfs: {type: "layers", diff_ids: [$id]}, history: []}' \
        >"$d/config"
    config=$(manifest_blob "$1" "$d/config") && layer=$(manifest_blob "$1" "$d/layer") || return 1
    jq -n --arg type "$type" --arg kind "$3" --arg ct "$config_type" --arg lt "$layer_type" --arg c "$config" \
        --arg l "$layer" --argjson cs "$(stat -c %s "$d/config")" --argjson ls "$(stat -c %s "$d/layer")" \
        '{schemaVersion: 2, mediaType: $type, config: {mediaType: $ct, size: $cs, digest: $c},
          layers: [{mediaType: $lt, size: $ls, digest: $l}]}
         + if $kind == "oci" then {annotations: {"a.b": "x<y>&z"}} else {} end' >"$d/document"
    manifest_put "$1" "$2" "$type" "$d/document" &&
        jq -nc --arg type "$type" --arg digest "sha256:$(sha256sum <"$d/document" | cut -d' ' -f1)" \
            --argjson size "$(stat -c %s "$d/document")" --argjson platform "$4" \
            '{mediaType: $type, digest: $digest, size: $size, platform: $platform}'
}

manifest_index() { # manifest_index REPOSITORY TAG TYPE ENTRY…
    local repository=$1 tag=$2 type=$3
    shift 3
    printf '%s\n' "$@" | jq -s --arg type "$type" '{schemaVersion: 2, mediaType: $type, manifests: .}' >"$work/manifest/document"
    manifest_put "$repository" "$tag" "$type" "$work/manifest/document"
}

manifest_sources() {
    local amd64 arm64 oci_amd64 oci_arm64 attestation
    amd64=$(manifest_image m/app amd64 docker '{"architecture":"amd64","os":"linux"}') &&
        arm64=$(manifest_image m/app arm64 docker '{"architecture":"arm64","os":"linux","variant":"v8"}') &&
        manifest_image m/app armv7 docker '{"architecture":"arm","os":"linux","variant":"v7"}' &&
        manifest_image m/app ppc64le docker '{"architecture":"ppc64le","os":"linux"}' &&
        manifest_image m/app loong64 docker '{"architecture":"loong64","os":"linux"}' &&
        manifest_image m/other armv7 docker '{"architecture":"arm","os":"linux","variant":"v7"}' &&
        manifest_image m/win amd64 docker \
            '{"architecture":"amd64","os":"windows","os.version":"10.0.17763.1","os.features":["win32k"]}' &&
        manifest_image m/win 386 docker '{"architecture":"386","os":"windows","os.version":"10.0.17763.2"}' &&
        oci_amd64=$(manifest_image m/app oci-amd64 oci '{"architecture":"amd64","os":"linux"}') &&
        oci_arm64=$(manifest_image m/app oci-arm64 oci '{"architecture":"arm64","os":"linux","variant":"v8"}') &&
        attestation=$(manifest_image m/app attestation oci '{"architecture":"unknown","os":"unknown"}' |
            jq -c --argjson subject "$oci_amd64" '. + {annotations: {"vnd.docker.reference.digest": $subject.digest,
                "vnd.docker.reference.type": "attestation-manifest"}}') &&
        manifest_index m/app list "$docker_list" "$amd64" "$arm64" &&
        manifest_index m/app index "$oci_index" "$oci_amd64" "$oci_arm64" &&
        manifest_index m/app built "$oci_index" "$oci_amd64" "$attestation"
}

docker_says() {
    HOME=$work/manifest/docker-home DOCKER_CONFIG=$work/manifest/docker-home docker manifest "$@" \
        >"$work/manifest/docker.out" 2>"$work/manifest/docker.err"
}

polyarch_says() {
    in_store manifest "$POLYARCH" manifest "$@" >"$work/manifest/polyarch.out" 2>"$work/manifest/polyarch.err"
}

# Both do it, and say the same on standard output; or both fail.
alike() { # alike 0|1 words…
    local expected=$1 docker=0 polyarch=0
    shift
    docker_says "$@" || docker=1
    polyarch_says "$@" || polyarch=1
    equal "$expected $expected" "$docker $polyarch" ||
        { cat "$work/manifest/docker.err" "$work/manifest/polyarch.err"; return 1; }
    diff "$work/manifest/docker.out" "$work/manifest/polyarch.out"
}

# The same where both ask the registry: their own lists are out of the way.
alike_in_registry() { # alike_in_registry words…
    local home=$work/manifest/docker-home status=0
    mv "$home/manifests" "$work/manifest/lists" && mv "$work/store-manifest" "$work/manifest/store" &&
        alike 0 "$@" || status=1
    rm -rf "$work/store-manifest" && mv "$work/manifest/store" "$work/store-manifest" &&
        mv "$work/manifest/lists" "$home/manifests" && return "$status"
}

# Both push the same list under the same name, which means something else before each of them does.
pushed_alike() { # pushed_alike [--purge] LIST
    local list=${*: -1}
    elsewhere "$list" &&
        docker_says push --insecure "$@" && manifest_get "$list" >"$work/manifest/docker.bytes" &&
        elsewhere "$list" &&
        polyarch_says push --insecure "$@" && manifest_get "$list" >"$work/manifest/polyarch.bytes" ||
        { cat "$work/manifest/docker.err" "$work/manifest/polyarch.err"; return 1; }
    contains "$work/manifest/polyarch.bytes" '"manifests"' &&
        cmp "$work/manifest/docker.bytes" "$work/manifest/polyarch.bytes" &&
        diff "$work/manifest/docker.out" "$work/manifest/polyarch.out"
}

# Lets a name mean another image.
elsewhere() { # elsewhere NAME:TAG
    local path=${1#*/}
    manifest_image "${path%:*}" "${path##*:}" docker '{"architecture":"s390x","os":"linux"}' >"$work/manifest/entry"
}

mounted_first() { # mounted_first LIST IMAGE…
    alike 0 create --insecure "$@" &&
        polyarch_says push --insecure "$1" && manifest_get "$1" >"$work/manifest/polyarch.bytes" &&
        docker_says push --insecure "$1" && manifest_get "$1" >"$work/manifest/docker.bytes" ||
        { cat "$work/manifest/docker.err" "$work/manifest/polyarch.err"; return 1; }
    equal 2 "$(grep -c '^Pushed ref ' "$work/manifest/polyarch.out")" &&
        cmp "$work/manifest/docker.bytes" "$work/manifest/polyarch.bytes" &&
        diff "$work/manifest/docker.out" "$work/manifest/polyarch.out"
}

# What one does and the other does not, by exit code.
differs() { # differs DOCKER POLYARCH words…
    local docker=0 polyarch=0
    docker_says "${@:3}" || docker=$?
    polyarch_says "${@:3}" || polyarch=$?
    equal "$1 $2" "$docker $polyarch" || { cat "$work/manifest/docker.err" "$work/manifest/polyarch.err"; return 1; }
}

differs_by_annotations() {
    differs 0 0 inspect --insecure "$1" || return 1
    equal 0 "$(grep -c annotations "$work/manifest/docker.out")" &&
        equal attestation-manifest \
            "$(jq -r '.manifests[1].annotations["vnd.docker.reference.type"]' "$work/manifest/polyarch.out")" &&
        # Nothing else is different.
        diff <(jq 'del(.manifests[].annotations)' "$work/manifest/polyarch.out") <(jq . "$work/manifest/docker.out")
}

flattened() { # flattened LIST INDEX
    differs 1 0 create --insecure "$@" && contains "$work/manifest/docker.err" "is a manifest list" &&
        pushed "$1" && manifest_get "$1" | sed '$d' >"$work/manifest/joined" &&
        manifest_get "$2" | sed '$d' >"$work/manifest/built" &&
        equal 2 "$(jq '.manifests | length' "$work/manifest/joined")" &&
        diff <(jq -S .manifests "$work/manifest/joined") <(jq -S .manifests "$work/manifest/built")
}

pushed() {
    polyarch_says push --insecure "$@" || { cat "$work/manifest/polyarch.err"; return 1; }
}

amended_anew() { # amended_anew NAME; its tag moves between two creates
    manifest_image m/app moving docker '{"architecture":"riscv64","os":"linux"}' >"$work/manifest/entry" &&
        alike 0 create --insecure "$1-list" "$1" && elsewhere "$1" &&
        alike 0 create --insecure --amend "$1-list" "$1" && differs 0 0 inspect "$1-list" &&
        contains "$work/manifest/docker.out" riscv64 && contains "$work/manifest/polyarch.out" s390x
}

loong64() {
    alike 0 create --insecure "$1" "$registry/m/app:amd64" "$registry/m/app:loong64" &&
        differs 1 0 annotate "$1" "$registry/m/app:loong64" --os linux --arch loong64 && pushed "$1"
}

equal_platforms() {
    alike 0 create --insecure "$1" "$registry/m/app:amd64" "$registry/m/app:oci-amd64" &&
        contains "$work/manifest/polyarch.err" "have the same platform linux/amd64" &&
        differs 0 2 push --insecure "$1" && pushed --force "$1"
}

# An image of a layout, which no registry has.
local_image() {
    local layout=$work/manifest/layout
    skopeo copy -q --src-tls-verify=false "docker://$registry/m/app:oci-arm64" "oci:$layout:v1" &&
        polyarch_says create "$1" "oci-layout://$layout:v1" &&
        polyarch_says annotate "$1" "oci-layout://$layout:v1" --annotation a=b --annotation index:c=d &&
        pushed "$1" && contains "$work/manifest/polyarch.out" "Pushed ref ${1%:*}@sha256:" &&
        manifest_get "$1" | sed '$d' >"$work/manifest/local" ||
        { cat "$work/manifest/polyarch.err"; return 1; }
    equal 'b d' "$(jq -r '[.manifests[0].annotations.a, .annotations.c] | join(" ")' "$work/manifest/local")" &&
        skopeo copy -q --src-tls-verify=false --override-arch arm64 "docker://$1" "dir:$work/manifest/copied"
}

for_an_old_registry() {
    polyarch_says create --insecure "$1" "$registry/m/app:oci-arm64" "$registry/m/app:amd64" &&
        pushed --format docker "$1" && manifest_get "$1" >"$work/manifest/old" &&
        equal "$docker_list" "$(tail -n 1 "$work/manifest/old")" &&
        equal "$docker_manifest" "$(sed '$d' "$work/manifest/old" | jq -r '[.manifests[].mediaType] | unique | join(" ")')" &&
        skopeo copy -q --src-tls-verify=false --override-arch arm64 "docker://$1" "dir:$work/manifest/converted"
}
