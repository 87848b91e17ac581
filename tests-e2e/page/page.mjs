// SPDX-License-Identifier: Apache-2.0
// The registry's page in a real browser: node page.mjs ADDRESS [DIRECTORY FOR SCREENSHOTS]
import { chromium } from "playwright-core";
import { seed, send } from "./seed.mjs";

const [base, shots] = process.argv.slice(2);
const browserPath = process.env.CHROMIUM ?? "/usr/bin/chromium";
let passed = 0;
let failed = 0;

const equal = (actual, expected) => {
  if (actual !== expected) throw new Error(`expected: ${expected}\nbut got:  ${actual}`);
};
const holds = (what, condition) => {
  if (!condition) throw new Error(`not so: ${what}`);
};

await seed(base);
// What the API says of a name, and of the index behind it.
const api = await send(base, "GET", "/v2/team/app/manifests/2.0.0");
const indexDigest = api.headers["docker-content-digest"];
const digestFor = (platform) => {
  const [os, architecture] = platform.split("/");
  const entries = JSON.parse(api.body).manifests;
  return entries.find((entry) => entry.platform.os === os && entry.platform.architecture === architecture).digest;
};

// --no-sandbox: the tests run as root, and look at nothing but our own server.
const browser = await chromium.launch({ executablePath: browserPath, args: ["--no-sandbox"] });

// check "what is promised" work: with a page of its own, which may ask our server alone and complain of nothing.
const check = async (promise, options, work) => {
  const context = await browser.newContext({ locale: "en-GB", viewport: { width: 1200, height: 800 }, ...options });
  const page = await context.newPage();
  const troubles = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) troubles.push(message.text());
  });
  page.on("pageerror", (error) => troubles.push(`${error}`));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(base).origin) troubles.push(`a request left: ${request.url()}`);
  });
  try {
    await work(page, context);
    equal(troubles.join("\n"), "");
    passed += 1;
    console.log(`ok      ${promise}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${promise}\n${`${error.stack ?? error}`.replaceAll(/^/gm, "        ")}`);
  }
  await context.close();
};

const shoot = async (page, name) => {
  if (shots) await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
};
const open = (page, path) => page.goto(new URL(path, base).href);
const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
const isWithinWidth = async (page) =>
  holds("nothing is wider than the window", await page.evaluate(() =>
    document.documentElement.scrollWidth <= document.documentElement.clientWidth));

await check("a tag is found by search, and its digests are those of the API", {}, async (page) => {
  await open(page, "/");
  await shoot(page, "home");
  await page.fill("#search", "app:2.0");
  await page.press("#search", "Enter");
  await page.click(".found a");
  equal(await page.textContent("h1"), "team/app:2.0.0");
  equal((await page.textContent("#digest code")).trim(), indexDigest);
  const rows = page.locator("table.platforms tbody tr");
  equal(await rows.count(), 6);
  for (const platform of ["linux/amd64", "linux/arm64", "linux/s390x"]) {
    const row = rows.filter({ has: page.getByRole("link", { name: platform, exact: true }) });
    equal((await row.locator("code").textContent()).trim(), digestFor(platform));
  }
  holds("attestations are no platforms", !(await page.content()).includes("unknown/unknown"));
  await shoot(page, "light");
});

await check("the command of a platform is copied", {}, async (page, context) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await open(page, "/team/app:2.0.0");
  await page.click("text=linux/riscv64");
  await page.waitForURL(/platform=linux%2Friscv64/);
  await page.click("#platform .command .copy");
  await page.waitForSelector("#platform .command .copy.done");
  const host = new URL(base).host;
  equal(await page.evaluate(() => navigator.clipboard.readText()),
    `polyarch pull --platform linux/riscv64 ${host}/team/app:2.0.0`);
  await page.click("#digest .copy");
  await page.waitForSelector("#digest .copy.done");
  equal(await page.evaluate(() => navigator.clipboard.readText()), indexDigest);
});

await check("the language is the browser's, and the reader's when it was switched", { locale: "zh-CN" }, async (page) => {
  await open(page, "/team/app:2.0.0");
  equal(await page.getAttribute("html", "lang"), "zh");
  holds("Chinese words", (await page.textContent("main")).includes("索引摘要"));
  await shoot(page, "chinese");
  await page.click("#language");
  equal(await page.getAttribute("html", "lang"), "en");
  await page.click(".crumbs a:last-child");
  equal(await page.getAttribute("html", "lang"), "en");
  holds("English words", (await page.textContent("main")).includes("Compare two tags"));
});

await check("dark is the system's or the reader's, and stays", { colorScheme: "dark" }, async (page) => {
  await open(page, "/team/app:2.0.0");
  const dark = await background(page);
  await shoot(page, "dark");
  await page.click("a.to-light");
  const light = await background(page);
  holds("another colour", dark !== light);
  await page.click(".crumbs a:last-child");
  equal(await background(page), light);
  equal(await page.evaluate(() => document.cookie), "");
});

await check("the keyboard is enough", {}, async (page) => {
  await open(page, "/");
  await page.keyboard.press("Tab");
  equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("/");
  equal(await page.evaluate(() => document.activeElement.id), "search");
  await page.keyboard.type("team app 2.0.0");
  await page.keyboard.press("Enter");
  await page.waitForURL(/q=team/);
  // To the only result, whatever stands before it.
  const reach = async (selector) => {
    for (let presses = 0; presses < 60; presses++) {
      await page.keyboard.press("Tab");
      const found = await page.evaluate((wanted) => {
        const active = document.activeElement;
        const outline = getComputedStyle(active).outlineStyle;
        if (outline === "none" && active !== document.body) throw new Error(`no focus to be seen: ${active.outerHTML}`);
        return active.matches(wanted);
      }, selector);
      if (found) return;
    }
    throw new Error(`Tab does not come to ${selector}`);
  };
  await reach(".found a");
  await page.keyboard.press("Enter");
  await page.waitForURL(/team\/app:2\.0\.0/);
  await reach("table.platforms tbody tr:nth-child(2) th a");
  await page.keyboard.press("Enter");
  await page.waitForURL(/platform=linux%2Farm64/);
  equal(await page.textContent("#platform h2"), "linux/arm64");
  await reach("a.to-dark");
  const light = await background(page);
  await page.keyboard.press("Enter");
  holds("dark", (await background(page)) !== light);
  equal(await page.evaluate(() => document.activeElement.dataset.themeTo), "light");
});

await check("a phone shows everything", { viewport: { width: 360, height: 740 } }, async (page) => {
  for (const [path, name] of [
    ["/", "phone-home"],
    ["/team/app", "phone-matrix"],
    ["/team/app:2.0.0", "phone"],
    ["/team/app?a=1.10.1&b=2.0.0", "phone-compare"],
    ["/nothing:here", null],
  ]) {
    if (name === null) continue;
    await open(page, path);
    await isWithinWidth(page);
    await shoot(page, name);
  }
  // The matrix scrolls within itself.
  await open(page, "/team/app");
  const scrolled = await page.evaluate(() => {
    const box = document.querySelector(".box");
    box.scrollLeft = 200;
    return box.scrollLeft;
  });
  holds("the matrix scrolls", scrolled > 0);
});

await check("two platforms are compared", {}, async (page) => {
  await open(page, "/team/app:2.0.0");
  await page.selectOption(".compare select[name=a]", { label: "linux/amd64" });
  await page.selectOption(".compare select[name=b]", { label: "linux/arm64" });
  await page.click(".compare button");
  const text = await page.textContent("main");
  holds("the architecture differs", text.includes("architecture"));
  holds("one layer is shared", text.includes("1 shared (9.0 kB); 3 only in the first"));
  equal(await page.locator(".sides .digest code").first().textContent(), digestFor("linux/amd64"));
  await shoot(page, "compare");
});

await check("two tags are compared", { locale: "zh-CN" }, async (page) => {
  await open(page, "/team/app");
  await shoot(page, "chinese-matrix");
  await page.selectOption(".compare select[name=a]", "1.10.1");
  await page.selectOption(".compare select[name=b]", "2.0.0");
  await page.click(".compare button");
  equal(await page.locator(".state.warn").count(), 6);
  await shoot(page, "chinese-compare");
});

await check("a matrix shows what is here and what is not", {}, async (page) => {
  await open(page, "/team/app");
  const row = page.locator("table.matrix tbody tr").filter({ has: page.getByRole("link", { name: "edge", exact: true }) });
  equal(await row.locator("a.cell").count(), 6);
  equal(await row.locator("a.cell.away").count(), 4);
  await shoot(page, "matrix");
  await open(page, "/team/app:edge");
  equal(await page.textContent(".verdict"), "Partial");
  await open(page, "/team/app:odd");
  equal(await page.textContent(".verdict"), "Wrong platform");
  await shoot(page, "wrong");
});

await check("without JavaScript everything but copying works", { javaScriptEnabled: false }, async (page) => {
  await open(page, "/?q=app:2.0");
  await page.click(".found a");
  await page.click("text=linux/arm64");
  equal(await page.textContent("#platform h2"), "linux/arm64");
  equal(await page.locator(".copy:visible").count(), 0);
  await page.click("a.to-dark");
  await page.click("#language");
  equal(await page.getAttribute("html", "data-theme"), "dark");
  equal(await page.getAttribute("html", "lang"), "zh");
  await page.click(".crumbs a:last-child");
  equal(await page.getAttribute("html", "data-theme"), "dark");
  equal(await page.getAttribute("html", "lang"), "zh");
});

await check("a tag's page with its style and script is small", {}, async (page) => {
  let bytes = 0;
  page.on("response", async (response) => (bytes += Number(response.headers()["content-length"] ?? 0)));
  await open(page, "/team/app:2.0.0");
  holds(`under 40 KB: ${bytes}`, bytes > 10_000 && bytes < 40 << 10);
  console.log(`        ${bytes} bytes`);
});

await browser.close();
console.log(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
