#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# document: docker 跨平台镜像构建，信创必备
# shellcheck shell=bash
write "## docker 跨平台镜像构建，信创必备"
machine amd64 linux/amd64

runs "polyarch version"
sees '^ OS/Arch: +linux/amd64$'
document 'Client: Docker Engine - Community
 ....
 OS/Arch:           linux/amd64
 ....
Server: Docker Engine - Community
 Engine:
  ....
  OS/Arch:          linux/amd64'
differs "there is no server: the command is the builder."

write_program "$work/test" golang:1.18
for architecture in amd64 arm64; do
    machine "$architecture" "linux/$architecture"
    cd "$work/test"
    runs "polyarch build -t test ."
    sees 'RUN sed' 'docker.io/library/test' "linux/$architecture"
    runs "script -qec 'polyarch run --rm -it test' /dev/null"
    sees '^Hello world!' "^Running in \[$architecture\] architecture\."
    document "Hello world!
Running in [$architecture] architecture."
    runs "polyarch tag test chinaxiang/test:v1.0-$architecture"
    runs "polyarch push chinaxiang/test:v1.0-$architecture"
    sees 'digest: sha256:|@sha256:'
done
cd "$top"
differs "the second machine is a second store whose default platform is linux/arm64; its steps and its run are emulated."

machine amd64 linux/amd64
runs "polyarch manifest  create chinaxiang/test:v1.0 chinaxiang/test:v1.0-amd64 chinaxiang/test:v1.0-arm64"
sees '^Created manifest list docker.io/chinaxiang/test:v1.0$'
runs "polyarch manifest annotate chinaxiang/test:v1.0 chinaxiang/test:v1.0-amd64 --os linux --arch amd64"
runs "polyarch manifest annotate chinaxiang/test:v1.0 chinaxiang/test:v1.0-arm64 --os linux --arch arm64"
runs "polyarch manifest push chinaxiang/test:v1.0"
sees '^sha256:[0-9a-f]{64}$'
runs "crossImage=chinaxiang/test:v1.0-script
amdImage=chinaxiang/test:v1.0-amd64
armImage=chinaxiang/test:v1.0-arm64
polyarch manifest create \$crossImage \$amdImage \$armImage
polyarch manifest annotate \$crossImage \$amdImage --os linux --arch amd64
polyarch manifest annotate \$crossImage \$armImage --os linux --arch arm64
polyarch manifest push \$crossImage"
sees '^Created manifest list' '^sha256:[0-9a-f]{64}$'
differs "the document's script lacks an equals sign after armImage; it is there here."

installs "polyarch run --privileged --rm tonistiigi/binfmt --install all"
sees '^installing: ' '"linux/arm64"' '"qemu-aarch64"' '"linux/riscv64"'
document 'installing: s390x OK
installing: arm64 OK
…
{
  "supported": [
    "linux/amd64",
    "linux/arm64",
…
  "emulators": [
    "qemu-aarch64",
…'
installs "ls -al /proc/sys/fs/binfmt_misc/"
sees 'qemu-aarch64$' 'qemu-riscv64$'
installs "polyarch run --privileged --rm tonistiigi/binfmt --install arm64,amd64,riscv64"
sees 'installing: arm64' 'installing: riscv64'

later "polyarch buildx create --name multi-builder --driver docker-container"
later "polyarch buildx ls"
later "polyarch buildx inspect multi-builder --bootstrap"
cd "$work/test"
runs "polyarch buildx build -t chinaxiang/test:v1.1 --platform linux/amd64,linux/arm64 --builder multi-builder --push ."
sees 'linux/amd64' 'linux/arm64' 'chinaxiang/test:v1.1'
differs "until builders land, another builder's name is warned about and the build runs on this machine."
cd "$top"
runs "polyarch ps"
sees '^CONTAINER ID +IMAGE +COMMAND +CREATED +STATUS'
document 'CONTAINER ID   IMAGE                           COMMAND                  CREATED          STATUS          PORTS     NAMES
86a404e167d3   moby/buildkit:buildx-stable-1   "buildkitd --allow-i…"   22 minutes ago   Up 22 minutes             buildx_buildkit_multi-builder0'
differs "no builder runs in a container."
later "polyarch buildx use multi-builder"
later "polyarch buildx create --name remote-builder --driver docker-container --platform linux/amd64 --node node-amd64"
later "polyarch buildx create --name remote-builder --driver docker-container --platform linux/amd64 --append --node node-arm64"
later "polyarch buildx use remote-builder"
later "polyarch buildx inspect --bootstrap remote-builder"
later "polyarch buildx create --name remote-builder --leave --node node-amd64"

mkdir -p "$work/variables"
cat >"$work/variables/Dockerfile" <<'TXT'
FROM --platform=$BUILDPLATFORM golang:alpine AS build
ARG TARGETPLATFORM
ARG BUILDPLATFORM
RUN echo "I am running on $BUILDPLATFORM, building for $TARGETPLATFORM" > /log
FROM alpine
COPY --from=build /log /log
TXT
cd "$work/variables"
runs "polyarch buildx build --platform linux/amd64,linux/arm64 ."
sees '\[linux/amd64 build 2/2\] RUN echo "I am running on linux/amd64, building for linux/amd64" > /log' \
    '\[linux/amd64->arm64 build 2/2\] RUN echo "I am running on linux/amd64, building for linux/arm64" > /log'
document ' => [linux/amd64 build 2/2] RUN echo "I am running on linux/amd64, building for linux/amd64" > /log
 => [linux/amd64->arm64 build 2/2] RUN echo "I am running on linux/amd64, building for linux/arm64" > /log'
differs "the result is kept in the local store, and is not lost when nothing says where it goes."
cd "$top"
later "polyarch buildx stop remote-builder"
later "polyarch buildx rm remote-builder"
