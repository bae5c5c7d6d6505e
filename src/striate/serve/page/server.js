// Asking the server: the token, errors with a status, and the rule that the latest question wins.

const KEY = "striate-token";
const LONGEST = 30_000;

/** What the server said no to. `status` 0: it could not be reached; -1: it took too long. */
export class Refused extends Error {
  constructor(status, said = {}, wait = 0) {
    super(said.what ?? said.detail ?? "");
    this.status = status;
    this.said = said;
    this.wait = wait; // seconds that it wants us to wait
  }
  get key() {
    const status = this.status >= 500 && ![501, 503].includes(this.status) ? 500 : this.status;
    return { 0: "e_gone", "-1": "e_late" }[status] ?? `e_${status}`;
  }
}

export function keepToken(token) {
  try { sessionStorage.setItem(KEY, token); } catch { /* then it is asked for again */ }
  held = token;
}
let held = (() => { try { return sessionStorage.getItem(KEY) ?? ""; } catch { return ""; } })();
export const hasToken = () => held !== "";

/** Ask for JSON. Throws Refused, or an AbortError when `signal` fires. */
export async function ask(path, { body, signal } = {}) {
  const late = AbortSignal.timeout(LONGEST);
  const headers = held ? { Authorization: `Bearer ${held}` } : {};
  if (body) headers["Content-Type"] = body.type || "application/octet-stream";
  const given = { method: body === undefined ? "GET" : "POST", body, headers, signal: signal ? AbortSignal.any([signal, late]) : late };
  let reply, said;
  try {
    reply = await fetch(path, given);
    said = await reply.json().catch(() => ({}));
  } catch (error) {
    if (signal?.aborted) throw new DOMException("no longer wanted", "AbortError");
    throw new Refused(late.aborted ? -1 : 0);
  }
  if (signal?.aborted) throw new DOMException("no longer wanted", "AbortError");
  if (reply.ok || said.results) return said; // a picture that cannot be read is an answer too
  const error = typeof said.error === "string" ? { what: said.error } : said.error ?? {};
  throw new Refused(reply.status, error, Number(reply.headers.get("Retry-After")) || 0);
}

/**
 * The latest wins: while one question is being answered newer ones wait, and of those only the last is asked.
 * `work(value, signal)` leaves the page alone once the signal has fired, so that no late answer is shown.
 */
export function latest(work) {
  let current = null, next = null;
  async function run(value) {
    const controller = (current = new AbortController());
    try {
      await work(value, controller.signal);
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    } finally {
      if (current === controller) {
        current = null;
        if (next) {
          const { value: waiting } = next;
          next = null;
          run(waiting);
        }
      }
    }
  }
  function drop() {
    current?.abort();
    current = next = null;
  }
  return {
    ask(value) { if (current) next = { value }; else run(value); },
    now(value) { drop(); run(value); },
    drop,
    get isIdle() { return current === null; },
  };
}

/** Sleep, unless the signal fires. */
export const sleep = (seconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, seconds * 1000);
  signal?.addEventListener("abort", () => { clearTimeout(timer); reject(new DOMException("", "AbortError")); }, { once: true });
});

/** Numbers that came as base64 {shape, dtype, base64}. */
export function unpack({ shape, dtype, base64 }) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return { shape, values: dtype === "uint8" ? bytes : new Float32Array(bytes.buffer) };
}
