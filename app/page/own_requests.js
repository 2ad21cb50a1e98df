// The requests of this page, so that the list of the node's last requests can name their files.

const MOST = 100; // more than the node lists
const names = new Map(); // file names by request id

/** Keeps the name of the file of a request. Answers of a proxy have no id. */
export function keep(id, name) {
  if (id === null) return;
  names.set(id, name);
  if (names.size > MOST) names.delete(names.keys().next().value);
}

/** Returns the name of the file of a request, or undefined if it is not of this page. */
export function nameOf(id) {
  return names.get(id);
}
