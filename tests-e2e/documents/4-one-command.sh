#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# document: Docker多平台构建
# shellcheck shell=bash
write "## Docker多平台构建"
machine arm64 linux/arm64
mkdir -p "$work/aa"
write_program "$work/aa/back" golang:alpine
cd "$work/aa"

runs "polyarch buildx create --name mybuilder --bootstrap --use"
sees '^mybuilder$'
runs "polyarch buildx inspect mybuilder"
sees '^Name: +mybuilder$' '^Driver: +docker-container$' '^Status: +running$' '^Platforms: .*linux/arm64'
document 'Name:   mybuilder
Driver: docker-container

Nodes:
Name:      mybuilder0
Endpoint:  unix:///var/run/docker.sock
Status:    running
Buildkit:  v0.11.2
Platforms: linux/arm64, linux/amd64, linux/amd64/v2, linux/riscv64, …'
image=registry.cn-hangzhou.aliyuncs.com/xiaoqioatq2/aa
runs "polyarch buildx build --platform linux/arm64/v8,linux/amd64 -t $image:0.2 --push  back"
sees 'linux/arm64' 'linux/amd64' "$image:0.2"
runs "polyarch build -t $image:0.1 back"
sees "$image:0.1"
runs "polyarch buildx imagetools inspect $image:0.2"
sees "^Name:      $image:0.2$" '^MediaType: ' '^Digest:    sha256:' '^Manifests:' "^  Name:      $image:0.2@sha256:" \
    '^  Platform:  linux/arm64$' '^  Platform:  linux/amd64$'
document "Name:      $image:0.2
MediaType: application/vnd.docker.distribution.manifest.list.v2+json
Digest:    sha256:d1bce5ac…

Manifests:
  Name:      $image:0.2@sha256:3e4d09f0…
  MediaType: application/vnd.docker.distribution.manifest.v2+json
  Platform:  linux/arm64

  Name:      $image:0.2@sha256:f1e39a33…
  MediaType: application/vnd.docker.distribution.manifest.v2+json
  Platform:  linux/amd64"
differs "the image is an OCI index, as buildx makes it today; --output type=image,oci-mediatypes=false makes docker's list."
index=$(sed -n 's/^Digest:    //p' "$work/output")

for architecture in arm64 amd64; do
    machine "client-$architecture" "linux/$architecture"
    runs "polyarch pull  $image:0.2"
    sees "^Digest: $index$" "^Status: Downloaded newer image for $image:0.2$" "^$image:0.2$"
    runs "polyarch image inspect $image:0.2 --format '{{.Os}}/{{.Architecture}}'"
    sees "^linux/$architecture$"
    document "linux/$architecture"
done
runs "polyarch resolve $index"
sees "$image:0.2"
differs "what the document complains of, digests of the list and of its platforms mixed up: pull labels both, and resolve says what any digest is."
cd "$top"
