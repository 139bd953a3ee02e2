// Looks at a running daemon's status page with Chromium: node check.mjs URL [PICTURES].
// On stdout it asks for what has to happen meanwhile ("please ..."), and gets a line each back.
import { chromium } from "playwright-core";
import { AxeBuilder } from "@axe-core/playwright";
import { createInterface } from "node:readline";
import { statSync } from "node:fs";
import assert from "node:assert/strict";

const [base, pictures] = process.argv.slice(2);
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function please(what) {
  console.log("please " + what);
  return (await answers.next()).value;
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const complaints = [];

// open makes a context whose pages must not complain, and must not ask anybody else.
async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  context.on("request", request => {
    if (!request.url().startsWith(base + "/")) complaints.push("asks " + request.url());
  });
  context.on("console", message => {
    if (["error", "warning"].includes(message.type())) complaints.push(`${message.page()?.url()}: ${message.text()}`);
  });
  context.on("weberror", error => complaints.push(String(error.error())));
  return context;
}

const paths = [
  "/", "/?q=shop", "/?q=nothing-like-it", "/?state=failed", "/policies", "/policies/watched", "/history", "/history?policy=shop",
  "/assignments/shop/shop.example.com", "/assignments/mail/mail.example.com", "/assignments/nope/nope",
];

async function step(name, run) {
  const began = performance.now();
  await run();
  console.log(`${name}: ok, ${Math.round(performance.now() - began)} ms`);
}

try {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 320]) {
      await step(`axe, ${colorScheme}, ${width} px`, async () => {
        const context = await open({ colorScheme, viewport: { width, height: 860 } });
        const page = await context.newPage();
        for (const path of width > 400 ? paths : paths.filter(path => !path.startsWith("/?"))) {
          const answer = await page.goto(base + path);
          if (path.includes("nope")) complaints.pop(); // the browser's word about the 404 that is wanted
          else assert.equal(answer.status(), 200, path);
          const found = await new AxeBuilder({ page }).analyze();
          const words = found.violations.map(v => `${v.id}: ${v.nodes.map(n => n.target + " " + n.failureSummary).join("; ")}`);
          assert.deepEqual(words, [], path);
          const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
          assert.equal(wide, 0, `${path} is wider than the window`);
        }
        await context.close();
      });
    }
  }

  await step("without JavaScript", async () => {
    const context = await open({ javaScriptEnabled: false });
    const page = await context.newPage();
    await page.goto(base + "/");
    assert.ok(await page.locator("tbody tr").count() > 10);
    await page.getByRole("searchbox", { name: "Search" }).fill("mail");
    await page.getByRole("button", { name: "Show" }).click();
    assert.equal(new URL(page.url()).searchParams.get("q"), "mail");
    assert.equal(await page.locator("tbody tr").count(), 1);
    await page.locator("tbody").getByRole("link", { name: "mail.example.com" }).click();
    await page.getByRole("heading", { level: 1, name: "mail.example.com" }).waitFor();
    await page.getByRole("heading", { name: "Timeline" }).waitFor();
    assert.ok(await page.getByText("not live: reload for news").isVisible());
    await page.goto(base + "/policies/watched");
    assert.ok(await page.locator(".problems").getByText("broken.pem").isVisible());
    await context.close();
  });

  await step("keyboard only", async () => {
    const context = await open();
    const page = await context.newPage();
    await page.goto(base + "/");
    const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.name);
    await page.keyboard.press("Tab");
    assert.equal(await focused(), "Skip to the content");
    assert.ok(await page.locator(".skip").evaluate(link => link.getBoundingClientRect().left >= 0), "the skip link shows");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "main");
    for (let i = 0; i < 80 && await focused() !== "q"; i++) await page.keyboard.press("Tab");
    await page.keyboard.type("shop");
    await Promise.all([page.waitForURL(/q=shop/), page.keyboard.press("Enter")]);
    for (let i = 0; i < 80 && await focused() !== "shop.example.com"; i++) await page.keyboard.press("Tab");
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, "none", "focus shows");
    await Promise.all([page.waitForURL(/assignments\/shop/), page.keyboard.press("Enter")]);
    await context.close();
  });

  if (pictures) {
    for (const [name, path, colorScheme, height] of [["status-light", "/", "light", 860], ["status-dark", "/", "dark", 860], ["assignment", "/assignments/shop/shop.example.com", "light", 1060]]) {
      const context = await open({ colorScheme, viewport: { width: 1200, height } });
      const page = await context.newPage();
      await page.goto(base + path);
      await page.locator(".live.on").waitFor();
      const file = `${pictures}/${name}.png`;
      await page.screenshot({ path: file });
      assert.ok(statSync(file).size < 200_000, `${file} is large`);
      await context.close();
    }
  }

  await step("live", async () => {
    const context = await open();
    const front = await context.newPage(), one = await context.newPage();
    await front.goto(base + "/");
    await one.goto(base + "/assignments/shop/shop.example.com");
    for (const page of [front, one]) await page.locator(".live.on").getByText("live").waitFor();
    const events = await one.locator(".timeline li").count();
    const row = front.locator("tbody tr", { hasText: "shop.example.com" });
    await row.getByRole("link", { name: "shop.example.com" }).focus();
    await front.evaluate(() => scrollTo(0, 200));
    const scrolled = await front.evaluate(() => scrollY);
    const fingerprint = await please("renew shop.example.com");
    await one.locator(".facts code", { hasText: fingerprint }).waitFor();
    await one.locator(".state", { hasText: "converged" }).waitFor();
    await front.bringToFront();
    await row.locator("code", { hasText: fingerprint.slice(0, 12) }).waitFor();
    assert.equal(await front.evaluate(() => document.activeElement.getAttribute("href")), "/assignments/shop/shop.example.com", "focus stays");
    assert.equal(await front.evaluate(() => scrollY), scrolled, "scroll stays");
    await one.bringToFront();
    await one.locator(".timeline li").nth(events).waitFor(); // the timeline goes on
    await front.bringToFront();
    await please("pause api");
    await front.locator(".attention").getByText("<b>release</b>").waitFor();
    await context.close();
  });
  assert.deepEqual(complaints, [], "the console, or others, heard of it");
} finally {
  await browser.close();
}
process.exit(0);
