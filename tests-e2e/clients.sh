# SPDX-License-Identifier: Apache-2.0
# Clients that others wrote read what was pushed to a registry that others wrote.
# shellcheck shell=bash disable=SC2154

case_clients() {
    local image=$registry/hello:1 platforms=linux/amd64,linux/arm64,linux/arm/v7
    mkdir "$work/hello"
    cat >"$work/hello/Dockerfile" <<TXT
FROM $registry/debian:12
RUN dpkg --print-architecture > /architecture
CMD ["cat", "/architecture"]
TXT
    check "a build for three platforms is pushed" \
        in_store clients "$POLYARCH" build --platform "$platforms" -t "$image" --push --metadata-file "$work/clients.json" "$work/hello"
    local digest
    digest=$(digest_of "$work/clients.json" || true)

    check "skopeo inspect --raw reads the index" skopeo_index "$image" "$digest"
    check "docker manifest inspect --insecure reads the index" docker_manifest "$image"
    check "podman pulls the arm64 image" podman_here pull --quiet --arch arm64 --tls-verify=false "docker://$image"
    check "podman pulls and runs the $native image" podman_runs "$image"
    check "buildah pulls the arm/v7 image" buildah_pulls "$image"
    check "skopeo copies all platforms to an OCI layout, digests checked" \
        skopeo copy --all --src-tls-verify=false "docker://$image" "oci:$work/copied:1"

    local row platform architecture
    for row in linux/amd64=amd64 linux/arm64=arm64 linux/arm/v7=armhf; do
        platform=${row%=*}
        architecture=${row#*=}
        check "polyarch run --platform $platform prints $architecture" polyarch_prints "$image" "$platform" "$architecture"
    done
}

skopeo_index() {
    skopeo inspect --raw --tls-verify=false "docker://$1" >"$work/index.json" || return 1
    equal "$2" "sha256:$(sha256sum "$work/index.json" | cut -d ' ' -f 1)" || return 1
    equal "amd64 arm64 arm/v7" \
        "$(jq -r '[.manifests[].platform | .architecture + (if .variant then "/" + .variant else "" end)] | join(" ")' "$work/index.json")"
}

docker_manifest() {
    docker manifest inspect --insecure "$1" >"$work/docker.json" || return 1
    equal 3 "$(jq '.manifests | length' "$work/docker.json")"
}

# Storage of their own, so that nothing of the machine's is touched.
podman_here() {
    podman --root "$work/containers" --runroot "$work/containers-run" --storage-driver vfs "$@"
}

podman_runs() {
    podman_here pull --quiet --arch "${native#linux/}" --tls-verify=false "docker://$1" || return 1
    # crun refuses machines with both cgroup hierarchies; limits as they are, for machines without CAP_SYS_RESOURCE.
    equal "${native#linux/}" "$(podman_here --runtime runc --cgroup-manager=cgroupfs run --rm --pull=never --network=none \
        --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "$1")"
}

buildah_pulls() {
    buildah --root "$work/containers" --runroot "$work/containers-run" --storage-driver vfs \
        pull --quiet --arch arm --variant v7 --tls-verify=false "docker://$1"
}

polyarch_prints() {
    equal "$3" "$(in_store clients-run "$POLYARCH" run --rm --platform "$2" "$1")"
}
