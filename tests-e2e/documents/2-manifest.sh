#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# document: 构建多种系统架构支持的 Docker 镜像
# shellcheck shell=bash
write "## 构建多种系统架构支持的 Docker 镜像"
mkdir -p "$work/echo"
printf 'FROM alpine\nCMD echo 1\n' >"$work/echo/Dockerfile"

machine arm64-board linux/arm64
runs "script -qec 'polyarch run -it --rm username/test' /dev/null" 125
sees 'username/test'
differs "the image is not there yet, as in the document; the error says so and what to do."

machine amd64 linux/amd64
polyarch build -q -t username/x8664-test --push "$work/echo" >/dev/null
machine arm64-board linux/arm64
polyarch build -q -t username/arm64v8-test --push "$work/echo" >/dev/null
machine amd64 linux/amd64
runs "polyarch run golang:alpine dpkg --print-architecture"
sees '^amd64$'
machine arm64-board linux/arm64
runs "polyarch run golang:alpine dpkg --print-architecture"
sees '^arm64$'
differs "the stand-in has no go; what the document shows with go version, it shows with dpkg."
machine amd64 linux/amd64
runs "polyarch manifest inspect golang:alpine"
sees '^         "mediaType": "application/vnd.docker.distribution.manifest.v2\+json",$' '^            "architecture": "arm64",$'

runs "polyarch manifest create username/test \\
      username/x8664-test \\
      username/arm64v8-test"
sees '^Created manifest list docker.io/username/test:latest$'
runs "polyarch manifest annotate username/test \\
      username/x8664-test \\
      --os linux --arch x86_64"
differs "docker refuses x86_64 (\"manifest entry for image has unsupported os/arch combination\"); it is another word for amd64, and is written so."
runs "polyarch manifest annotate username/test \\
      username/arm64v8-test \\
      --os linux --arch arm64 --variant v8"
runs "polyarch manifest inspect username/test"
sees '"architecture": "amd64"' '"architecture": "arm64"' '"variant": "v8"'
runs "polyarch manifest push username/test"
sees '^sha256:[0-9a-f]{64}$'
for machine in amd64 arm64-board; do
    machine "$machine" "linux/${machine%-board}"
    runs "script -qec 'polyarch run -it --rm username/test' /dev/null"
    sees '^1'
done
