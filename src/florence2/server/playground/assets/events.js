/** Server-sent events of an answer: from bytes to `{kind, data}`, by the HTML standard's rules for such a stream. */

/**
 * The events of a response as they come in. Comments, which keep the connection alive, are skipped.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<{kind: string, data: any}>}
 */
export async function* readEvents(body) {
  let kind = "message";
  let data = [];
  for await (const line of readLines(body)) {
    if (line === "") {
      if (data.length) yield { kind, data: JSON.parse(data.join("\n")) };
      kind = "message";
      data = [];
    } else if (line.startsWith("event:")) {
      kind = valueOf(line);
    } else if (line.startsWith("data:")) {
      data.push(valueOf(line));
    }
  }
}

function valueOf(line) {
  const value = line.slice(line.indexOf(":") + 1);
  return value.startsWith(" ") ? value.slice(1) : value;
}

/** Lines of a stream of UTF-8, without their ends; what follows the last end is no line. */
async function* readLines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      const lines = rest.split(/\r\n|\n|\r(?!$)/); // a \r at the end may be half of \r\n
      rest = lines.pop();
      yield* lines;
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stops reading ends the request
  }
}
