import assert from "node:assert/strict";
import { test } from "node:test";
import { compose, tidy } from "../src/text.js";

const TIDIED = [
  ["  a\u00a0 b\r\n\n\n\nc ", "a b\n\nc"],
  ["a\rb", "a\nb"],
  ["e\u0301", "é"],
  ["a\u001cb\u0085c", "a b c"], // white space to Python only
  ["\ufeffa", "\ufeffa"], // white space to JavaScript only
  ["\ud83d lone, \ude00 lone", "lone, lone"],
  ["🚀", "🚀"],
  ["\u0000\u007f", ""],
  [" \n \n x \n \n \n y", "x\n\ny"],
  ["", ""],
];

for (const [text, expected] of TIDIED) {
  test(`tidy(${JSON.stringify(text)})`, () => assert.equal(tidy(text), expected));
}

test("a template is filled once: what looks like a place in a field stays", () => {
  assert.equal(compose("{title}\n\n{body}", { title: "{body} $& $1", body: "b" }), "{body} $& $1\n\nb");
});

test("doubled braces are braces, as in Python", () => {
  assert.equal(compose("{{{title}}}", { title: "t" }), "{t}");
});

test("an empty last field leaves no blank lines behind", () => {
  assert.equal(compose("{title}\n\n{body}", { title: "t", body: "" }), "t");
});
