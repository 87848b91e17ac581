#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fills the architecture into the page, then becomes nginx. With --check it only tests the configuration.
set -eu
page=/usr/share/nginx/main/index.html
ARCHITECTURE=$(dpkg --print-architecture)
export ARCHITECTURE
envsubst '$ARCHITECTURE' <"$page" >/tmp/index.html
cp /tmp/index.html "$page"
if [ "${1:-}" = --check ]; then
    exec nginx -t
fi
exec nginx -g 'daemon off;'
