import assert from "node:assert/strict";
import { test } from "node:test";
import { pageText } from "../extension/page-text.js";

for (const [address, title, expected] of [
  ["https://www.example.org/recipes/2024/lentil-soup.html?id=7#top", "Lentil soup | Example", "example recipes lentil soup: Lentil soup | Example"],
  ["https://scifi.example.com/questions/123/who-built-it", "Who built it?", "scifi example questions who built it: Who built it?"],
  ["http://127.0.0.1:8000/a_b", "T", "a b: T"],
  ["http://[::1]/", "T", "T"],
  ["https://example.org/", "", "example"],
  ["https://example.org/%D1%81%D1%83%D0%BF", "T", "example суп: T"],
  ["https://example.org/100%-wool", "T", "example wool: T"],
  ["chrome://version", "T", null],
  ["about:blank", "T", null],
  [undefined, undefined, null],
]) {
  test(`${address}, ${title}`, () => assert.equal(pageText(address, title), expected));
}
