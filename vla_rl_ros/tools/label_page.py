# SPDX-License-Identifier: Apache-2.0
"""The page of `label_viewer`, whole: no files beside it, nothing from the network."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>label</title>
<style>
  body { font: 16px system-ui, sans-serif; margin: 1.5em; background: #16181d; color: #e8e8e8; }
  #images { display: flex; flex-wrap: wrap; gap: 1em; }
  figure { margin: 0; }
  img { width: min(42vw, 480px); image-rendering: pixelated; border: 4px solid #444; }
  .success img { border-color: #3fae5a; }
  .failure img { border-color: #d0533f; }
  figcaption, #where { color: #aaa; }
  button { font: inherit; padding: .5em 1em; margin: .8em .4em .8em 0; }
  #label { font-size: 1.6em; font-weight: 600; }
  .success #label { color: #5fd07c; }
  .failure #label { color: #f0705a; }
  progress { width: 100%; }
</style>
</head>
<body>
<progress id="bar" value="0" max="1"></progress>
<p><span id="label"></span> <span id="who"></span></p>
<div id="images"></div>
<p>
  <button data-label="success">success (s)</button>
  <button data-label="failure">failure (f)</button>
  <button data-label="skip">skip (x)</button>
  <button id="back">back (&larr;)</button>
  <button id="next">next (&rarr;)</button>
  <button id="done">done (q)</button>
</p>
<p id="where"></p>
<script>
"use strict";
let frames = [], cameras = [], at = 0;
const by = id => document.getElementById(id);
function show() {
  const frame = frames[at];
  if (!frame) { by("label").textContent = "no frames"; return; }
  document.body.className = frame.label;
  by("label").textContent = frame.label;
  by("who").textContent = "says " + frame.who;
  by("where").textContent = (at + 1) + " of " + frames.length + ", " + frame.kind + ", "
    + frame.episode + " at " + frame.stamp_ns;
  by("bar").max = frames.length; by("bar").value = at + 1;
  by("images").replaceChildren(...cameras.map(camera => {
    const figure = document.createElement("figure");
    const image = document.createElement("img");
    image.alt = camera;
    image.src = "/image?n=" + at + "&camera=" + encodeURIComponent(camera);
    const caption = document.createElement("figcaption");
    caption.textContent = camera;
    figure.append(image, caption);
    return figure;
  }));
}
function go(step) { at = Math.min(Math.max(at + step, 0), frames.length - 1); show(); }
async function send(path, body) {
  const answer = await fetch(path, {method: "POST", body: JSON.stringify(body),
    headers: {"Content-Type": "application/json"}});
  if (!answer.ok) { by("where").textContent = await answer.text(); throw new Error(path); }
  return answer.json();
}
async function say(label) {
  const number = at;
  Object.assign(frames[number], await send("/label", {n: number, label: label}));
  if (number === at) { go(at + 1 < frames.length ? 1 : 0); }
}
async function done() {
  await send("/done", {});
  document.body.textContent = "Everything is stored. This page can be closed.";
}
document.querySelectorAll("[data-label]").forEach(button =>
  button.addEventListener("click", () => say(button.dataset.label)));
by("back").addEventListener("click", () => go(-1));
by("next").addEventListener("click", () => go(1));
by("done").addEventListener("click", done);
document.addEventListener("keydown", event => {
  const actions = {s: () => say("success"), f: () => say("failure"), x: () => say("skip"),
    ArrowLeft: () => go(-1), ArrowRight: () => go(1), q: done};
  if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
});
fetch("/frames").then(answer => answer.json()).then(found => {
  frames = found.frames; cameras = found.cameras; show();
});
</script>
</body>
</html>
"""
