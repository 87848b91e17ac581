# SPDX-License-Identifier: Apache-2.0
# The registry's page in a real browser; tests-e2e/page/run is the same by itself.
# shellcheck shell=bash disable=SC2154

# The driver of the browser comes from the network, which the cases don't have.
fetch_page() {
    [ ! -d "$top/tests-e2e/page/node_modules/playwright-core" ] || return 0
    command -v npm >/dev/null || return 0
    npm ci --ignore-scripts --prefix "$top/tests-e2e/page" >"$work/npm.log" 2>&1 || cat "$work/npm.log"
}

case_page() {
    local p f
    if ! command -v node >/dev/null || ! command -v "${CHROMIUM:-chromium}" >/dev/null; then
        printf 'not run: page: there is no node or no chromium\n'
        return 0
    fi
    "$top/tests-e2e/page/run" >"$work/page.log" 2>&1 || true
    # The sum is made here.
    grep -Ev '^[0-9]+ passed, [0-9]+ failed$' "$work/page.log" || true
    read -r p f < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$work/page.log" | tail -n 1) || true
    passed=$((passed + ${p:-0}))
    failed=$((failed + ${f:-1}))
}
