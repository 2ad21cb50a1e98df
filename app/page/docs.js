// The page that shows openapi.json: every route of the node with its fields, answers and a command.

import { formLine } from "./curl.js";
import { explain } from "./failures.js";
import { description, hasToken } from "./node.js";
import { askForToken, onToken } from "./token.js";

const METHODS = ["get", "post"]; // HEAD has the answers of GET without their content

const element = (id) => document.getElementById(id);

/** Returns an element with children: nodes, or text in which `words` become code. */
function made(name, children = [], kind = "") {
  const found = document.createElement(name);
  if (kind) found.className = kind;
  for (const child of [children].flat()) found.append(...(child instanceof Node ? [child] : marked(child)));
  return found;
}

function marked(text) {
  return String(text)
    .split("`")
    .map((piece, number) => {
      if (number % 2 === 0) return piece;
      const code = document.createElement("code");
      code.textContent = piece;
      return code;
    });
}

function code(text) {
  const found = document.createElement("code");
  found.textContent = text;
  return found;
}

function table(titles, rows) {
  const head = made("tr", titles.map((title) => {
    const cell = made("th", title);
    cell.scope = "col";
    return cell;
  }));
  const body = rows.map((row) => made("tr", row.map((cell) => made("td", cell))));
  return made("table", [made("thead", head), made("tbody", body)]);
}

// Schemas in words.

function resolve(root, schema) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.slice(2).split("/").reduce((at, name) => at[name], root);
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  const parts = schema.anyOf ?? schema.oneOf;
  if (parts) return parts.map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.join(", ");
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? {})}`;
  const name = { boolean: "true or false", integer: "whole number", string: "text" };
  const type = [schema.type ?? "any"].flat().map((one) => name[one] ?? one).join(" or ");
  if (schema.format === "binary") return "file";
  return schema.maximum === undefined ? type : `${type}, ${schema.minimum} to ${schema.maximum}`;
}

function byDefault(schema) {
  return schema.default === undefined ? "" : code([schema.default].flat().join(", "));
}

/** Returns the fields of an object as a table; the fields of its parts stand in tables of their own. */
function fieldsOf(root, name, schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([field, one]) => {
    const always = schema.required?.includes(field) ? "" : "not always";
    return [code(field), typeOf(one), [one.description ?? "", one.description && always ? ". " : "", always].join("")];
  });
  return [made("h3", name), table(["Field", "Type", "Meaning"], rows)];
}

/** Returns the names of the objects that a schema refers to, and that these refer to. */
function objects(root, schema, found = new Set()) {
  for (const [, name] of JSON.stringify(schema).matchAll(/#\/components\/schemas\/(\w+)/g)) {
    if (found.has(name)) continue;
    found.add(name);
    objects(root, root.components.schemas[name], found);
  }
  return found;
}

// Routes.

function parameters(operation) {
  const rows = (operation.parameters ?? []).map(({ name, schema, description: about }) => [
    code(name),
    typeOf(schema),
    byDefault(schema),
    about ?? "",
  ]);
  return rows.length ? [made("h3", "Fields"), table(["Field", "Type", "Default", "Meaning"], rows)] : [];
}

function body(operation, path) {
  const content = operation.requestBody?.content;
  if (!content) return [];
  const form = content["multipart/form-data"];
  const [audio] = form.schema.required;
  const rows = Object.entries(content).map(([kind, { schema }]) => {
    const field = schema.required?.[0];
    const about = field ? `The audio in \`${field}\`, and the fields` : "The audio; the fields in the query";
    return [code(kind), schema.description ? `${about}. ${schema.description}` : about];
  });
  const lines = Object.values(form.examples).map(({ value }) => {
    const fields = Object.entries(value).filter(([name]) => name !== audio);
    return formLine(new URL(`.${path}`, new URL(".", location.href)), audio, value[audio], fields, hasToken());
  });
  const commands = made("pre", made("code", lines.join("\n")));
  commands.tabIndex = 0;
  return [made("h3", "Body"), table(["Type", "Content"], rows), made("h3", "Examples"), commands];
}

function answers(root, operation) {
  const rows = Object.entries(operation.responses).map(([status, answer]) => {
    const kinds = Object.entries(answer.content ?? {});
    const types = kinds.map(([kind, { schema }]) => {
      const named = schema.$ref || schema.anyOf;
      return named ? `\`${kind}\` ${typeOf(schema)}` : `\`${kind}\``;
    });
    return [code(status), types.join(", "), answer.description];
  });
  const about = operation.responses[200] ?? {};
  const named = [...objects(root, about)].flatMap((name) => fieldsOf(root, name, resolve(root, root.components.schemas[name])));
  return [made("h3", "Answers"), table(["Status", "Content", "Meaning"], rows), ...named];
}

function route(root, path, method, operation) {
  const summary = made("summary", [
    made("span", method.toUpperCase(), "method"),
    code(path),
    ` ${operation.summary}`,
    made("span", [], operation.security ? "lock" : ""),
  ]);
  const about = operation.description ? [made("p", operation.description, "quiet")] : [];
  const parts = [...about, ...parameters(operation), ...body(operation, path), ...answers(root, operation)];
  const shown = made("details", [summary, ...parts]);
  shown.id = operation.operationId;
  return shown;
}

function show(root) {
  element("version").textContent = root.info.version;
  element("about").replaceChildren(...marked(root.info.description));
  element("about").hidden = false;
  const all = Object.entries(root.paths).flatMap(([path, found]) =>
    METHODS.filter((method) => found[method]).map((method) => [path, method, found[method]]),
  );
  const sections = root.tags.map(({ name }) => {
    const routes = all.filter(([, , operation]) => operation.tags.includes(name));
    return made("section", [made("h2", name), ...routes.map(([...one]) => route(root, ...one))]);
  });
  element("routes").replaceChildren(...sections);
  element("routes").setAttribute("aria-busy", "false");
  if (location.hash) element(location.hash.slice(1))?.setAttribute("open", "");
}

async function load() {
  element("failure").hidden = true;
  try {
    show(await description());
  } catch (error) {
    if (error.status === 401) {
      askForToken(load);
    } else {
      element("failure").textContent = explain(error);
      element("failure").hidden = false;
    }
  }
}

onToken(load);
load();
