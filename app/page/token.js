// The form that asks for the node's token.

import { hasToken, setToken } from "./node.js";

const element = (id) => document.getElementById(id);

let locked = null; // the action that waits for a token

/** Asks for a token, and calls `then`, or what `onToken` was given, once there is one. */
export function askForToken(then) {
  locked = then;
  element("token-text").textContent = hasToken()
    ? "The node rejected the token. Enter another one:"
    : "This node requires a token:";
  element("token-form").hidden = false;
  element("token").focus();
}

export function isAskingForToken() {
  return !element("token-form").hidden;
}

/** Connects the form; `then` is called if nothing else waits for the token. */
export function onToken(then) {
  element("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setToken(element("token").value);
    element("token").value = "";
    element("token-form").hidden = true;
    const waiting = locked ?? then;
    locked = null;
    waiting();
  });
}
