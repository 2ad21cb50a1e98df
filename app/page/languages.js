// The choice of languages.

const element = (id) => document.getElementById(id);

let offered = "";

/** Offers the languages with these codes, where there is a choice. */
export function offerLanguages(codes) {
  if (codes.join() === offered) return;
  offered = codes.join();
  const names = new Intl.DisplayNames(["en"], { type: "language" });
  const options = codes
    .map((code) => new Option(names.of(code), code))
    .sort((one, other) => one.text.localeCompare(other.text));
  const own = [...element("language").options].slice(0, 3);
  const chosen = element("language").value;
  element("language").replaceChildren(...own, ...options);
  element("language").value = codes.includes(chosen) ? chosen : "";
  element("language-field").hidden = codes.length < 2;
}
