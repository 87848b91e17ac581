#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# document: 多架构镜像构建指南
# shellcheck shell=bash
write "## 多架构镜像构建指南"
machine amd64 linux/amd64

runs "polyarch manifest inspect golang:1.16"
sees '^   "schemaVersion": 2,$' '^   "mediaType": "application/vnd.docker.distribution.manifest.list.v2\+json",$' \
    '^            "architecture": "s390x",$' '^            "variant": "v5"$'
document '{
   "schemaVersion": 2,
   "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
   "manifests": [
      {
         "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
         "size": 1795,
         "digest": "sha256:448a1303…",
         "platform": {
            "architecture": "amd64",
            "os": "linux"
         }
      },
…'
differs "the stand-in has other sizes and digests, and no Windows; the form is the same, byte for byte."

runs "polyarch pull golang:1.18"
sees '^Status: Downloaded newer image for golang:1.18$' '^Digest: sha256:'
digest=$(polyarch imagetools inspect golang:1.18 --format '{{json .Manifest}}' | jq -r '.manifests[0].digest')
runs "polyarch pull golang@$digest"
sees "golang@$digest"
runs "polyarch manifest --help"
sees 'create' 'annotate' 'inspect' 'push'
differs "nothing has to be switched on first: there is no experimental mode, no daemon.json and no service to restart."

polyarch tag golang:1.18 hub.c.163.com/kubecube/cube:v1.0.0-amd64
polyarch push -q hub.c.163.com/kubecube/cube:v1.0.0-amd64 --platform linux/amd64 >/dev/null
POLYARCH_ROOT=$work/cube polyarch pull -q --platform linux/arm64 golang:1.18 >/dev/null
POLYARCH_ROOT=$work/cube polyarch tag golang:1.18 hub.c.163.com/kubecube/cube:v1.0.0-arm64
POLYARCH_ROOT=$work/cube polyarch push -q hub.c.163.com/kubecube/cube:v1.0.0-arm64 --platform linux/arm64 >/dev/null
runs "polyarch manifest create hub.c.163.com/kubecube/cube:v1.0.0-multi-arch hub.c.163.com/kubecube/cube:v1.0.0-arm64 hub.c.163.com/kubecube/cube:v1.0.0-amd64"
sees '^Created manifest list hub.c.163.com/kubecube/cube:v1.0.0-multi-arch$'
runs "polyarch manifest push hub.c.163.com/kubecube/cube:v1.0.0-multi-arch"
sees '^sha256:[0-9a-f]{64}$'

runs "polyarch buildx version"
sees '^polyarch v[0-9]'
document 'github.com/docker/buildx v0.3.1-tp-docker 6db68d029599c6710a32aa7adcba8e5a344795a7'
differs "the name and the version are polyarch's own; no environment variable switches it on."

runs "polyarch build --platform=local -o . git://github.com/docker/buildx" 5
sees 'git ls-remote of git://github.com/docker/buildx failed'
differs "there is no network here. Nor is there a plug-in to build: polyarch has buildx's commands."

installs "polyarch run --rm --privileged docker/binfmt:66f9012c56a8316f9244ffd7622d7c21c1f6f28d"
sees 'installing: arm64 OK' '"linux/arm64"'
differs "nothing is pulled: polyarch installs the emulators itself. Its own builds do not need this step."
installs "ls -al /proc/sys/fs/binfmt_misc/"
sees 'qemu-aarch64$' 'qemu-s390x$' 'register$' 'status$'
installs "cat /proc/sys/fs/binfmt_misc/qemu-aarch64"
sees '^enabled$' '^interpreter /' '^flags: ' '^magic 7f454c460201010000000000000000000200b7'
document 'enabled
interpreter /usr/bin/qemu-aarch64
flags: OCF
offset 0
magic 7f454c460201010000000000000000000200b7
mask ffffffffffffff00fffffffffffffffffeffff'
differs "the emulator is Debian's, with a static binary's name."

runs "polyarch buildx create --use --name mybuilder"
sees '^mybuilder$' 'needs no container here'
runs "polyarch buildx inspect mybuilder --bootstrap"
sees '^Name: +mybuilder$' '^Driver: +docker-container$' '^Name: +mybuilder0$' \
    '^Endpoint: +unix:///var/run/docker.sock$' '^Status: +running$' '^Platforms: +linux/amd64'
document '[+] Building 5.0s (1/1) FINISHED
 => [internal] booting buildkit
…
Name:   mybuilder
Driver: docker-container

Nodes:
Name:      mybuilder0
Endpoint:  unix:///var/run/docker.sock
Status:    running
…'
differs "nothing has to be pulled and started: the builder is this program. Lines of newer versions of buildx are there too."
runs "polyarch buildx ls"
sees '^NAME/NODE +DRIVER/ENDPOINT +STATUS +BUILDKIT +PLATFORMS' '^mybuilder\* +docker-container' \
    'mybuilder0 +.* unix:///var/run/docker.sock +running .*linux/amd64' '^default +local'
document 'NAME/NODE    DRIVER/ENDPOINT             STATUS  PLATFORMS
mybuilder *  docker-container
  mybuilder0 unix:///var/run/docker.sock running linux/amd64, linux/arm64, linux/ppc64le, linux/s390x, linux/386, linux/arm/v7, linux/arm/v6
default      docker
  default    default                     running linux/amd64, linux/386'

mkdir -p "$work/hello" "$work/java"
write_program "$work/hello" golang:alpine
cd "$work/hello"
runs "polyarch buildx build -t registry/hello-multi-arch --platform=linux/arm,linux/arm64,linux/amd64 . --push"
sees 'linux/arm/v7' 'linux/arm64' 'linux/amd64' 'registry/hello-multi-arch'
differs "the program is written by a shell step instead of a Go compiler; the step runs on each platform all the same."
cat >"$work/java/Dockerfile" <<'TXT'
FROM tomcat:jdk8-openjdk
ENV TZ=Asia/Shanghai LANG=C.UTF-8 LANGUAGE=C.UTF-8 LC_ALL=C.UTF-8
RUN ln -snf /usr/share/zoneinfo/$TZ /etc/localtime && echo $TZ > /etc/timezone
WORKDIR /usr/local/tomcat
RUN rm -rf webapps/* \
    && mkdir -p webapps/ROOT
COPY target/*.war webapps/ROOT
RUN cd webapps/ROOT \
    && tar -xvf $(ls | grep '.war')

ENTRYPOINT ["catalina.sh", "run"]
TXT
mkdir "$work/java/target" && tar -C "$work/hello" -cf "$work/java/target/app.war" main.sh
cd "$work/java"
runs "polyarch buildx build -t registry/java-multi-arch --platform=linux/arm64,linux/amd64 . --push"
sees 'linux/arm64' 'linux/amd64' 'registry/java-multi-arch'
differs "the stand-in has tar instead of a JDK's jar; examples/java-web builds a real one."
cd "$top"
