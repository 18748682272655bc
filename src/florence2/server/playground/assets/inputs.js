/** All ways by which a picture comes in: chosen, photographed, dropped, pasted, linked, or an example. */
import { addressOf, fetchExample, fetchLink } from "./api.js";
import { byId, make } from "./elements.js";
import { PageError, RequestError } from "./errors.js";
import { languages, t } from "./i18n.js";
import { closePicture, openPicture } from "./picture.js";

/** Opens pictures and gives them to `onPicture`; what goes wrong is given to `onError`, with a way to try again where that makes sense. */
export class Inputs {
  #config;
  #key;
  #onPicture;
  #onError;
  #shownName;
  #numOpened = 0;

  /**
   * @param {{config: any, key: () => string, onPicture: (picture: import("./picture.js").Picture) => void,
   *   onError: (error: RequestError, retry: (() => void)|null) => void, shownName: () => string}} how `shownName`: what is said of the picture
   *   that is shown
   */
  constructor({ config, key, onPicture, onError, shownName }) {
    this.#config = config;
    this.#key = key;
    this.#onPicture = onPicture;
    this.#onError = onError;
    this.#shownName = shownName;
    this.#listenToFiles();
    this.#listenToDrops();
    document.addEventListener("paste", (event) => this.#paste(event));
    byId("link-form").hidden = !config.allow_urls;
    byId("link-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.openLink(byId("link").value.trim());
    });
    this.#showExamples();
    languages.addEventListener("change", nameExamples);
  }

  /**
   * Open one of the server's examples.
   * @param {{name: string, url: string}} example
   */
  openExample(example) {
    return this.#open(t("picture.reading"), () => this.openExample(example), async () => {
      return [await fetchExample(example.url), { name: example.name, isExample: true }];
    });
  }

  /**
   * Open what the server fetches from elsewhere.
   * @param {string} link
   */
  openLink(link) {
    if (!this.#config.allow_urls) return this.#refuse("error.no_links");
    if (!isLink(link)) return this.#refuse("error.bad_link");
    return this.#open(t("picture.fetching"), () => this.openLink(link), async () => {
      const name = decodedName(link) || t("picture.linked");
      return [await fetchLink(link, this.#key()).catch(aboutLink), { name, link }];
    });
  }

  /**
   * Open the first of some files.
   * @param {FileList|File[]} files
   */
  openFiles(files) {
    const [file] = files;
    return this.#open(t("picture.reading"), null, async () => [file, { name: file.name || t("picture.pasted") }], files.length);
  }

  /** Forget what is being opened: something else was chosen. */
  drop() {
    this.#numOpened++;
  }

  /** Open a picture; of several that are being opened at once, the last one counts. */
  async #open(status, retry, fetchFile, numFiles = 1) {
    const number = ++this.#numOpened;
    say(status);
    try {
      const [file, about] = await fetchFile();
      const { max_body_bytes: maxBodyBytes, max_image_pixels: maxPixels } = this.#config;
      const picture = await openPicture(file, about.name, { ...about, maxBodyBytes, maxPixels });
      if (number !== this.#numOpened) return closePicture(picture);
      this.#onPicture({ ...picture, numFiles });
    } catch (error) {
      if (number !== this.#numOpened) return;
      say(this.#shownName());
      this.#onError(asRequestError(error), retry);
    }
  }

  #refuse(key) {
    this.#onError(new PageError(key === "error.no_file" ? "invalid_image" : "invalid_link", key), null);
    if (key === "error.bad_link") byId("link").focus();
  }

  #listenToFiles() {
    for (const [buttonId, inputId] of [["choose", "file"], ["camera", "camera-file"]]) {
      const input = byId(inputId);
      byId(buttonId).addEventListener("click", () => input.click());
      input.addEventListener("change", () => {
        if (input.files.length) this.openFiles([...input.files]);
        input.value = ""; // the same file can be chosen again
      });
    }
  }

  #listenToDrops() {
    const hint = byId("drop-hint");
    document.addEventListener("dragover", (event) => {
      if (isForField(event)) return;
      event.preventDefault();
      hint.hidden = false;
    });
    document.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) hint.hidden = true;
    });
    document.addEventListener("drop", (event) => {
      hint.hidden = true;
      if (isForField(event)) return;
      event.preventDefault();
      this.#take(event.dataTransfer, () => this.#refuse("error.no_file"));
    });
  }

  #paste(event) {
    const isTyping = event.target.closest?.("input, textarea") !== null;
    if (isTyping && event.clipboardData.files.length === 0) return;
    this.#take(event.clipboardData, () => {});
  }

  /** Files first, then a link, of what was dropped or pasted. */
  #take(data, otherwise) {
    const link = (data.getData("text/uri-list") || data.getData("text/plain")).split("\n")[0].trim();
    if (data.files.length) this.openFiles([...data.files]);
    else if (isLink(link)) this.openLink(link);
    else otherwise();
  }

  #showExamples() {
    const { examples } = this.#config;
    byId("examples-strip").hidden = examples.length === 0;
    byId("examples").replaceChildren(...examples.map((example) => make("li", {}, this.#exampleButton(example))));
    nameExamples();
  }

  #exampleButton(example) {
    const image = make("img", { src: addressOf(example.url).href, alt: "", loading: "lazy", decoding: "async", draggable: "false" });
    return make("button", { type: "button", class: "thumbnail", "data-testid": `example-${example.name}`, title: example.name,
      onclick: () => this.openExample(example) }, image);
  }
}

/** Whether what is dragged is text over a field, where it belongs to the field. */
function isForField({ target, dataTransfer }) {
  return Boolean(target.closest?.("input, textarea")) && !dataTransfer.types.includes("Files");
}

function isLink(text) {
  try {
    return /^https?:\/\/\S+$/i.test(text) && new URL(text).hostname !== "";
  } catch {
    return false;
  }
}

function nameExamples() {
  for (const button of byId("examples").querySelectorAll("button")) {
    button.setAttribute("aria-label", t("picture.example", { name: button.title }));
  }
}

function say(text) {
  byId("picture-name").textContent = text;
}

function aboutLink(error) {
  throw Object.assign(error, { isAboutLink: true });
}

function asRequestError(error) {
  return error instanceof RequestError ? error : new RequestError(error.message, { code: "invalid_image" });
}

/** The last part of a link's path, as people write it. */
function decodedName(link) {
  const last = new URL(link).pathname.split("/").pop() ?? "";
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}
