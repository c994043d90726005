"use strict";

const token = document.querySelector("meta[name=csrf-token]").content;
const problem = document.getElementById("problem");

async function ask(method, path, body) {
  const headers = { "X-CSRF-Token": token };
  if (typeof body === "string") headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body });
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.message || answer.statusText);
  }
  return answer.status === 204 ? null : answer.json();
}

function attempt(action) {
  problem.hidden = true;
  action().catch((error) => {
    problem.textContent = error.message;
    problem.hidden = false;
  });
}

document.getElementById("add").addEventListener("submit", (event) => {
  event.preventDefault();
  const title = new FormData(event.target).get("title");
  attempt(async () => {
    await ask("POST", "/api/items", JSON.stringify({ title }));
    location.reload();
  });
});

document.querySelectorAll("[data-delete]").forEach((button) => {
  button.addEventListener("click", () => attempt(async () => {
    await ask("DELETE", `/api/items/${button.dataset.delete}`);
    location.reload();
  }));
});

document.getElementById("upload").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    const { url } = await ask("POST", "/api/upload", new FormData(event.target));
    const link = document.createElement("a");
    link.href = link.textContent = url;
    document.getElementById("uploaded").replaceChildren(link);
  });
});

let socket = null;

document.getElementById("echo").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = new FormData(event.target).get("text");
  if (!socket || socket.readyState > WebSocket.OPEN) {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    socket = new WebSocket(`${scheme}://${location.host}/ws_panel`);
    socket.addEventListener("message", (message) => {
      document.getElementById("echoed").textContent = message.data;
    });
  }
  if (socket.readyState === WebSocket.OPEN) socket.send(text);
  else socket.addEventListener("open", () => socket.send(text), { once: true });
});
