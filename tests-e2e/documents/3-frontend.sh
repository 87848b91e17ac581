#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# document: 前端使用buildx构建docker多架构镜像
# shellcheck shell=bash
write "## 前端使用buildx构建docker多架构镜像"
machine amd64 linux/amd64
mkdir -p "$work/ui"
cat >"$work/ui/Dockerfile" <<'TXT'
FROM nginx:1.20.1-alpine
LABEL io.daocloud.system=build-in
COPY --chmod=755 entrypoint.sh /entrypoint.sh
RUN mkdir -p /etc/nginx/conf.d/ram-server
EXPOSE 80 81 82
ENTRYPOINT [ "/entrypoint.sh" ]
TXT
printf '#!/bin/sh\nexec "$@"\n' >"$work/ui/entrypoint.sh"
cd "$work/ui"

runs "polyarch version"
sees '^ OS/Arch: '
runs "polyarch buildx version"
sees '^polyarch v'
# The document's machine has no builder in use yet.
polyarch buildx use default
runs "polyarch buildx ls"
sees '^NAME/NODE' '^default\* +local'
installs "polyarch run --rm --privileged docker/binfmt:a7996909642ee92942dcd6cff44b9b95f08dad64"
sees '"linux/arm64"'
runs "polyarch buildx create --name arch-mutil-platform-builder --platform linux/amd64,linux/arm64"
sees '^arch-mutil-platform-builder$' 'only emulates linux/'
runs "polyarch buildx build \\
             --builder arch-mutil-platform-builder \\
             --platform linux/amd64,linux/arm64 \\
             -t daocloud.io/daocloud/dx-arch-ui:1.1.0-ab12cd3 \\
             --push \\
             ."
sees 'linux/amd64' 'linux/arm64' 'daocloud.io/daocloud/dx-arch-ui:1.1.0-ab12cd3'
differs "the document's node images are not here; examples/frontend builds a page of three parts for two platforms."
runs "polyarch push daocloud.io/daocloud/dx-arch-ui:1.1.0-ab12cd3"
sees 'sha256:'
differs "after buildx build --push docker has nothing to push (its builder keeps the image to itself); here it is in the store."
runs "polyarch rm daocloud.io/daocloud/dx-arch-ui:1.1.0-ab12cd3" 2
sees 'polyarch rmi daocloud.io/daocloud/dx-arch-ui:1.1.0-ab12cd3'
differs "rm is for containers, in docker too; the error names the command that was meant."
installs "polyarch run --privileged --rm tonistiigi/binfmt --install all"
sees '"linux/arm64"'
runs "polyarch buildx create --name my-builder --platform linux/amd64,linux/arm64"
sees '^my-builder$'
runs "polyarch buildx use my-builder"
cd "$top"
