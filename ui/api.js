// Asking the server. Knows the native API's addresses and errors, nothing of the page.

import { parse } from "./json.js";

/** What the server or the network says is wrong. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", position = null, parameter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, position, parameter });
  }
}

/** `/logs?q=…`, parameters that are empty left out. */
export function address(path, parameters) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") search.append(name, one);
    }
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

/** The answer's JSON, with `cache` from its header. */
export async function get(path, parameters = {}, { signal, fresh = false } = {}) {
  const url = address(path, parameters);
  const headers = { accept: "application/json" };
  if (fresh) headers["cache-control"] = "no-cache";
  let response;
  let text;
  try {
    response = await fetch(url, { headers, signal });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it running?", { code: "unreachable" });
  }
  let body = null;
  try {
    body = parse(text);
  } catch {
    throw new ApiError(`The server answered ${response.status} with something that is not JSON`, { status: response.status });
  }
  if (!response.ok) {
    const error = body?.error ?? {};
    throw new ApiError(error.message ?? `The server answered ${response.status}`, { status: response.status, ...error });
  }
  body.cache = response.headers.get("x-cache") ?? "";
  return body;
}
