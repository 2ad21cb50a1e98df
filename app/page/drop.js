// Files that are dropped anywhere on the page.

const element = (id) => document.getElementById(id);
const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");

/** Calls `take(file)` with a dropped file, or with undefined if it was something else. The page shows
 * where to drop while `isIdle()`. */
export function onDrop(isIdle, take) {
  addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    element("drop").hidden = !isIdle();
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) element("drop").hidden = true;
  });
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    element("drop").hidden = true;
    take(event.dataTransfer.files[0]);
  });
}
