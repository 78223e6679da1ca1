// Requests to the server. The cookie of the first request has the token.

/** An answer that is not a success. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body?.error || `the server answered with status ${status}`);
    this.status = status;
    this.body = body;
  }
}

const GONE = "the server does not answer: is `vaplan serve` still running?";
/** Longer than the server takes for any answer (60 s). A server that is stopped keeps the connection and never answers. */
const PATIENCE = 75000;

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, { error: GONE });
  }
  const body = await response.json().catch(() => null);
  // The connection ended in the middle of the answer.
  if (response.ok && body === null) throw new ApiError(0, { error: GONE });
  if (!response.ok) throw new ApiError(response.status, body);
  return body;
}

function query(values) {
  const text = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== "" && value !== null && value !== undefined && value !== false) text.set(name, value);
  }
  return text.toString();
}

export const info = () => ask("/api/info");
export const videos = (filter, signal) => ask(`/api/videos?${query(filter)}`, { signal });
export const video = (name) => ask(`/api/video?${query({ name })}`);
export const history = (name) => ask(`/api/history?${query({ name })}`);
export const overview = () => ask("/api/overview");
export const auditSample = (request) => ask(`/api/audit/sample?${query(request)}`);
export const auditReport = (request) => ask(`/api/audit/report?${query(request)}`);
export const mediaUrl = (name) => `/media?${query({ name })}`;

const post = (path, request) => ask(path, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(request),
  signal: AbortSignal.timeout(PATIENCE),
});

export const save = (request) => post("/api/save", request);
export const judge = (request) => post("/api/verdicts", request);
