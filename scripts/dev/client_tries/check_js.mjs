// Shared by the programs in JavaScript: the node, the recording, and the lines of the result.

export const V1 = `${process.env.NODE}/v1`;
export const AUDIO = process.env.AUDIO;
const WORDS = "ask not what your country can do for you";

export function said(text) {
  const words = String(text).toLowerCase().replace(/[^a-z\s]/g, "").split(/\s+/).join(" ");
  if (!words.includes(WORDS)) throw new Error(`the text is ${text.slice(0, 100)}`);
}

export async function check(name, call) {
  try {
    await call();
    console.log(`${name}\tworks`);
  } catch (failed) {
    const reason = `${failed.name}: ${failed.message}`.replace(/\s+/g, " ").replaceAll("|", "/");
    console.log(`${name}\tfails: ${reason.slice(0, 150)}`);
  }
}
