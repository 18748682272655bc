/** What the page asks its server. */

/** The server has read the run again: what the page knows of it is of before. */
export class Outdated extends Error {}

/** The server does not answer. */
export class Ended extends Error {}

/** The whole run: its version, counts and classes. */
export function fetchSummary() {
  return fetched("api/summary");
}

/**
 * A part of the pictures that filters leave.
 * @param {string} version
 * @param {URLSearchParams} filters
 * @param {{start: number, count: number, signal?: AbortSignal}} part
 */
export function fetchPictures(version, filters, { start, count, signal }) {
  return fetched(`api/pictures?${new URLSearchParams([...filters, ["version", version], ["start", start], ["count", count]])}`, signal);
}

/** Where the picture with a name is among those that filters leave, or null. */
export async function fetchPosition(version, filters, name) {
  return (await fetched(`api/position?${new URLSearchParams([...filters, ["version", version], ["name", name]])}`)).position;
}

export function smallUrl(version, { index }) {
  return `small/${version}/${index}`;
}

export function largeUrl(version, { index }) {
  return `large/${version}/${index}`;
}

/** Why the copy of a picture did not come, in the server's words; "" where it does now. */
export async function reasonOf(url) {
  const answer = await answered(url);
  return answer.ok ? "" : (await answer.json()).message;
}

async function answered(address, signal) {
  const answer = await fetch(address, { signal }).catch((error) => {
    throw error.name === "AbortError" ? error : new Ended("no answer", { cause: error });
  });
  if (answer.status === 410) throw new Outdated("the run was read again");
  return answer;
}

async function fetched(address, signal) {
  const answer = await answered(address, signal);
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).message ?? String(answer.status));
  return answer.json();
}
