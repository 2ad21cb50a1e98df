// A request of this page as a command line of curl, for a POSIX shell.

/** Returns the command that sends the file `name` with these options to the node below `page`, the
 * page's own address. With a token, the line reads it from the variable TOKEN. */
export function curlLine(page, name, { language, prompt, words, translate }, hasToken) {
  const route = `v1/audio/${translate ? "translations" : "transcriptions"}`;
  const parts = ["curl", quoted(new URL(route, page.origin + page.pathname).href)];
  if (hasToken) parts.push('-H "Authorization: Bearer $TOKEN"');
  parts.push(`-F ${quoted(`file=@${formFile(name)}`)}`);
  // Unlike -F, --form-string gives no character of the value a meaning.
  if (language) parts.push(`--form-string ${quoted(`language=${language}`)}`);
  if (prompt) parts.push(`--form-string ${quoted(`prompt=${prompt}`)}`);
  if (words) {
    parts.push("-F response_format=verbose_json", "-F 'timestamp_granularities[]=segment'");
    parts.push("-F 'timestamp_granularities[]=word'");
  }
  return parts.join(" ");
}

/** Returns the command that sends a form to `address` with a file in the field `audio` and `fields`,
 * pairs of a name and a value or a list of values. */
export function formLine(address, audio, file, fields, hasToken) {
  const parts = ["curl", quoted(address.href)];
  if (hasToken) parts.push('-H "Authorization: Bearer $TOKEN"');
  parts.push(`-F ${quoted(`${audio}=@${formFile(file)}`)}`);
  for (const [name, value] of fields) {
    for (const one of [value].flat()) parts.push(`--form-string ${quoted(`${name}=${one}`)}`);
  }
  return parts.join(" ");
}

/** curl takes `-` for its stdin, and ends a name at a comma or semicolon unless it is in quotes. */
function formFile(name) {
  const path = name === "-" ? "./-" : name;
  return /^[\w./ -]+$/.test(path) ? path : `"${path.replace(/["\\]/g, "\\$&")}"`;
}

function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
