// Makes the page live: when the daemon says that something changed, the page is fetched again
// and what differs is put in, without moving focus or scroll. Everything works without this.
"use strict";

const lights = document.getElementById("live");
const news = document.getElementById("news");
const pause = 1000; // between two looks, in ms
let due = false, busy = false, timer = 0;

function show(text, on) {
  if (lights.textContent !== text) lights.textContent = text;
  lights.classList.toggle("on", on);
}

// what the page says about numbers, for whoever cannot see that they changed
function summary(page) {
  const element = page.querySelector("[data-summary]");
  return element ? element.dataset.summary.replace(/, $/, "") : "";
}

function keyOf(element) {
  const keyed = element.closest("[data-key]");
  return { key: keyed && keyed.dataset.key, href: element.getAttribute("href") };
}

function refocus(part, was) {
  for (const element of part.querySelectorAll("a, button")) {
    const now = keyOf(element);
    if (now.key === was.key && now.href === was.href) {
      element.focus({ preventScroll: true });
      return;
    }
  }
}

// words are what a row says, but for times, which go on by themselves.
function words(row) {
  return row.textContent.replace(/\d+[smhd]\S*/g, "");
}

// rows makes one table's rows those of another. What is the same stays where it is.
function rows(before, after) {
  const old = new Map();
  for (const row of before.rows) old.set(row.dataset.key, row);
  const all = [];
  for (const row of after.rows) {
    const was = old.get(row.dataset.key);
    if (was && was.innerHTML === row.innerHTML) {
      all.push(was);
      continue;
    }
    const now = document.importNode(row, true);
    if (!was || words(was) !== words(now)) now.classList.add("fresh");
    if (was) was.replaceWith(now);
    all.push(now);
  }
  for (const row of [...before.rows]) if (!all.includes(row)) row.remove();
  let at = before.firstElementChild;
  for (const row of all) {
    if (row === at) at = at.nextElementSibling;
    else before.insertBefore(row, at);
  }
}

function update(part, next) {
  const children = [...part.children], nexts = [...next.children];
  if (children.length !== nexts.length || children.some((child, i) => child.tagName !== nexts[i].tagName)) {
    part.replaceChildren(...document.importNode(next, true).childNodes);
    return;
  }
  children.forEach((child, i) => {
    if (child.tagName === "TABLE" && child.tBodies[0].rows[0].dataset.key) rows(child.tBodies[0], nexts[i].tBodies[0]);
    else if (child.outerHTML !== nexts[i].outerHTML) child.replaceWith(document.importNode(nexts[i], true));
  });
}

function put(page) {
  const told = summary(document);
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = page.querySelector(`[data-live="${part.dataset.live}"]`);
    if (!next || next.innerHTML === part.innerHTML) continue;
    const focused = part.contains(document.activeElement) ? keyOf(document.activeElement) : null;
    update(part, next);
    if (focused && !part.contains(document.activeElement)) refocus(part, focused);
  }
  const tells = summary(page);
  if (tells && tells !== told) news.textContent = tells;
}

async function look() {
  if (busy || document.hidden) return; // what is due stays due
  due = false;
  busy = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.ok) put(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    // the daemon is away: the event source says so
  }
  setTimeout(() => {
    busy = false;
    if (due) look();
  }, pause);
}

function soon() {
  due = true;
  clearTimeout(timer);
  timer = setTimeout(look, 0);
}

if (document.body.dataset.events && window.EventSource) {
  const source = new EventSource(document.body.dataset.events);
  let lost = false;
  source.addEventListener("open", () => {
    show("live", true);
    if (lost) soon(); // something may have changed meanwhile
    lost = false;
  });
  source.addEventListener("changed", soon);
  source.addEventListener("error", () => {
    lost = true;
    show(source.readyState === EventSource.CLOSED ? "not live: reload for news" : "not live: waiting for the daemon", false);
  });
  document.addEventListener("visibilitychange", () => { if (due) look(); });
  window.addEventListener("pagehide", () => source.close());
  window.addEventListener("pageshow", event => { if (event.persisted) location.reload(); });
}
