// The options of a request, and which of them the node's model offers.

const element = (id) => document.getElementById(id);

let offered = "";

/** Returns {language, prompt, words, translate} as they are set. */
export function options() {
  return {
    language: element("language").value.trim(),
    prompt: element("prompt").value.trim(),
    words: element("words").checked,
    translate: element("translate").checked,
  };
}

/** Offers the abilities of the model that the node reports in `languages` and `tasks`. */
export function offer({ languages, tasks }) {
  offerLanguages(languages);
  const translates = tasks.includes("translate");
  element("translate-field").hidden = !translates;
  if (!translates) element("translate").checked = false;
}

/** Returns the English name of a language's code. */
export function languageName(code) {
  return new Intl.DisplayNames(["en"], { type: "language" }).of(code);
}

function offerLanguages(codes) {
  if (codes.join() === offered) return;
  offered = codes.join();
  const choices = codes
    .map((code) => new Option(languageName(code), code))
    .sort((one, other) => one.text.localeCompare(other.text));
  const own = [...element("language").options].slice(0, 3);
  const chosen = element("language").value;
  element("language").replaceChildren(...own, ...choices);
  element("language").value = [...own, ...choices].some(({ value }) => value === chosen) ? chosen : "";
  element("language-field").hidden = codes.length < 2;
}
