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

# The document's machine has no builder in use yet.
polyarch buildx use default
runs "polyarch buildx create --name multi-builder --driver docker-container"
sees '^multi-builder$'
runs "polyarch buildx ls"
sees '^NAME/NODE +DRIVER/ENDPOINT +STATUS +BUILDKIT +PLATFORMS' '^multi-builder +docker-container' \
    'multi-builder0 +.* unix:///var/run/docker.sock +running ' '^default\* +local'
document 'NAME/NODE            DRIVER/ENDPOINT                   STATUS     BUILDKIT   PLATFORMS
multi-builder        docker-container
 \_ multi-builder0    \_ unix:///var/run/docker.sock   inactive
default*             docker
 \_ default           \_ default                       running    v0.13.2    linux/amd64, linux/amd64/v2, …'
differs "no container has to be started, so the new builder is running at once."
runs "polyarch buildx inspect multi-builder --bootstrap"
sees '^Name: +multi-builder$' '^Status: +running$'
cd "$work/test"
runs "polyarch buildx build -t chinaxiang/test:v1.1 --platform linux/amd64,linux/arm64 --builder multi-builder --push ."
sees 'linux/amd64' 'linux/arm64' 'chinaxiang/test:v1.1'
cd "$top"
runs "polyarch ps"
sees '^CONTAINER ID +IMAGE +COMMAND +CREATED +STATUS'
document 'CONTAINER ID   IMAGE                           COMMAND                  CREATED          STATUS          PORTS     NAMES
86a404e167d3   moby/buildkit:buildx-stable-1   "buildkitd --allow-i…"   22 minutes ago   Up 22 minutes             buildx_buildkit_multi-builder0'
differs "no builder runs in a container."
runs "polyarch buildx use multi-builder"
runs "polyarch buildx ls"
sees '^multi-builder\* +docker-container' '^default +local'

# The two machines of the document are addresses of this one, on which nodes listen.
runs "export DOCKER_HOST=tcp://172.31.154.78:2375
polyarch buildx create --name remote-builder --driver docker-container --platform linux/amd64 --node node-amd64" 2
sees 'is not protected' 'polyarch node add'
differs "port 2375 of a docker daemon lets everybody in who reaches it. It is used only when --driver-opt insecure=true says so; here \
certificates are made first."
runs "polyarch node certs $work/tls --host 172.31.154.78 --host 172.31.154.79"
sees '172.31.154.78.pem' 'node serve --listen'
start_node 172.31.154.78
start_node 172.31.154.79
options="cacert=$work/tls/ca.pem,cert=$work/tls/client.pem,key=$work/tls/client-key.pem"
runs "polyarch buildx create --name remote-builder --driver remote --driver-opt $options --platform linux/amd64 --node node-amd64 tcp://172.31.154.78:1234"
sees '^remote-builder$'
runs "polyarch buildx create --name remote-builder --driver remote --driver-opt $options --platform linux/amd64 --append --node node-arm64 tcp://172.31.154.79:1234"
sees '^remote-builder$'
runs "polyarch buildx use remote-builder"
runs "polyarch buildx inspect --bootstrap remote-builder"
sees '^Name: +node-amd64$' '^Name: +node-arm64$' '^Endpoint: +tcp://172.31.154.79:1234$' '^Status: +running$' \
    '^Platforms: +linux/amd64\*'
document 'NAME/NODE            DRIVER/ENDPOINT                   STATUS    BUILDKIT   PLATFORMS
remote-builder*      docker-container
 \_ node-amd64        \_ tcp://172.31.154.78:2375      running   v0.15.1    linux/amd64*, linux/amd64/v2, …
 \_ node-arm64        \_ tcp://172.31.154.79:2375      running   v0.15.1    linux/amd64*, linux/amd64/v2, …'
differs "a platform is fixed for one node: the document's second --platform linux/amd64 takes it from the first. What was meant:"
runs "polyarch buildx create --name remote-builder --node node-arm64 --platform linux/arm64"
sees 'only emulates linux/arm64, which is slow'
runs "polyarch buildx create --name remote-builder --node node-amd64 --platform linux/amd64"
differs "the machine of node-arm64 is not one of arm64 here: it was asked, and what it would emulate is said."
cd "$work/test"
runs "polyarch buildx build --platform linux/amd64,linux/arm64 ."
sees '\[node-amd64 .*builder 4/4\] RUN sed' '\[node-arm64 .*builder 4/4\] RUN sed'
cd "$top"
runs "polyarch buildx ls"
sees '^remote-builder\* +remote' 'node-amd64 +.* tcp://172.31.154.78:1234 +running .*linux/amd64\*' \
    'node-arm64 +.* tcp://172.31.154.79:1234 +running .*linux/arm64\*'
runs "polyarch buildx create --name remote-builder --leave --node node-amd64"
runs "polyarch buildx create --name remote-builder --leave --node node-arm64" 2
sees 'last node'
runs "polyarch buildx use multi-builder"

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
runs "polyarch buildx stop remote-builder"
sees 'nothing of it runs here'
runs "polyarch buildx rm remote-builder"
sees '^remote-builder removed$'
stop_nodes
